"""What happens to calls while a data store is away?"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.conftest import World, redis_container, wait_for_redis
from tests.e2e.load import accept
from tests.e2e.test_async import TELL, all_recorded

Image = Callable[[str], str]


async def test_a_redis_that_dies_keeps_what_was_accepted_and_takes_no_more(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    with redis_container() as (container, url), new_platform(MQ_URL=url) as platform:
        platform.start()
        client = Client(http, platform.url)
        script = f"sleep 0.3; {TELL}"
        image = function_image(script)
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        accepted = await accept(client, path, 20)
        engine = container.get_wrapped_container()
        await asyncio.to_thread(engine.kill)

        async with asyncio.timeout(10):
            refused = await client.post(path, data=b"x")
        assert (refused.status, refused.code) == (503, "unavailable")
        assert refused.headers["Retry-After"]

        await asyncio.to_thread(engine.start)
        await asyncio.to_thread(wait_for_redis, url)
        done = await all_recorded(client, app, "success", len(accepted))
        assert {c["id"] for c in done} >= set(accepted)
        assert {path.lstrip("/") for path in world.hits} >= set(accepted)
        sync = await client.deploy(app, "/sync", function_image("exec cat"))

        async def works_again() -> bool:
            return (await client.post(sync, data=b"x")).body == b"x"

        await eventually(works_again, 20)


async def test_calls_go_on_while_redis_is_away_for_longer_than_a_runner_may_be_unheard(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Image,
) -> None:
    with redis_container() as (container, url), new_platform(MQ_URL=url) as platform:
        platform.start()
        client = Client(http, platform.url)
        path = await client.deploy(app, "/x", function_image("sleep 12; exec cat"))
        caller = asyncio.create_task(client.post(path, data=b"x"))

        async def it_runs() -> bool:
            listed = await client.get("/v1/runners")
            return any(runner["running"] for runner in listed.json()["runners"])

        await eventually(it_runs, 20)
        engine = container.get_wrapped_container()
        await asyncio.to_thread(engine.kill)
        await asyncio.sleep(7)  # the outage itself, longer than RUNNER_LOST_S
        await asyncio.to_thread(engine.start)
        answer = await caller
        assert (answer.status, answer.body) == (200, b"x"), answer.text
        assert (await client.ended(answer.call_id))["attempt"] == 1
