"""Which parts make the invocation half of the api, and how do handlers reach them?"""

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from services.api import addresses, parts
from services.api.bodies import Room
from services.api.callbacks import Callbacks
from services.api.calls import Calls
from services.api.catalog import Catalog
from services.api.claims import Claims
from services.api.courier import Courier
from services.api.database import Database
from services.api.gateway import Gateway
from services.api.handlers import calls as calls_handlers
from services.api.handlers import dead_letters, invoke, runners, stats, tasks
from services.api.letters import Letters, Lifetime
from services.api.lines import Lines
from services.api.recorder import Recorder
from services.api.records import Records
from services.api.redriving import Redriving
from services.api.reservations import Reservations
from services.api.retention import Retention
from services.api.retries import Retries
from services.api.runners import Runners
from services.api.settings import Settings
from services.api.stats import Stats
from services.api.store import Store
from services.api.wanted import WantedRoutes
from shared import ids, streams

#: JSON may write one byte of a payload with six (`\\u0001`); the rest of a task is small.
_JSON_GROWTH = 6
_TASK_OVERHEAD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Calling:
    """The parts, built but not running."""

    settings: Settings
    catalog: Catalog
    gateway: Gateway
    recorder: Recorder
    reservations: Reservations
    retention: Retention
    claims: Claims
    callbacks: Callbacks
    courier: Courier
    retries: Retries
    lifetime: Lifetime
    letters: dead_letters.Means
    wanted: WantedRoutes
    runners: Runners
    calls: Calls
    stats: Stats

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the long-lived tasks by name, to be supervised; each ends only when cancelled."""
        return {
            "replies": self.gateway.read_replies(),
            "reply_stream": self.gateway.keep_stream(),
            "recorder": self.recorder.run(),
            "reservations": self.reservations.run(),
            "retention": self.retention.run(),
            "retries": self.retries.run(),
            "dead_letters": self.lifetime.run(),
            "wanted": self.wanted.run(),
            "claims": self.claims.run(),
            "courier": self.courier.run(),
        }

    async def ready(self) -> str | None:
        """Return what is missing for calls to be answered; None if nothing is."""
        return await self.gateway.ready()


@asynccontextmanager
async def assembled(
    settings: Settings,
    redis: streams.Redis,
    database: Database,
    store: Store,
    catalog: Catalog,
    *,
    outbox: streams.Outbox,
) -> AsyncIterator[Calling]:
    """Build the parts on what is connected already."""
    api_id = ids.new_process_id("api")
    records = Records(database)
    callbacks = Callbacks(database)
    courier = Courier(callbacks, records, settings)
    letters = Letters(database)
    wanted = WantedRoutes(redis, outbox, store)
    store.tell_changes(wanted.changed)
    yield Calling(
        settings=settings,
        catalog=catalog,
        gateway=Gateway(redis, outbox, catalog, settings, api_id),
        recorder=Recorder(redis, records, letters, api_id, courier.wake),
        reservations=Reservations(redis, outbox),
        retention=Retention(database, settings.record_retention_days),
        claims=Claims(outbox),
        callbacks=callbacks,
        courier=courier,
        retries=Retries(outbox),
        lifetime=Lifetime(letters, settings.dead_letter_retention_days, settings.dead_letters_max),
        letters=dead_letters.Means(
            letters, Redriving(letters, catalog, outbox, settings.async_queue_max)
        ),
        wanted=wanted,
        runners=Runners(redis),
        calls=Calls(records),
        stats=Stats(outbox),
    )


def install(app: web.Application, calling: Calling) -> None:
    """Let the handlers find the parts, and the server the handlers."""
    settings = calling.settings
    app[invoke.MEANS] = invoke.Means(
        calling.catalog,
        calling.gateway,
        settings.request_max_bytes,
        Lines(settings.line_wait_s or float("inf")),
        Room(max(settings.bodies_max_bytes, settings.request_max_bytes)),
        addresses.networks(settings.callback_allow_networks),
    )
    app[tasks.RESERVATIONS] = calling.reservations
    app[tasks.TASK_MAX_BYTES] = settings.request_max_bytes * _JSON_GROWTH + _TASK_OVERHEAD_BYTES
    app[calls_handlers.CALLS] = calling.calls
    app[parts.CALLBACKS] = calling.callbacks
    app[dead_letters.MEANS] = calling.letters
    app[stats.STATS] = calling.stats
    app[runners.RUNNERS] = calling.runners
