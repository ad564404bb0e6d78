"""Does a SIGTERM let calls finish? Rolling restarts must not fail callers."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.e2e.client import Answer, Client
from tests.e2e.conftest import World
from tests.e2e.platforms import Role

Image = Callable[[str], str]


#: Tells the world that it has begun, takes a while, and answers.
SLOW = "wget -q -O- http://$WORLD/begun >/dev/null; sleep 2; echo finished"


@pytest.mark.parametrize("role", ["api", "scheduler", "runner"])
async def test_calls_that_run_are_finished(
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
        path = await client.deploy(app, "/x", function_image(SLOW), config=world.config)
        calls = [asyncio.create_task(client.post(path)) for _ in range(3)]
        await world.hit("/begun", times=3)
        await asyncio.to_thread(platform.remove, platform.first(role))
        assert_finished(await asyncio.gather(*calls))


async def test_calls_go_on_while_runners_are_exchanged(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Image,
) -> None:
    with new_platform() as platform:
        platform.start()
        client = Client(http, platform.url)
        path = await client.deploy(app, "/x", function_image("sleep 0.3; echo finished"))
        done = asyncio.Event()

        async def caller() -> list[Answer]:
            answers = []
            while not done.is_set():
                answers.append(await client.post(path))
            return answers

        calling = [asyncio.create_task(caller()) for _ in range(4)]
        platform.add("runner")
        await asyncio.to_thread(platform.services[-1].wait_ready)
        await asyncio.to_thread(platform.remove, platform.first("runner"))
        done.set()
        answers = [a for some in await asyncio.gather(*calling) for a in some]
        assert len(answers) >= 4
        assert_finished(answers)


def assert_finished(answers: list[Answer]) -> None:
    assert [(a.status, a.text) for a in answers] == [(200, "finished\n")] * len(answers)
