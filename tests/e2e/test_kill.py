"""Does killing any process lose an accepted async call? Each on a platform of its own."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from shared import messages
from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.conftest import World
from tests.e2e.load import accept
from tests.e2e.platforms import Platform, Role
from tests.e2e.test_async import TELL, all_recorded

Image = Callable[[str], str]
CALLS = 40


async def some_have_ended(client: Client, app: str) -> bool:
    """Return whether some of the calls have ended, but by far not all."""
    ended = [c for c in await client.calls(app) if c["status"] in messages.ENDED]
    return len(ended) >= 4


@pytest.mark.parametrize("role", ["api", "scheduler", "runner"])
async def test_a_kill_amid_async_calls_loses_none(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
    *,
    role: Role,
) -> None:
    with new_platform() as platform:
        platform.start()
        client = Client(http, platform.url)
        script = f"sleep 0.5; {TELL}"
        image = function_image(script)
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        accepted = await accept(client, path, CALLS)
        await eventually(lambda: some_have_ended(client, app), 30)

        victim = platform.first(role)
        victim.kill()
        left = platform.containers()
        assert left, "nothing ran when it was killed"
        victim.start()
        await asyncio.to_thread(victim.wait_ready)

        done = await all_recorded(client, app, "success", CALLS)
        assert sorted(c["id"] for c in done) == sorted(accepted)
        assert len(await client.calls(app)) == CALLS
        assert {path.lstrip("/") for path in world.hits} == set(accepted)
        if role != "runner":
            assert set(world.hits.values()) == {1}, "only a lost runner runs calls again"
        if role == "runner":
            await eventually(lambda: removed(platform, left), 45)


async def removed(platform: Platform, containers: set[str]) -> bool:
    return containers.isdisjoint(platform.containers())


async def test_calls_accepted_while_the_api_is_killed_are_all_there(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    """Whoever got a 202 before the connection broke has a call that runs."""
    with new_platform() as platform:
        platform.start()
        client = Client(http, platform.url)
        image = function_image(TELL)
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        promised: set[str] = set()

        async def caller() -> None:
            while len(promised) < 500:
                answer = await client.post(path, data=b"x")
                assert answer.status == 202
                promised.add(answer.json()["call_id"])

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await eventually(lambda: _at_least(promised, 30), 20)
        victim = platform.first("api")
        victim.kill()
        for outcome in await asyncio.gather(*callers, return_exceptions=True):
            assert outcome is None or isinstance(outcome, aiohttp.ClientError | OSError)
        victim.start()
        await asyncio.to_thread(victim.wait_ready)
        await all_recorded(client, app, "success", len(promised))
        assert promised <= {path.lstrip("/") for path in world.hits}


async def _at_least(found: set[str], count: int) -> bool:
    return len(found) >= count


async def test_a_sync_call_whose_runner_dies_is_told_so(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    with new_platform() as platform:
        platform.start()
        client = Client(http, platform.url)
        image = function_image("wget -q -O- http://$WORLD/started; exec sleep 1000")
        path = await client.deploy(app, "/x", image, timeout=600, config=world.config)
        calling = asyncio.create_task(client.post(path))
        await world.hit("/started")
        victim = platform.first("runner")
        victim.kill()
        async with asyncio.timeout(20):
            answer = await calling
        assert (answer.status, answer.code) == (502, "runner_lost")
        assert answer.json()["error"]["fault"] == "platform"
        left = platform.containers()
        assert left, "the dead runner's container should still be there"
        victim.start()
        await asyncio.to_thread(victim.wait_ready)
        await eventually(lambda: removed(platform, left), 45)
        assert world.hits["/started"] == 1, "a sync call that had started was run again"


async def test_a_second_scheduler_takes_over(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Image,
) -> None:
    with new_platform() as platform:
        platform.start()
        platform.add("scheduler")
        client = Client(http, platform.url)
        path = await client.deploy(app, "/x", function_image("exec cat"))
        assert (await client.post(path, data=b"1")).body == b"1"
        platform.first("scheduler").kill()
        async with asyncio.timeout(25):
            answer = await client.post(path, data=b"2")
        assert (answer.status, answer.body) == (200, b"2")
