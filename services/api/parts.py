"""How do handlers and middleware find what the application is made of?"""

import asyncio

from aiohttp import web

from services.api.callbacks import Callbacks
from services.api.settings import Settings
from services.api.store import Store

SETTINGS = web.AppKey("settings", Settings)
STORE = web.AppKey("store", Store)
CALLBACKS = web.AppKey("callbacks", Callbacks)
#: Set when the replica is to stop: it says that it is not ready, and still serves.
DRAINING = web.AppKey("draining", asyncio.Event)
#: The request's id in the log; and the call's, if it is one.
REQUEST_ID = web.RequestKey("request_id", str)
CALL_ID = web.RequestKey("call_id", str)
