"""What clients can see of calls, while they wait, run, and have ended."""

import asyncio
import os
from typing import Any

import pytest

from shared import ids, keys, messages, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner


async def ended(api: Api, path: str, **more: Any) -> str:
    """Make a call; return its id once its end is recorded."""
    async with api.ask("POST", path, **more) as response:
        call_id = str(response.headers["X-Call-Id"])
    status, answer = await api.json("GET", f"/v1/calls/{call_id}?wait=10")
    assert status == 200, answer
    return call_id


async def test_a_sync_call_is_found_at_once(api: Api, runner: EchoRunner) -> None:
    path = await api.make()
    async with api.ask("POST", path, data=b"x") as response:
        call_id = response.headers["X-Call-Id"]
    status, answer = await api.json("GET", f"/v1/calls/{call_id}")
    assert (status, answer["message"]) == (200, "Successfully loaded call")
    call = answer["call"]
    created_ms = ids.call_time_ms(call_id)
    assert created_ms is not None
    assert abs(created_ms - runner.seen[0][0].accepted_ms) < 1000
    assert call["created_at"].endswith(f".{created_ms % 1000:03d}Z")
    for name in ("created_at", "started_at", "completed_at"):
        del call[name]
    assert call == {
        "id": call_id,
        "app_name": "a",
        "path": "/f",
        "type": "sync",
        "status": "success",
        "code": None,
        "error": None,
        "exit_code": None,
        "attempt": 1,
        "redrive_of": None,
        "image": "img",
        "image_digest": None,
        "runner": None,
        "peak_memory_bytes": None,
        "failures": [],
    }
    async with api.ask("GET", f"/v1/calls/{call_id}/log") as response:
        assert (response.status, await response.read()) == (200, b"noted\n")
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    status, answer = await api.json("GET", f"/v1/calls/{call_id}/result")
    assert status == 404
    assert "sync call" in answer["error"]["message"]


async def test_an_async_call_is_seen_waiting_and_then_its_result(
    api: Api, runner: EchoRunner
) -> None:
    runner.working.clear()
    path = await api.make(type="async")
    body = os.urandom(1000)
    _, accepted = await api.json("POST", path, data=body)
    where = f"/v1/calls/{accepted['call_id']}"
    status, answer = await api.json("GET", where)
    assert (status, answer["call"]["status"]) == (200, "queued")
    for what in ("/log", "/result"):
        status, answer = await api.json("GET", where + what)
        assert status == 409
        assert "?wait=30" in answer["error"]["message"]
    waiting = asyncio.create_task(api.json("GET", where + "?wait=20"))
    runner.working.set()
    status, answer = await waiting
    assert (status, answer["call"]["status"]) == (200, "success")
    async with api.ask("GET", where + "/result") as response:
        assert await response.read() == body
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert "X-Truncated" not in response.headers


async def test_a_failed_async_call_has_no_result(api: Api, runner: EchoRunner) -> None:
    runner.function = lambda *_: messages.Failed("timeout", "Timed out")
    call_id = await ended(api, await api.make(type="async"))
    status, answer = await api.json("GET", f"/v1/calls/{call_id}/result")
    assert (status, answer["error"]["message"]) == (
        404,
        "The call has no result: error, Timed out",
    )


async def test_a_sync_call_that_waits_is_seen_waiting(api: Api, runner: EchoRunner) -> None:
    runner.working.clear()
    path = await api.make()

    async def call() -> int:
        async with api.ask("POST", path) as response:
            return int(response.status)

    calling = asyncio.create_task(call())

    async def listed() -> Any:
        return (await api.json("GET", "/v1/apps/a/calls"))[1]["calls"]

    await eventually(listed)
    [seen] = await listed()
    assert seen["status"] == "queued"
    runner.working.set()
    assert await calling == 200


async def test_an_unknown_call_is_404(api: Api) -> None:
    for call_id in ("x", "01938f6e-0000-7000-8000-000000000000", ids.new_call_id()):
        for what in ("", "/log", "/result"):
            status, answer = await api.json("GET", f"/v1/calls/{call_id}{what}")
            assert (status, answer["error"]["message"]) == (404, "Call not found")


async def test_calls_are_listed_filtered_and_paged(api: Api, runner: EchoRunner) -> None:
    good, bad = await api.make("/good"), await api.make("/bad")
    made = [await ended(api, good) for _ in range(3)]
    runner.function = lambda *_: messages.Failed("exit", "exit code 1", 1)
    made.append(await ended(api, bad))

    async def listed(query: str) -> list[str]:
        status, answer = await api.json("GET", f"/v1/apps/a/calls{query}")
        assert status == 200, answer
        return [call["id"] for call in answer["calls"]]

    assert await listed("") == made[::-1]
    assert await listed("?status=error") == made[3:]
    assert await listed("?path=/good") == await listed("?route=/good") == made[2::-1]
    _, answer = await api.json("GET", f"/v1/calls/{made[1]}")
    moment = answer["call"]["created_at"]
    assert await listed(f"?from={moment}") == made[:0:-1]
    assert await listed(f"?to={moment}") == made[:1]
    found, cursor = [], ""
    for _ in range(2):
        _, page = await api.json("GET", f"/v1/apps/a/calls?limit=2&cursor={cursor}")
        found += [call["id"] for call in page["calls"]]
        cursor = page["next_cursor"]
    assert found == made[::-1]
    assert (await api.json("GET", "/v1/apps/nobody/calls"))[1]["calls"] == []


@pytest.mark.parametrize("query", ["status=odd", "from=x", "to=x", "limit=0", "cursor=~"])
async def test_bad_filters_are_400(api: Api, query: str) -> None:
    status, answer = await api.json("GET", f"/v1/apps/a/calls?{query}")
    assert status == 400
    assert query.partition("=")[0] in answer["error"]["message"]


async def test_nothing_of_a_call_stays_in_redis(
    api: Api, redis: streams.Redis, runner: EchoRunner
) -> None:
    assert runner.modes
    for kind in ("sync", "async"):
        path = await api.make(f"/{kind}", type=kind)
        await ended(api, path, data=b"x" * 100_000)

    async def clean() -> bool:
        lengths = [await redis.xlen(s) for s in (keys.CALLS_SYNC, keys.CALLS_ASYNC, keys.FINISHED)]
        return sum(lengths) == 0 and not await redis.keys(keys.parcel("*"))

    await eventually(clean)
