"""Does a platform work on machines whose clocks are wrong, and jump?"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shared import clock
from tests.e2e.client import Client
from tests.e2e.platforms import Role, Service

ROLES: tuple[Role, ...] = ("api", "scheduler", "runner")
HOUR_S = 3600
#: Longer than a runner may be silent, or a leftover is left alone.
WATCHED_S = 11.0


@asynccontextmanager
async def shifted(service: Service, folder: Path) -> AsyncIterator[Path]:
    """Run a service that is stopped on a clock that is as far ahead as a file says."""
    ahead = folder / f"{service.role}-ahead"
    ahead.write_text("0")
    service.arguments = ["-m", "tests.e2e.shifted", f"services.{service.role}", str(ahead)]
    service.start()
    await asyncio.to_thread(service.wait_ready)
    yield ahead


@pytest.mark.parametrize("role", ROLES)
async def test_a_clock_that_jumps_changes_nothing(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Callable[[str], str],
    tmp_path: Path,
    *,
    role: Role,
) -> None:
    with new_platform() as platform:
        platform.start()
        service = platform.first(role)
        platform.remove(service)
        async with shifted(service, tmp_path) as ahead:
            client = Client(http, platform.url)
            sync = await client.deploy(app, "/sync", function_image("exec cat"), timeout=5)
            path = await client.deploy(app, "/x", function_image("exec cat"), type="async")
            await works(client, sync, path)
            kept = platform.containers()
            for jump_s in (HOUR_S, -HOUR_S, 0):
                ahead.write_text(str(jump_s))
                until_s = clock.monotonic_s() + WATCHED_S
                while clock.monotonic_s() < until_s:
                    await works(client, sync, path)
                    await asyncio.sleep(0.2)
                assert kept <= platform.containers(), "sandboxes of a living runner were removed"
            for wrong_s in (HOUR_S, -HOUR_S):
                ahead.write_text(str(wrong_s))
                platform.remove(service)
                service.start()
                await asyncio.to_thread(service.wait_ready)
                await works(client, sync, path)


async def works(client: Client, sync: str, path: str) -> None:
    """Make a call of each kind, and see that all is as it should be."""
    answer = await client.post(sync, data=b"x")
    assert (answer.status, answer.body) == (200, b"x"), answer.text
    accepted = await client.post(path, data=b"y")
    assert accepted.status == 202, accepted.text
    record = await client.ended(accepted.json()["call_id"], 20)
    assert record["status"] == "success", record
    runners = (await client.get("/v1/runners")).json()["runners"]
    assert any(runner["able"] and not runner["draining"] for runner in runners)
    record = await client.ended(answer.call_id, 20)
    assert record["status"] == "success", record
