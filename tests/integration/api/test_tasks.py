"""Outside workers take async calls, one each, and none is lost."""

import asyncio
import base64
import json
from typing import Any

import pytest

from services.api.reservations import Reservations
from shared import clock, keys, messages, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving


@pytest.fixture
async def path(api: Api) -> str:
    """Where to call an async route."""
    return await api.make("/later", type="async", timeout=7, config={"K": "v"})


async def accept(api: Api, path: str, body: bytes = b"") -> str:
    status, answer = await api.json("POST", path, data=body)
    assert status == 202
    return str(answer["call_id"])


async def test_nothing_waits_is_null(api: Api) -> None:
    for where in ("/tasks", "/v1/tasks"):
        assert await api.json("GET", where) == (202, None)


async def test_the_oldest_is_reserved_run_and_acknowledged(api: Api, path: str) -> None:
    first, second = await accept(api, path, b"one"), await accept(api, path, b"two")
    status, task = await api.json("GET", "/tasks")
    assert status == 202
    assert task["env_vars"]["K"] == "v"
    assert task["env_vars"]["CALL_ID"] == first
    del task["env_vars"], task["created_at"]
    assert task == {
        "id": first,
        "status": "running",
        "image": "img",
        "app_name": "a",
        "path": "/later",
        "priority": 0,
        "timeout": 7,
        "idle_timeout": 30,
        "payload": "one",
        "payload_encoding": "utf-8",
    }
    status, running = await api.json("GET", f"/v1/calls/{first}")
    assert running["call"]["status"] in {"queued", "running"}
    status, done = await api.json("DELETE", "/tasks", json=task)
    assert (status, done["id"], done["status"]) == (202, first, "success")
    _, ended = await api.json("GET", f"/v1/calls/{first}?wait=10")
    assert (ended["call"]["status"], ended["call"]["code"]) == ("success", None)
    assert ended["call"]["started_at"]
    assert (await api.json("GET", "/tasks"))[1]["id"] == second
    assert (await api.json("DELETE", "/tasks", json=task))[0] == 404
    assert (await api.json("GET", "/stats"))[1]["Complete"] == 1


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"status": "error", "error": "broke"}, ("error", "exit", "broke")),
        ({"error": "slow", "reason": "timeout"}, ("error", "timeout", "slow")),
        ({"status": "cancelled"}, ("cancelled", "cancelled", None)),
        ({"status": "running", "priority": None}, ("success", None, None)),
    ],
)
async def test_a_worker_says_how_it_ended(
    api: Api, path: str, report: dict[str, Any], expected: tuple[str, str | None, str | None]
) -> None:
    call_id = await accept(api, path)
    await api.json("GET", "/tasks")
    assert (await api.json("DELETE", "/tasks", json={"id": call_id, **report}))[0] == 202
    call = (await api.json("GET", f"/v1/calls/{call_id}?wait=10"))[1]["call"]
    assert (call["status"], call["code"], call["error"]) == expected


async def test_bytes_and_large_payloads_come_whole(api: Api, path: str) -> None:
    for body in (b"\xff\x00", bytes(range(256)) * 1000):
        call_id = await accept(api, path, body)
        _, task = await api.json("GET", "/tasks")
        assert task["payload_encoding"] == "base64"
        assert base64.b64decode(task["payload"]) == body
        # The whole task comes back, payload and all, from workers that keep no fields apart.
        status, _ = await api.json("DELETE", "/tasks", data=json.dumps(task))
        assert (status, task["id"]) == (202, call_id)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "null",
        "[]",
        '{"id": 7}',
        '{"id": "x", "error": 1}',
        '{"id": "x", "status": "sucess"}',
    ],
)
async def test_a_report_that_lacks_fields_is_400(api: Api, body: str) -> None:
    status, answer = await api.json("DELETE", "/tasks", data=body)
    assert status == 400
    assert answer["error"]["message"]


