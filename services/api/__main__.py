"""How does an api replica start and stop? `python -m services.api`."""

import asyncio
import os
import sys
from contextlib import suppress

import structlog
import uvloop
from aiohttp import web

from services.api import connections, entrance, parts
from services.api.app import build_app
from services.api.migrating import DatabaseTooNew
from services.api.settings import Settings
from shared import logs, service, settings
from shared.errors import BadSettings

#: Longest request line (`?payload=`) and header; the limit of the environment comes after.
LINE_MAX_BYTES, HEADER_MAX_BYTES = 64 * 1024, 256 * 1024
#: Exit codes.
BAD_SETTINGS, NOT_STARTED = 2, 1

log = structlog.get_logger()


async def serve(chosen: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; one that comes during the start ends it."""
    started = asyncio.Event()
    async with service.stop_signals() as stop:
        serving = asyncio.create_task(_serve(chosen, started, stop), name="serving")
        stopping = asyncio.create_task(stop.wait(), name="stopping")
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not started.is_set():
            serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def _serve(chosen: Settings, started: asyncio.Event, stop: asyncio.Event) -> None:
    """Start, serve and drain, all in one task: what is supervised ends this one if it fails.

    Draining: first say that we are not ready and let load balancers notice; then take no more
    connections; then let calls finish within the grace; then let go of everything.
    """
    app = build_app(chosen)
    runner = _runner(app, chosen)
    try:
        await entrance.set_up(runner)
        most = connections.room_for(chosen.connections_max)
        await connections.Site(runner, "0.0.0.0", chosen.port, most).start()  # noqa: S104 (reached from outside its container)
        log.info("serving", port=chosen.port)
        started.set()
        await stop.wait()
        log.info("draining")
        app[parts.DRAINING].set()
        entrance.let_go(runner)
        await asyncio.sleep(chosen.shutdown_notice_s)
    finally:
        await runner.cleanup()
    log.info("stopped")


def _runner(app: web.Application, chosen: Settings) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        max_line_size=LINE_MAX_BYTES,
        max_field_size=HEADER_MAX_BYTES,
        shutdown_timeout=chosen.shutdown_grace_s,
    )


def main() -> int:
    """Run the service; return its exit code."""
    try:
        chosen = settings.read(Settings, os.environ)
    except BadSettings as error:
        print(error.message, file=sys.stderr)  # noqa: T201 (logging needs the settings)
        return BAD_SETTINGS
    logs.configure("api", chosen.log_level)
    connections.rest_server_log()
    service.rest_garbage_collector()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(serve(chosen))
    except (DatabaseTooNew, OSError) as error:
        log.error("not_started", error=str(error))  # noqa: TRY400 (one line says it)
        return NOT_STARTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
