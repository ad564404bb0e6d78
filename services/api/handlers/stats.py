"""How many calls are there? `/stats`."""

from aiohttp import web

from services.api import openapi
from services.api.call_schemas import StatsAnswer
from services.api.stats import Stats

STATS = web.AppKey("stats", Stats)


@openapi.operation("Count the calls.", tag="operating", answers={200: StatsAnswer})
async def stats(request: web.Request) -> web.Response:
    """Answer how many calls wait, run, and have ended."""
    return web.json_response(await request.app[STATS].counts())


ROUTES = (web.get("/stats", stats, allow_head=False),)
