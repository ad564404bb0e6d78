"""What is told of runners?"""

from typing import Any

import pytest

from shared import clock, keys, messages, scripts, streams
from tests.integration.api.conftest import Client, Replica


def a_beat(runner_id: str, **fields: Any) -> messages.Heartbeat:
    given = {
        "engine_id": "engine-1",
        "sent_ms": clock.epoch_ms(),
        "memory_mb": 2048,
        "cpus": 16.0,
        "arch": "x86_64",
    }
    return messages.Heartbeat(runner_id, **{**given, **fields})


async def beat(redis: streams.Redis, *beats: messages.Heartbeat) -> None:
    for one in beats:
        await redis.hset(keys.RUNNERS, one.runner_id, messages.encode(one))


async def told(client: Client, query: str = "") -> dict[str, Any]:
    async with client.get("/v1/runners" + query) as response:
        assert response.status == 200
        answer: dict[str, Any] = await response.json()
        return answer


async def test_a_runner_is_told_of_as_it_said(client: Client, redis: streams.Redis) -> None:
    seen_ms = clock.epoch_ms() - 90_000
    await beat(
        redis,
        a_beat(
            "r1",
            sent_ms=seen_ms,
            able=False,
            draining=True,
            images=("a", "b:1"),
            running=3,
            idle_memory_mb=256,
            sandboxes=(messages.SandboxCount("app", "/f", "key", 1, 2, 3),),
            name="host-1",
        ),
    )
    answer = await told(client)
    assert (answer["message"], answer["unreadable"]) == ("Successfully listed runners", 0)
    [runner] = answer["runners"]
    assert 90_000 <= runner.pop("seen_ago_ms") < 600_000
    assert runner.pop("seen_at").endswith("Z")
    assert runner == {
        "id": "r1",
        "name": "host-1",
        "engine_id": "engine-1",
        "arch": "x86_64",
        "memory_mb": 2048,
        "cpus": 16.0,
        "able": False,
        "draining": True,
        "drain_asked": False,
        "running": 3,
        "idle_memory_mb": 256,
        "images": ["a", "b:1"],
        "sandboxes": [{"app_name": "app", "path": "/f", "idle": 1, "busy": 2, "starting": 3}],
    }


async def test_a_clock_ahead_is_no_negative_age(client: Client, redis: streams.Redis) -> None:
    await beat(redis, a_beat("r1", sent_ms=clock.epoch_ms() + 60_000))
    assert (await told(client))["runners"][0]["seen_ago_ms"] == 0


async def test_what_cannot_be_read_is_left_out_and_counted(
    client: Client, redis: streams.Redis
) -> None:
    await beat(redis, a_beat("r1"))
    await redis.hset(keys.RUNNERS, mapping={"new": b"\xc1", "newer": b""})
    answer = await told(client)
    assert ([r["id"] for r in answer["runners"]], answer["unreadable"]) == (["r1"], 2)


async def test_runners_come_in_pages(client: Client, redis: streams.Redis) -> None:
    assert await told(client) == {
        "message": "Successfully listed runners",
        "runners": [],
        "unreadable": 0,
        "absent": [],
    }
    await beat(redis, *(a_beat(f"r{n}") for n in (3, 1, 2)))
    seen: list[list[str]] = []
    cursor = ""
    while not seen or cursor:
        answer = await told(client, f"?limit=2&cursor={cursor}")
        seen.append([r["id"] for r in answer["runners"]])
        cursor = answer["next_cursor"]
    assert seen == [["r1", "r2"], ["r3"]]
    assert "next_cursor" not in await told(client)
    async with client.get("/v1/runners?limit=x") as response:
        assert response.status == 400


async def test_runners_are_told_of_only_to_whom_may_manage(replica: Replica) -> None:
    client = await replica(jwt_auth_key="k")
    async with client.get("/v1/runners") as response:
        assert response.status == 401


async def asked(client: Client, method: str, runner: str) -> tuple[int, dict[str, Any]]:
    async with client.request(method, f"/v1/runners/{runner}/drain") as response:
        return response.status, await response.json()


async def wishes(redis: streams.Redis, beat: messages.Heartbeat) -> object:
    """Return what a runner learns of when it beats: 1 if it is to drain."""
    return await redis.execute_command(*scripts.tell(beat))


async def test_a_runner_learns_that_it_is_to_drain_and_no_longer(
    client: Client, redis: streams.Redis
) -> None:
    one, other = a_beat("r1", name="host-1"), a_beat("r2", name="host-2")
    await beat(redis, one, other)
    status, answer = await asked(client, "POST", "r1")
    assert (status, answer["message"]) == (200, "Runner r1 is to drain")
    assert [(r["id"], r["drain_asked"]) for r in answer["runners"]] == [("r1", True)]
    assert [await wishes(redis, b) for b in (one, other)] == [1, 0]
    assert [r["drain_asked"] for r in (await told(client))["runners"]] == [True, False]
    assert (await asked(client, "POST", "r1"))[0] == 200
    assert (await asked(client, "DELETE", "r1"))[0] == 200
    assert await wishes(redis, one) == 0


async def test_a_name_means_all_that_bear_it_and_those_to_come(
    client: Client, redis: streams.Redis
) -> None:
    await beat(redis, a_beat("r1", name="host-1"), a_beat("r2", name="host-1"))
    _, answer = await asked(client, "POST", "host-1")
    assert [r["id"] for r in answer["runners"]] == ["r1", "r2"]
    assert await wishes(redis, a_beat("r3", name="host-1")) == 1
    status, answer = await asked(client, "DELETE", "r1")
    assert status == 409
    assert "undrain host-1" in answer["error"]["message"]
    assert (await asked(client, "DELETE", "host-1"))[0] == 200
    assert await wishes(redis, a_beat("r3", name="host-1")) == 0


async def test_the_only_one_of_a_name_may_be_undrained_by_its_id(
    client: Client, redis: streams.Redis
) -> None:
    one = a_beat("r1", name="host-1")
    await beat(redis, one)
    await asked(client, "POST", "host-1")
    await asked(client, "POST", "r1")
    assert (await asked(client, "DELETE", "r1"))[0] == 200
    assert await wishes(redis, one) == 0


async def test_who_is_not_there_any_more_is_told_of_until_undrained(
    client: Client, redis: streams.Redis
) -> None:
    await beat(redis, a_beat("r1", name="host-1"))
    await asked(client, "POST", "host-1")
    await redis.delete(keys.RUNNERS)
    assert (await told(client))["absent"] == ["host-1"]
    assert (await asked(client, "DELETE", "host-1"))[0] == 200
    assert (await told(client))["absent"] == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_unknown_runner_is_told_what_may_be_meant(
    client: Client, redis: streams.Redis, method: str
) -> None:
    await beat(redis, a_beat("r1", name="host-1"), a_beat("r2"))
    status, answer = await asked(client, method, "hots-1")
    assert status == 404
    words = "No runner has the id or name hots-1; did you mean host-1?"
    assert answer["error"]["message"] == words
    _, answer = await asked(client, method, "entirely-else")
    assert answer["error"]["message"].endswith("GET /v1/runners lists them")
    assert await redis.exists(keys.DRAINS) == 0
