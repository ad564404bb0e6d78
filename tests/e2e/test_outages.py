"""What happens to calls while a data store is away, or full?"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis as redis_sync

from shared import clock
from tests.chaos import stores
from tests.conftest import eventually
from tests.e2e.callers import SLACK_S, Callers, calling
from tests.e2e.client import Client
from tests.e2e.conftest import World, redis_container, wait_for_redis
from tests.e2e.load import accept
from tests.e2e.platforms import Platform, Service
from tests.e2e.test_async import TELL, all_recorded

Image = Callable[[str], str]

#: How long a store is away, in seconds; `ABSENCE_S=60` makes it a minute.
ABSENCE_S = float(os.environ.get("ABSENCE_S", "12"))
#: After its return, calls are answered again within so many seconds.
BACK_S = 15.0
#: Of sync calls: the longest wait for a runner, and the longest run.
CAPACITY_WAIT_S, TIMEOUT_S = 3, 3
DEADLINE_S = CAPACITY_WAIT_S + TIMEOUT_S + SLACK_S
#: What a service may use of a CPU, and log, while there is nothing it can do.
CPU_MOST, LINES_PER_S_MOST = 0.25, 12


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


@contextmanager
def calm(platform: Platform) -> Iterator[None]:
    """Fail if a service works or writes much inside."""
    begun_s = clock.monotonic_s()
    before = {id(s): (cpu_s(s), s.log.stat().st_size) for s in platform.living()}
    yield
    took_s = clock.monotonic_s() - begun_s
    for service in platform.living():
        cpu_before_s, start = before[id(service)]
        cpu = (cpu_s(service) - cpu_before_s) / took_s
        lines = service.log.read_bytes()[start:].count(b"\n") / took_s
        print(f"{service.role}: {cpu:.0%} of a CPU, {lines:.1f} lines/s")  # noqa: T201
        assert cpu < CPU_MOST, f"{service.role} was busy: {cpu:.0%} of a CPU"
        assert lines < LINES_PER_S_MOST, service.log_tail(start)


def cpu_s(service: Service) -> float:
    """Return the CPU seconds that a service has used."""
    assert service.process is not None
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_all_answered(callers: Callers, statuses: set[int]) -> None:
    """Check that each caller had an answer in time, of a kind that says what to do."""
    print(callers.statuses(), f"slowest {callers.slowest_s():.1f} s")  # noqa: T201
    assert callers.slowest_s() < DEADLINE_S
    assert set(callers.statuses()) <= statuses
    for call in callers.went:
        if call.answer.status == 503:
            assert call.answer.headers["Retry-After"]
            assert call.answer.fault == "platform"


@pytest.mark.parametrize("how", ["kill", "restart", "pause"])
async def test_an_absence_of_redis_is_waited_out(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
    *,
    how: str,
) -> None:
    wait = str(CAPACITY_WAIT_S)
    with (
        stores.redis() as store,
        new_platform(MQ_URL=store.url, CAPACITY_WAIT_S=wait) as platform,
    ):
        platform.start()
        client = Client(http, platform.url)
        sync = await client.deploy(app, "/sync", function_image("exec cat"), timeout=TIMEOUT_S)
        image = function_image(f"sleep 0.3; {TELL}")
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        redis = store.container.get_wrapped_container()
        async with calling(client, sync, 8) as callers:
            await callers.answered(10)
            accepted = await accept(client, path, 40)
            if how == "restart":
                await asyncio.to_thread(redis.restart, timeout=10)
            else:
                await asyncio.to_thread(getattr(redis, how))
                with calm(platform):
                    await asyncio.sleep(ABSENCE_S)
                refused = await client.post(path, data=b"x")
                assert (refused.status, refused.code) == (503, "unavailable")
                await asyncio.to_thread(redis.start if how == "kill" else redis.unpause)
            await asyncio.to_thread(wait_for_redis, store.url)
            print(f"\nanswered again after {await callers.answered(BACK_S):.1f} s")  # noqa: T201
        assert_all_answered(callers, {200, 503, 504})
        await all_kept(client, app, world, accepted)


async def all_kept(client: Client, app: str, world: World, accepted: list[str]) -> None:
    """Check that each accepted async call has run, and has one record.

    One that was refused because Redis was silent may have run, too: nobody could know.
    """
    missing: set[str] = set(accepted)

    async def none_is_missing() -> bool:
        found = await client.calls(app, status="success", limit="1000", path="/x")
        ids = Counter(c["id"] for c in found)
        assert set(ids.values()) <= {1}
        missing.difference_update(ids)
        return not missing

    await eventually(none_is_missing, 120)
    assert {path.lstrip("/") for path in world.hits} >= set(accepted)


async def test_a_redis_without_memory_refuses_and_says_so_and_is_emptied(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    with stores.redis() as store, new_platform(MQ_URL=store.url) as platform:
        platform.start()
        client = Client(http, platform.url)
        sync = await client.deploy(app, "/sync", function_image("exec cat"))
        image = function_image(f"sleep 0.3; {TELL}")
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        assert (await client.post(sync, data=b"x")).body == b"x"
        accepted = await accept(client, path, 30)
        with redis_sync.Redis.from_url(store.url) as redis:
            redis.config_set("maxmemory", 1)
            scheduler = platform.first("scheduler")
            scheduler.kill()
            for refused in (await client.post(sync), await client.post(path)):
                assert (refused.status, refused.code) == (503, "unavailable")
                assert "maxmemory" in refused.message
                assert refused.headers["Retry-After"]
            scheduler.start()
            await all_kept(client, app, world, accepted)
            redis.config_set("maxmemory", 0)
        assert (await client.post(sync, data=b"y")).body == b"y"
        assert (await client.post(path, data=b"y")).status == 202


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_an_absence_of_mysql_leaves_known_routes_and_all_records(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
    *,
    how: str,
) -> None:
    wait = str(CAPACITY_WAIT_S)
    with (
        stores.mysql() as store,
        new_platform(DB_URL=store.url, CAPACITY_WAIT_S=wait) as platform,
    ):
        platform.start()
        client = Client(http, platform.url)
        sync = await client.deploy(app, "/sync", function_image("exec cat"), timeout=TIMEOUT_S)
        image = function_image(TELL)
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        known = await accept(client, path, 1)
        mysql = store.container.get_wrapped_container()
        async with calling(client, sync) as callers:
            await callers.answered(10)
            await asyncio.to_thread(getattr(mysql, how))
            until_s = clock.monotonic_s() + ABSENCE_S
            known += await accept(client, path, 20)
            slowest_s = 0.0
            while clock.monotonic_s() < until_s:
                asked_s = clock.monotonic_s()
                refused = await client.get(f"/v1/apps/{app}")
                slowest_s = max(slowest_s, clock.monotonic_s() - asked_s)
                assert refused.status == 503, refused.text
                assert refused.headers["Retry-After"]
                assert "MySQL" in refused.message
                await asyncio.sleep(0.5)
            print(f"\nmanagement answered within {slowest_s:.1f} s")  # noqa: T201
            assert slowest_s < 10
            await asyncio.to_thread(mysql.start if how == "kill" else mysql.unpause)

            async def managed() -> bool:
                return (await client.get(f"/v1/apps/{app}")).status == 200

            back_s = clock.monotonic_s()
            await eventually(managed, 60)
            print(f"managed again after {clock.monotonic_s() - back_s:.1f} s")  # noqa: T201
        assert_all_answered(callers, {200})
        answered = {call.answer.call_id for call in callers.went}
        done = await all_recorded(client, app, "success", len(answered) + len(known))
        assert Counter(c["id"] for c in done) == Counter([*answered, *known])
        assert {path.lstrip("/") for path in world.hits} == set(known)


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
