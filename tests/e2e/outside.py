"""Where is a server of the tests? On this machine, where functions reach it, not the platform."""

import functools
import http.client
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from shared import clock
from tests.e2e import images


@functools.cache
def host_address() -> str:
    """Return this machine's address on the engine's own bridge, which functions can reach."""
    routes = images.docker("run", "--rm", images.BASE, "ip", "route")
    found = re.search(r"^default via (\S+)", routes, re.MULTILINE)
    assert found, f"a container has no way out: {routes}"
    return found[1]


@asynccontextmanager
async def served(handler: web.RequestHandler, path: str = "/{path:.*}") -> AsyncIterator[str]:
    """Serve requests of any method while inside; give host:port, as functions can reach it."""
    application = web.Application()
    application.router.add_route("*", path, handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()  # noqa: S104 (functions come from their network)
    try:
        yield f"{host_address()}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def wait_for_http(address: str, path: str, status: int) -> None:
    """Wait until a server on this machine answers a GET with a status."""
    until = clock.monotonic_s() + 60
    while clock.monotonic_s() < until:
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == status:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    pytest.fail(f"{address} does not answer {path} with {status}")
