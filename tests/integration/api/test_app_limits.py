"""What may an app have of calls? Its limits over HTTP, through two replicas."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared import clock, keys, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving


@pytest.fixture
async def other(redis_server: str, database: str) -> AsyncIterator[Api]:
    """A second replica on the same stores."""
    async with serving(redis_server, database) as api:
        yield api


async def limited(api: Api, **limits: Any) -> str:
    """Make an app with a route and limits; return the path that calls it."""
    body = {"app": {"name": "a", **limits}}
    status, answer = await api.json("POST", "/v1/apps", json=body)
    assert status == 200, answer
    assert answer["app"] == {"name": "a", "config": None, **limits}
    return await api.make()


async def change(api: Api, **limits: Any) -> None:
    status, answer = await api.json("PATCH", "/v1/apps/a", json={"app": limits})
    assert status == 200, answer
    assert {name: answer["app"].get(name, 0) for name in limits} == limits


async def test_so_many_at_one_time_through_all_replicas(
    api: Api, other: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    path = await limited(api, max_inflight=2)
    runner.working.clear()
    waiting = [asyncio.create_task(a.json("POST", path, data=b'"x"')) for a in (api, other)]

    async def under_way() -> bool:
        return await redis.zcard(keys.inflight("a")) == 2

    await eventually(under_way)
    for replica in (api, other):
        async with replica.ask("POST", path) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (429, "inflight_limit")
            assert int(response.headers["Retry-After"]) >= 1
    runner.working.set()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
    assert (await other.json("POST", path, data=b'"y"'))[0] == 200


async def test_async_calls_count_until_they_have_ended(
    api: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    await limited(api, max_inflight=1)
    path = await api.make("/later", type="async")
    runner.working.clear()
    assert (await api.json("POST", path))[0] == 202
    assert (await api.json("POST", path))[0] == 429
    runner.working.set()

    async def ended() -> bool:
        return not await redis.zcard(keys.inflight("a"))

    await eventually(ended)
    assert (await api.json("POST", path))[0] == 202


async def test_a_rate_and_when_to_come_again(api: Api, other: Api, runner: EchoRunner) -> None:
    assert runner.modes
    path = await limited(api, rate=0.5, burst=2)
    assert [(await a.json("POST", path, data=b"1"))[0] for a in (api, other)] == [200, 200]
    async with other.ask("POST", path) as response:
        assert response.status == 429
        assert (await response.json())["error"]["code"] == "rate_limit"
        after_s = int(response.headers["Retry-After"])
    assert after_s in {1, 2}
    await asyncio.sleep(after_s)
    assert (await api.json("POST", path, data=b"1"))[0] == 200


async def test_a_change_is_in_force_at_the_next_call_through_any_replica(
    api: Api, other: Api, runner: EchoRunner
) -> None:
    assert runner.modes
    path = await limited(api)
    for turn in range(6):
        changing, calling = (api, other) if turn % 2 else (other, api)
        assert (await calling.json("POST", path, data=b"1"))[0] == 200
        await change(changing, rate=0.001, burst=1)
        statuses = [(await a.json("POST", path, data=b"1"))[0] for a in (calling, changing)]
        assert statuses[1] == 429
        assert statuses[0] == (200 if turn == 0 else 429)
        await change(changing, rate=0, burst=0)


async def test_apps_without_limits_leave_nothing_in_redis(
    api: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    assert runner.modes
    path = await limited(api)
    began_ms = clock.epoch_ms()
    assert (await api.json("POST", path, data=b"1"))[0] == 200
    assert runner.seen[-1][0].counted is False
    assert runner.seen[-1][0].accepted_ms >= began_ms
    assert not await redis.exists(keys.inflight("a"), keys.pace("a"))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_inflight": -1}, "Invalid app max_inflight: 0 (no limit) or from 1 to 1000000 calls"),
        ({"rate": 0.0001}, "Invalid app rate: 0 (no limit) or from 0.001 to 1000000"),
        ({"rate": 1, "burst": -3}, "Invalid app burst"),
        ({"burst": 3}, "it belongs to a rate; set rate, too, or burst to 0"),
        ({"max_inflight": "9"}, "app.max_inflight must be a whole number, without quotes"),
        ({"rate": True}, "app.rate must be a number, without quotes"),
    ],
)
async def test_wrong_limits_are_refused(api: Api, limits: dict[str, Any], words: str) -> None:
    status, answer = await api.json("POST", "/v1/apps", json={"app": {"name": "a", **limits}})
    assert status == 400
    assert words in answer["error"]["message"]
