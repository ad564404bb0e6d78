"""Calls over HTTP, on real stores, with a fake of what runs them."""

import asyncio
import gzip
import io
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest
from yarl import URL

from shared import clock, ids, keys, messages, scripts, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving

KIB, MIB = 1024, 1024 * 1024


async def test_a_call_answers_with_the_functions_bytes(api: Api, runner: EchoRunner) -> None:
    path = await api.make(headers={"X-A": ["1", "2"]}, timeout=7)
    async with api.ask("POST", path + "?q=1", data=b"hi\x00\xff") as response:
        assert (response.status, await response.read()) == (200, b"hi\x00\xff")
        call_id = response.headers["X-Call-Id"]
        assert response.headers.getall("X-A") == ["1", "2"]
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert "start;dur=1.0, run;dur=2.0" in response.headers["Server-Timing"]
    assert ids.call_time_ms(call_id)
    [(head, parcel)] = runner.seen
    assert (head.call_id, head.mode, head.app, head.path) == (call_id, "sync", "a", "/f")
    assert head.deadline_ms == head.accepted_ms + 37_000
    assert parcel.call_env["REQUEST_URL"] == f"{api.url}{path}?q=1"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET", "PURGE"])
async def test_a_body_of_any_method_is_the_payload(
    api: Api, runner: EchoRunner, method: str
) -> None:
    path = await api.make()
    async with api.ask(method, path + "?payload=no", data=b"body") as response:
        assert (response.status, await response.read()) == (200, b"body")
    assert runner.seen[0][1].call_env["METHOD"] == method


async def test_a_get_without_body_takes_its_payload_from_the_query(
    api: Api, runner: EchoRunner
) -> None:
    path = await api.make()
    async with api.ask("GET", path + "?payload=a+b%21") as response:
        assert await response.text() == "a b!"
    async with api.ask("HEAD", path) as response:
        assert (response.status, await response.read()) == (200, b"")
    assert runner.seen[1][1].call_env["METHOD"] == "HEAD"


@pytest.mark.parametrize("size", [0, 1, 33 * KIB, MIB, 8 * MIB])
async def test_binary_bodies_stay_as_they_are(api: Api, runner: EchoRunner, size: int) -> None:
    assert runner.modes
    path = await api.make()
    body = os.urandom(size)
    async with api.ask("POST", path, data=io.BytesIO(body)) as response:
        assert await response.read() == body


async def test_a_compressed_body_is_not_unpacked(api: Api, runner: EchoRunner) -> None:
    assert runner.modes
    path = await api.make()
    packed = gzip.compress(b"x" * 1000)
    headers = {"Content-Encoding": "gzip"}
    async with api.ask("POST", path, data=packed, headers=headers) as response:
        assert await response.read() == packed


async def test_fifty_calls_at_once_each_get_their_own_answer(api: Api, runner: EchoRunner) -> None:
    assert runner.modes
    path = await api.make()

    async def one(number: int) -> bytes:
        async with api.ask("POST", path, data=b"call %d" % number) as response:
            read: bytes = await response.read()
            return read

    answers = await asyncio.gather(*(one(n) for n in range(50)))
    assert answers == [b"call %d" % n for n in range(50)]


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (
            messages.Failed("timeout", "Timed out"),
            504,
            {"message": "Timed out", "code": "timeout", "fault": "function"},
        ),
        (
            messages.Failed("exit", "exit code 3", 3),
            500,
            {"message": "exit code 3", "code": "exit", "fault": "function"},
        ),
        (
            messages.Failed("response_too_large", "much"),
            500,
            {"message": "much", "code": "too_large", "fault": "function"},
        ),
        (
            messages.Failed("capacity", "no room"),
            503,
            {"message": "no room", "code": "capacity", "fault": "platform"},
        ),
        (
            messages.Failed("of_a_newer_version", "?"),
            500,
            {"message": "?", "code": "internal", "fault": "platform"},
        ),
    ],
)
async def test_failures(
    api: Api, runner: EchoRunner, outcome: messages.Failed, status: int, error: dict[str, str]
) -> None:
    runner.function = lambda *_: outcome
    path = await api.make(headers={"X-A": ["1"]})
    async with api.ask("POST", path) as response:
        assert response.status == status
        assert await response.json() == {
            "request_id": response.headers["X-Call-Id"],
            "error": error,
        }
        assert response.headers["X-A"] == "1"
        assert "start;dur=1.0, run;dur=2.0" in response.headers["Server-Timing"]
        assert ("Retry-After" in response.headers) is (status == 503)