async def test_a_reserved_task_counts_as_running_until_it_is_acknowledged(
    api: Api, path: str
) -> None:
    call_id = await accept(api, path)
    await api.json("GET", "/tasks")
    assert (await api.json("GET", "/stats"))[1] == {"Queue": 0, "Running": 1, "Complete": 0}
    assert (await api.json("DELETE", "/tasks", json={"ID": call_id}))[0] == 202
    assert (await api.json("GET", "/stats"))[1] == {"Queue": 0, "Running": 0, "Complete": 1}


async def test_an_unknown_task_is_404(api: Api) -> None:
    assert (await api.json("DELETE", "/tasks", json={"id": "x"}))[0] == 404


async def test_a_reservation_not_acknowledged_returns(
    api: Api, path: str, redis: streams.Redis, runner: EchoRunner
) -> None:
    runner.working.clear()
    for body in (b"small", b"x" * 100_000):
        call_id = await accept(api, path, body)
        assert (await api.json("GET", "/tasks"))[1]["id"] == call_id
        assert await redis.xlen(keys.CALLS_ASYNC) == 0
        await redis.zadd(keys.TASKS_DUE, {call_id: clock.epoch_ms() - 1})
        runner.working.set()
        _, answer = await api.json("GET", f"/v1/calls/{call_id}?wait=10")
        assert answer["call"]["status"] == "success"
        assert runner.seen[-1][1].payload == body
        assert (await api.json("DELETE", "/tasks", json={"id": call_id}))[0] == 404
        runner.working.clear()


async def test_many_workers_never_share_a_task(
    api: Api, path: str, redis_server: str, database: str
) -> None:
    accepted = await asyncio.gather(*(accept(api, path) for _ in range(60)))
    async with serving(redis_server, database) as other:
        taken = await asyncio.gather(
            *((api, other)[n % 2].json("GET", "/tasks") for n in range(61))
        )
    ids = [task["id"] for _, task in taken if task]
    assert sorted(ids) == sorted(accepted)


async def test_an_unreadable_entry_is_passed_over(
    api: Api, path: str, redis: streams.Redis
) -> None:
    for raw in (b"\xc1", b"", b"\x90", b"\x91\x01"):
        await redis.xadd(keys.CALLS_ASYNC, {"h": raw, "p": b""})
    await redis.xadd(keys.CALLS_ASYNC, {"other": b""})
    call_id = await accept(api, path)
    assert (await api.json("GET", "/tasks"))[1]["id"] == call_id
    assert await redis.xlen(keys.CALLS_ASYNC) == 5


async def test_a_call_whose_input_is_lost_ends_as_an_error(
    api: Api, path: str, redis: streams.Redis
) -> None:
    call_id = await accept(api, path, b"x" * 100_000)
    await redis.delete(keys.parcel(call_id))
    assert (await api.json("GET", "/tasks"))[1] is None
    call = (await api.json("GET", f"/v1/calls/{call_id}?wait=10"))[1]["call"]
    assert (call["status"], call["code"]) == ("error", "internal")


async def test_the_token_guards_tasks_and_stats(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    assert await redis.ping()
    async with serving(redis_server, database, jwt_auth_key="key") as api:
        for method, where in (("GET", "/tasks"), ("DELETE", "/tasks"), ("GET", "/stats")):
            status, answer = await api.json(method, where)
            assert (status, answer) == (401, {"error": "Invalid API Authorization token."})


async def test_returning_twice_at_once_returns_once(redis: streams.Redis) -> None:
    """Each replica does it each second."""
    head = messages.CallHead("c", "async", "a", "/p", "i", 1, 1.0, 0, 0, 0, "", 1)
    await redis.hset(keys.TASKS_RESERVED, "c", messages.encode(head))
    await redis.zadd(keys.TASKS_DUE, {"c": 5})
    async with streams.Outbox(redis) as one, streams.Outbox(redis) as two:
        parts = [Reservations(redis, outbox) for outbox in (one, two)]
        assert sum(await asyncio.gather(*(p.return_due(4) for p in parts))) == 0
        assert sum(await asyncio.gather(*(p.return_due(5) for p in parts))) == 1
    assert await redis.xlen(keys.CALLS_ASYNC) == 1

    async def nothing_reserved() -> bool:
        return not await redis.exists(keys.TASKS_RESERVED, keys.TASKS_DUE)

    await eventually(nothing_reserved)
