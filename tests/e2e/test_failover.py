"""Does a platform whose Redis fails over go on, and keep what it had accepted?"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import redis as redis_sync

from shared import clock
from tests.e2e.callers import SLACK_S, calling
from tests.e2e.client import Client
from tests.e2e.conftest import World
from tests.e2e.load import accept
from tests.e2e.test_async import TELL, all_recorded
from tests.sentinels import DOWN_AFTER_MS, flock

#: Until calls are answered again after the master's death: it is noticed, another is elected, and
#: all services have found it.
ANSWERED_AGAIN_S = DOWN_AFTER_MS / 1000 + 14
CAPACITY_WAIT_S, TIMEOUT_S = 3, 3


async def test_the_death_of_the_master_is_survived(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Callable[[str], str],
) -> None:
    with (
        flock() as redises,
        new_platform(MQ_URL=redises.url, CAPACITY_WAIT_S=str(CAPACITY_WAIT_S)) as platform,
    ):
        platform.start()
        client = Client(http, platform.url)
        sync = await client.deploy(app, "/sync", function_image("exec cat"), timeout=TIMEOUT_S)
        image = function_image(f"sleep 0.3; {TELL}")
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        async with calling(client, sync) as callers:
            await callers.answered(10)
            accepted = await accept(client, path, 40)
            with redis_sync.Redis(redises.master()) as master:
                master.set("mark", 1)
                assert master.wait(2, 2000) == 2, "the replicas lag"
            dead = redises.master()
            killed_s = clock.monotonic_s()
            await asyncio.to_thread(redises.kill, dead)
            await callers.answered(ANSWERED_AGAIN_S)
            again_s = clock.monotonic_s() - killed_s
            later = await client.post(path, data=b"later")
            assert later.status == 202, later.text
        print(f"\nanswered again after {again_s:.1f} s; {callers.statuses()}")  # noqa: T201
        assert again_s < ANSWERED_AGAIN_S
        assert set(callers.statuses()) <= {200, 503, 504}
        assert callers.slowest_s() < CAPACITY_WAIT_S + TIMEOUT_S + SLACK_S
        assert redises.master() != dead

        done = await all_recorded(client, app, "success", len(accepted) + 1, path="/x")
        assert {c["id"] for c in done} >= {*accepted, later.json()["call_id"]}
        assert {path.lstrip("/") for path in world.hits} >= set(accepted)
