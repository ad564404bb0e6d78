"""What is told of runners?"""

from typing import Any

from shared import clock, keys, messages, streams
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
        ),
    )
    answer = await told(client)
    assert (answer["message"], answer["unreadable"]) == ("Successfully listed runners", 0)
    [runner] = answer["runners"]
    assert 90_000 <= runner.pop("seen_ago_ms") < 600_000
    assert runner.pop("seen_at").endswith("Z")
    assert runner == {
        "id": "r1",
        "engine_id": "engine-1",
        "arch": "x86_64",
        "memory_mb": 2048,
        "cpus": 16.0,
        "able": False,
        "draining": True,
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
