"""What is an api replica made of? Builds the application; start and stop stand side by side."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import structlog
from aiohttp import web
from redis.exceptions import RedisError

from services.api import assembly, middleware, migrating, openapi, packed, parts
from services.api.catalog import Catalog
from services.api.database import Database
from services.api.handlers import (
    apps,
    callback_secrets,
    calls,
    client,
    dead_letters,
    invoke,
    meta,
    routes,
    runners,
    stats,
    tasks,
)
from services.api.settings import Settings
from services.api.store import Store
from services.api.versions import Versions
from shared import service, streams
from shared.errors import Unavailable
from shared.version import VERSION

HANDLERS = (
    meta,
    apps,
    callback_secrets,
    routes,
    invoke,
    calls,
    dead_letters,
    tasks,
    stats,
    runners,
    client,
)
#: How long a readiness check waits for MySQL, in seconds.
CHECK_TIMEOUT_S = 2.0

CALLING = web.AppKey("calling", assembly.Calling)
DATABASE = web.AppKey("database", Database)

log = structlog.get_logger()


def build_app(settings: Settings) -> web.Application:
    """Return the application; it connects when it starts and lets go when it ends."""
    app = web.Application(
        middlewares=[middleware.handled],
        client_max_size=0,  # each handler knows its own limit
    )
    app[parts.SETTINGS] = settings
    app[parts.DRAINING] = asyncio.Event()
    for handlers in HANDLERS:
        app.add_routes(handlers.ROUTES)
    service.add_operating_routes(app, lambda: _missing(app))
    app[meta.DOCUMENT] = document(app)
    app.cleanup_ctx.append(_running)
    return app


def document(app: web.Application) -> dict[str, Any]:
    """Return the OpenAPI document of an application with all its routes."""
    return openapi.document(
        app,
        version=VERSION,
        server=app[parts.SETTINGS].api_url,
        undecorated=meta.OPERATING,
    )


def documented_paths() -> list[str]:
    """Return the paths of the API, as its document has them."""
    return list(build_app(Settings())[meta.DOCUMENT]["paths"])


async def _running(app: web.Application) -> AsyncIterator[None]:
    """Connect, bring the tables up to date, and run what runs as long as the replica does."""
    settings = app[parts.SETTINGS]
    if found := await asyncio.to_thread(packed.read, settings.fn_file):
        app[client.PACKED] = found
    await _migrated(settings.db_url)
    async with AsyncExitStack() as stack:
        database = app[DATABASE] = Database(settings.db_url)
        stack.push_async_callback(database.close)
        redis = streams.connect(settings.mq_url)
        stack.push_async_callback(redis.aclose)
        await _answering(redis)
        outbox = await stack.enter_async_context(streams.Outbox(redis))
        versions = Versions(outbox.send)
        store = app[parts.STORE] = Store(database, versions)
        stack.push_async_callback(store.close)
        catalog = Catalog(store.read_for_call, versions, ttl_s=settings.catalog_ttl_s)
        stack.push_async_callback(catalog.close)
        calling = await stack.enter_async_context(
            assembly.assembled(settings, redis, database, store, catalog, outbox=outbox)
        )
        app[CALLING] = calling
        assembly.install(app, calling)
        await stack.enter_async_context(service.supervised(**calling.tasks()))
        yield


async def _migrated(db_url: str) -> None:
    """Migrate, as soon as MySQL is there: everything may be starting at once."""
    backoff = streams.Backoff()
    while True:
        try:
            await asyncio.to_thread(migrating.migrate, db_url)
        except Unavailable as error:
            log.warning("waiting_for_mysql", error=error.message)
            await backoff.wait()
        else:
            return


async def _answering(redis: streams.Redis) -> None:
    backoff = streams.Backoff()
    while True:
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            log.warning("waiting_for_redis", error=str(error))
            await backoff.wait()
        else:
            return


async def _missing(app: web.Application) -> str | None:
    """Return what this replica lacks to serve; None if nothing."""
    if app[parts.DRAINING].is_set():
        return "stopping"
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), app[DATABASE].reading() as cursor:
            await cursor.execute("SELECT 1")
    except (Unavailable, TimeoutError) as error:
        return f"mysql: {error or 'no answer in time'}"
    return await app[CALLING].ready()