async def test_unknown_app_and_route(api: Api) -> None:
    await api.make()
    status, body = await api.json("POST", "/r/nobody/f")
    assert (status, body["error"]["message"]) == (404, "App not found")
    for path in ("/r/a/g", "/r/a", "/r/a/"):
        status, body = await api.json("POST", path)
        assert (status, body["error"]["message"]) == (404, "Route not found on that application")


async def test_a_call_of_the_unknown_has_its_id_in_the_header_too(api: Api) -> None:
    async with api.ask("POST", "/r/nobody/f") as response:
        assert (await response.json())["request_id"] == response.headers["X-Call-Id"]


@pytest.mark.parametrize("path", ["/r/a//f", "/r/a/%2Ff", "/r/a/f/", "/r/a/x/../f"])
async def test_paths_are_cleaned(api: Api, runner: EchoRunner, path: str) -> None:
    assert runner.modes
    await api.make()
    async with api.session.get(URL(api.url + path, encoded=True)) as response:
        assert response.status == 200


async def test_a_routes_key_guards_it(api: Api, runner: EchoRunner) -> None:
    path = await api.make(jwt_key="secret")
    async with api.ask("POST", path) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm=""'
        assert await response.json() == {"error": {"message": "no token present in request"}}
        assert response.headers["X-Call-Id"]
    assert runner.seen == []
    token = jwt.encode({"exp": clock.epoch_ms() // 1000 + 60}, "secret" * 6)
    async with api.ask("POST", path, headers={"Authorization": f"Bearer {token}"}) as response:
        assert (await response.json())["error"]["message"] == "signature is invalid"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_its_limit_is_413_and_the_connection_goes_on(
    redis: streams.Redis, redis_server: str, database: str, *, chunked: bool
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * KIB

    async with serving(redis_server, database, request_max_bytes=4 * KIB) as api:
        path = await api.make()
        data: Any = pieces() if chunked else b"x" * 64 * KIB
        async with api.ask("POST", path, data=data) as response:
            assert response.status == 413
            error = (await response.json())["error"]
            assert error["code"] == "too_large"
            assert "4096 bytes" in error["message"]
        assert await redis.xlen(keys.CALLS_SYNC) == 0


async def test_an_environment_over_its_limit_is_413(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    async with serving(redis_server, database, environment_max_bytes=2048) as api:
        path = await api.make(type="async")
        async with api.ask("POST", path, headers={"X-Big": "x" * 2048}) as response:
            assert response.status == 413
            assert "ENVIRONMENT_MAX_BYTES" in (await response.json())["error"]["message"]
        assert await redis.xlen(keys.CALLS_ASYNC) == 0


async def test_a_caller_who_leaves_has_the_call_cancelled(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    with pytest.raises(asyncio.TimeoutError):
        await api.ask("POST", path, timeout=aiohttp.ClientTimeout(total=0.3))

    async def told() -> int:
        return await redis.xlen(keys.EVENTS)

    await eventually(told)
    events: Any = await redis.xrange(keys.EVENTS)
    calls: Any = await redis.xrange(keys.CALLS_SYNC)
    [(_, event)], [(_, call)] = events, calls
    head = messages.decode(call[b"h"], messages.CallHead)
    assert messages.decode(event[b"m"], messages.Event) == messages.CancelCall(head.call_id)


async def test_no_answer_by_the_deadline_is_504(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    async with serving(redis_server, database, capacity_wait_s=0.1) as api:
        path = await api.make(timeout=1)
        begun_s = clock.monotonic_s()
        async with api.ask("POST", path) as response:
            assert response.status == 504
            assert (await response.json())["error"]["code"] == "deadline"
        assert 1.1 < clock.monotonic_s() - begun_s < 3.1
        assert await redis.xlen(keys.EVENTS) == 1


async def test_late_and_repeated_and_unreadable_replies_harm_nobody(
    api: Api, redis: streams.Redis, runner: EchoRunner
) -> None:
    path = await api.make()
    async with api.ask("POST", path, data=b"1") as response:
        assert await response.read() == b"1"
    [(head, _)] = runner.seen
    stream = keys.reply(head.reply_to)
    stranger = messages.Reply(ids.new_call_id(), messages.Answered(b"stranger"))
    repeated = messages.Reply(head.call_id, messages.Answered(b"again"))
    for raw in (messages.encode(stranger), messages.encode(repeated), b"\xc1", b""):
        await redis.xadd(stream, {"m": raw}, nomkstream=True)
    async with api.ask("POST", path, data=b"2") as response:
        assert await response.read() == b"2"

    async def read_and_dropped() -> bool:
        return await redis.xlen(stream) == 0 and await redis.xlen(keys.ASIDE) == 2

    await eventually(read_and_dropped)
    assert 0 < await redis.pttl(stream) <= 60_000


async def test_a_reply_stream_that_was_lost_is_made_anew(
    api: Api, redis: streams.Redis, runner: EchoRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.gateway.STREAM_KEPT_EVERY_S", 0.05)
    path = await api.make()
    async with api.ask("POST", path, data=b"1") as response:
        assert await response.read() == b"1"
    stream = keys.reply(runner.seen[0][0].reply_to)
    await redis.delete(stream)

    async def there() -> int:
        return await redis.exists(stream)

    await eventually(there, 15)
    async with api.ask("POST", path, data=b"2") as response:
        assert await response.read() == b"2"


async def test_a_reply_that_finds_its_stream_lost_arrives_all_the_same(
    api: Api, redis: streams.Redis, runner: EchoRunner
) -> None:
    path = await api.make()
    async with api.ask("POST", path, data=b"1") as response:
        assert await response.read() == b"1"
    stream = keys.reply(runner.seen[0][0].reply_to)
    runner.working.clear()
    asked = asyncio.create_task(_body(api, path, b"2"))

    async def waits() -> bool:
        return bool(await redis.xlen(keys.CALLS_SYNC))

    await eventually(waits)
    await redis.delete(stream)
    runner.working.set()
    async with asyncio.timeout(5):  # far from its deadline
        assert await asked == b"2"


async def test_a_call_that_redis_has_lost_is_told_and_recorded(
    api: Api, redis: streams.Redis
) -> None:
    path = await api.make()
    asked = asyncio.create_task(_failed(api, path))

    async def waiting() -> Any:
        return await redis.xrange(keys.CALLS_SYNC)

    found: Any = await eventually(waiting)
    head = messages.decode(found[0][1][b"h"], messages.CallHead)
    lost = messages.Failed("call_lost", "Redis has lost this call; it may have run")
    part = scripts.reply_part(head.reply_to, messages.Reply(head.call_id, lost))
    await redis.execute_command(*part)
    status, error = await asked
    assert (status, error["code"], error["fault"]) == (502, "call_lost", "platform")

    async def recorded() -> bool:
        async with api.ask("GET", f"/v1/calls/{head.call_id}") as response:
            said = (await response.json()).get("call", {})
            return (said.get("status"), said.get("code")) == ("error", "call_lost")

    await eventually(recorded)


async def _body(api: Api, path: str, data: bytes) -> bytes:
    async with api.ask("POST", path, data=data) as response:
        return await response.read()


async def _failed(api: Api, path: str) -> tuple[int, dict[str, Any]]:
    async with api.ask("POST", path, data=b"x") as response:
        return response.status, (await response.json())["error"]


async def test_redis_that_refuses_writes_is_503(api: Api, redis: streams.Redis) -> None:
    sync, later = await api.make(), await api.make("/async", type="async")
    await redis.config_set("maxmemory", "1")
    try:
        for path in (sync, later):
            async with api.ask("POST", path) as response:
                assert response.status == 503
                assert response.headers["Retry-After"] == "2"
                assert (await response.json())["error"]["code"] == "unavailable"
    finally:
        await redis.config_set("maxmemory", "0")


async def test_full_queues_and_too_many_callers_are_503(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    limits = {"sync_queue_max": 2, "async_queue_max": 1, "max_waiting": 3, "capacity_wait_s": 0}
    async with serving(redis_server, database, **limits) as api:
        sync, later = await api.make(timeout=1), await api.make("/async", type="async")
        async with api.ask("POST", later) as response:
            assert response.status == 202
        async with api.ask("POST", later) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            assert (await response.json())["error"]["code"] == "overloaded"
        assert await redis.xlen(keys.FINISHED) <= 1

        async def one() -> str:
            async with api.ask("POST", sync) as response:
                return str((await response.json())["error"]["code"])

        codes = sorted(await asyncio.gather(*(one() for _ in range(5))))
        assert codes == ["deadline", "deadline", "overloaded", "overloaded", "overloaded"]


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_async_is_202_and_in_redis(api: Api, redis: streams.Redis, method: str) -> None:
    path = await api.make(type="async", timeout=99, memory=256)
    async with api.ask(method, path) as response:
        assert response.status == 202
        call_id = response.headers["X-Call-Id"]
        if method != "HEAD":
            assert await response.json() == {"call_id": call_id}
    found: Any = await redis.xrange(keys.CALLS_ASYNC)
    head = messages.decode(found[0][1][b"h"], messages.CallHead)
    assert (head.call_id, head.timeout_ms, head.memory_mb) == (call_id, 99_000, 256)
    assert (head.deadline_ms, head.wait_until_ms, head.reply_to) == (0, 0, "")


async def test_large_async_payloads_wait_beside_the_queue(
    api: Api, redis: streams.Redis, runner: EchoRunner
) -> None:
    path = await api.make(type="async")
    runner.working.clear()
    body = os.urandom(100 * KIB)
    async with api.ask("POST", path, data=body) as response:
        call_id = (await response.json())["call_id"]
    runner.working.set()
    status, answer = await api.json("GET", f"/v1/calls/{call_id}?wait=10")
    assert (status, answer["call"]["status"]) == (200, "success")
    async with api.ask("GET", f"/v1/calls/{call_id}/result") as response:
        assert await response.read() == body
    assert await redis.exists(keys.parcel(call_id)) == 0


async def test_a_change_through_one_replica_is_in_force_at_the_next_call_through_another(
    api: Api, runner: EchoRunner, redis_server: str, database: str
) -> None:
    path = await api.make(image="old")
    async with serving(redis_server, database) as other:
        for image in ("one", "two", "three"):
            async with other.ask("POST", path) as response:
                assert response.status == 200
            body = json.dumps({"route": {"image": image}})
            status, _ = await api.json("PATCH", "/v1/apps/a/routes/f", data=body)
            assert status == 200
            async with other.ask("POST", path) as response:
                assert response.status == 200
            assert runner.seen[-1][0].image == image
        await api.json("DELETE", "/v1/apps/a/routes/f")
        async with other.ask("POST", path) as response:
            assert response.status == 404


async def test_two_replicas_get_their_own_replies(
    api: Api, runner: EchoRunner, redis_server: str, database: str
) -> None:
    assert runner.modes
    path = await api.make()

    async def one(through: Api, number: int) -> None:
        async with through.ask("POST", path, data=b"%d" % number) as response:
            assert await response.read() == b"%d" % number

    async with serving(redis_server, database) as other:
        await asyncio.gather(*(one((api, other)[n % 2], n) for n in range(40)))


async def test_stats_count_what_waits_and_what_ended(api: Api, runner: EchoRunner) -> None:
    sync, later = await api.make(), await api.make("/async", type="async")
    async with api.ask("POST", sync) as response:
        assert response.status == 200
    runner.working.clear()
    status, before = await api.json("GET", "/stats")
    assert (status, before) == (200, {"Queue": 0, "Running": 0, "Complete": 1})
    async with api.ask("POST", later) as response:
        assert response.status == 202

    assert (await api.json("GET", "/stats"))[1]["Queue"] == 1
    runner.working.set()

    async def ended() -> bool:
        counts = (await api.json("GET", "/stats"))[1]
        return bool(counts == {"Queue": 0, "Running": 0, "Complete": 2})

    await eventually(ended)
