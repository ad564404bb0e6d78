"""What does every service do the same way? Start, tell its health, stop on SIGTERM.

A service brings its long-lived tasks and a function that says what it lacks to be ready.
"""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import prometheus_client
import structlog
from aiohttp import web

from shared import tasks as tasks_ending

#: Says what is missing for the service to be ready; None if nothing is.
Readiness = Callable[[], Awaitable[str | None]]

log = structlog.get_logger()


async def healthz(_: web.Request) -> web.Response:
    """Answer that the process lives and its loop turns."""
    return web.json_response({"status": "ok"})


async def metrics(_: web.Request) -> web.Response:
    """Answer Prometheus' text format with all metrics of this process.

    Made in a thread: it takes a while, and reads files of the system.
    """
    return web.Response(
        body=await asyncio.to_thread(prometheus_client.generate_latest),
        headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
    )


def readyz(readiness: Readiness) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that answers 200, or 503 with what is missing."""

    async def handler(_: web.Request) -> web.Response:
        missing = await readiness()
        if missing is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not ready", "missing": missing}, status=503)

    return handler


def add_operating_routes(app: web.Application, readiness: Readiness) -> None:
    """Add `/healthz`, `/readyz` and `/metrics`."""
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz(readiness))
    app.router.add_get("/metrics", metrics)


@asynccontextmanager
async def operating_server(port: int, readiness: Readiness) -> AsyncIterator[None]:
    """Serve health and metrics on a port while inside: for services without an HTTP face."""
    app = web.Application()
    add_operating_routes(app, readiness)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 (reached from outside its container)
        yield
    finally:
        await runner.cleanup()


def rest_garbage_collector() -> None:
    """Let the garbage collector look at what lives long no more, and seldom at what is new.

    To be called when a service has started. Calls leave no cycles behind, and looking for them
    costs each call a good part of what deciding about it does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@asynccontextmanager
async def stop_signals() -> AsyncIterator[asyncio.Event]:
    """Give an event that SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def supervised(**tasks: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run named long-lived tasks while inside; one that fails ends the service.

    The error of a failed task is raised out of the block, which is cancelled.
    """
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task, name=name) for name, task in tasks.items()]
        try:
            yield
        finally:
            await tasks_ending.end(*running)
