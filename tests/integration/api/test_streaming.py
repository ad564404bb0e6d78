"""Answers that stream: as they are produced, at the caller's pace, never cut short unnoticed."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from shared import keys, messages, streaming, streams, tasks
from tests.conftest import eventually
from tests.integration.api.invoking import Api, Streaming, serving

KIB, MIB = 1024, 1024 * 1024


@asynccontextmanager
async def called(
    api: Api, redis: streams.Redis, path: str, method: str = "POST"
) -> AsyncIterator[tuple["asyncio.Task[aiohttp.ClientResponse]", Streaming]]:
    """Call a function; give the request under way, and the call for the test to answer."""
    request = asyncio.ensure_future(api.ask(method, path))
    try:
        yield request, await Streaming.next(redis)
    finally:
        await tasks.end(request)
        if not request.cancelled() and request.exception() is None:
            request.result().close()


@asynccontextmanager
async def raw(
    api: Api, request_line: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request without a body over a connection of its own, and give that."""
    _, _, address = api.url.partition("//")
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(f"{request_line}\r\nHost: {address}\r\n\r\n".encode())
    yield reader, writer
    writer.close()


async def cancelled(call: Streaming) -> None:
    await eventually(call.was_cancelled)


async def test_parts_reach_the_caller_as_they_are_produced(api: Api, redis: streams.Redis) -> None:
    path = await api.make(headers={"X-A": ["route"]})
    async with called(api, redis, path) as (request, call):
        await call.begin(
            201, ("x-a", "function"), ("X-B", "1"), ("Connection", "close"), ("Content-Length", "2")
        )
        response = await request
        assert response.status == 201
        assert response.headers.getall("X-A") == ["route"]
        assert response.headers["X-B"] == "1"
        assert response.headers["X-Call-Id"] == call.head.call_id
        assert response.headers["Server-Timing"].startswith("head;dur=")
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert "Content-Length" not in response.headers
        for part in (b"1", b"22", b"333" * KIB):
            await call.send(part)
            assert await response.content.readexactly(len(part)) == part
        await call.send(b"the", b" ", b"rest")
        await call.end()
        assert await response.read() == b"the rest"
    assert not await call.was_cancelled()


async def test_a_connection_goes_on_after_a_whole_answer(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    for _ in range(2):
        async with called(api, redis, path) as (request, call):
            await call.begin()
            await call.send(b"x")
            await call.end()
            response = await request
            assert await response.read() == b"x"
            assert "Connection" not in response.headers
    assert api.session.connector is not None
    assert len(api.session.connector._conns) == 1


async def test_the_runner_hears_what_was_taken(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin()
        response = await request
        await call.send(bytes(streaming.MORE_EVERY_BYTES - 1))
        await response.content.readexactly(streaming.MORE_EVERY_BYTES - 1)
        assert await call.taken_bytes() == 0
        await call.send(b"x")

        async def told() -> bool:
            return await call.taken_bytes() == streaming.MORE_EVERY_BYTES

        await eventually(told)


async def send_at_the_callers_pace(call: Streaming, body: bytes) -> None:
    """Send as a runner does: never more than the window ahead of what was taken."""
    while call.sent_bytes < len(body):
        if call.sent_bytes - await call.taken_bytes() >= streaming.WINDOW_BYTES:
            await asyncio.sleep(0.01)
            continue
        await call.send(body[call.sent_bytes : call.sent_bytes + 64 * KIB])
    await call.end()


async def test_a_slow_caller_slows_the_function(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    body = os.urandom(24 * MIB)
    async with called(api, redis, path) as (request, call):
        await call.begin()
        response = await request
        sending = asyncio.create_task(send_at_the_callers_pace(call, body))
        seen: list[int] = []

        async def stands_still() -> bool:
            seen.append(call.sent_bytes)
            return len(seen) > 40 and seen[-40] == seen[-1] > streaming.WINDOW_BYTES

        await eventually(stands_still, 30)
        assert call.sent_bytes < len(body)
        assert await response.read() == body
        await sending
    assert not await call.was_cancelled()


async def test_a_failure_midway_breaks_the_answer(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin()
        await call.send(b"beginning")
        await call.end(messages.Failed("exit", "exit code 3", 3))
        response = await request
        assert await response.content.readexactly(9) == b"beginning"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    async with api.ask("GET", "/metrics") as counts:
        text = await counts.text()
    assert 'millrace_calls_total{code="exit",mode="sync"}' in text


async def test_an_old_client_is_not_told_that_a_broken_answer_is_whole(
    api: Api, redis: streams.Redis
) -> None:
    path = await api.make()
    async with raw(api, f"GET {path} HTTP/1.0") as (reader, _):
        call = await Streaming.next(redis)
        await call.begin()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.0 200 OK\r\n")
        await call.send(b"beginning")
        assert await reader.readexactly(9) == b"beginning"
        await call.end(messages.Failed("exit", "exit code 3", 3))
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_an_old_client_has_a_whole_answer_ended_by_its_connection(
    api: Api, redis: streams.Redis
) -> None:
    path = await api.make()
    async with raw(api, f"GET {path} HTTP/1.0") as (reader, _):
        call = await Streaming.next(redis)
        await call.begin()
        await call.send(b"all")
        await call.end()
        assert (await reader.read()).endswith(b"\r\n\r\nall")


async def test_a_deadline_midway_breaks_the_answer_and_stops_the_function(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    async with serving(redis_server, database, capacity_wait_s=0) as api:
        path = await api.make(timeout=1)
        async with called(api, redis, path) as (request, call):
            await call.begin()
            await call.send(b"beginning")
            response = await request
            assert await response.content.readexactly(9) == b"beginning"
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
            await cancelled(call)


async def test_a_caller_who_leaves_midway_stops_the_function(
    api: Api, redis: streams.Redis
) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin()
        await call.send(b"beginning")
        response = await request
        assert await response.content.readexactly(9) == b"beginning"
        assert not await call.was_cancelled()
        response.close()
        await cancelled(call)


async def test_the_head_of_a_streamed_answer_has_no_body(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    async with raw(api, f"HEAD {path} HTTP/1.1") as (reader, writer):
        call = await Streaming.next(redis)
        await call.begin(200, ("X-B", "1"))
        assert b"\r\nX-B: 1\r\n" in await reader.readuntil(b"\r\n\r\n")
        await send_at_the_callers_pace(call, bytes(3 * MIB))
        writer.write(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode())
        call = await Streaming.next(redis)
        await call.begin()
        await call.end()
        # Nothing of the first answer's body lies in between.
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_status_without_a_body_has_none(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin(204)
        await call.send(b"nobody sees this")
        await call.end()
        response = await request
        assert (response.status, await response.read()) == (204, b"")


async def test_a_runner_that_does_not_wait_breaks_the_answer(
    api: Api, redis: streams.Redis
) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin()
        response = await request
        pipeline = redis.pipeline(transaction=True)
        chunk = messages.encode(messages.StreamChunk(call.head.call_id, bytes(MIB)))
        for _ in range(8):
            pipeline.xadd(keys.reply(call.head.reply_to), {"m": chunk}, nomkstream=True)
        await pipeline.execute()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        await cancelled(call)


async def test_a_lost_reply_stream_breaks_what_streams_through_it(
    api: Api, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.gateway.STREAM_KEPT_EVERY_S", 0.05)
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin()
        response = await request
        await redis.delete(keys.reply(call.head.reply_to))
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(20):
                await response.read()
        await cancelled(call)


async def test_a_lost_connection_to_redis_breaks_what_streams_through_it(
    api: Api, redis: streams.Redis
) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin()
        response = await request
        await redis.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(20):
                await response.read()
        await cancelled(call)


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (99, (), "the status 99"),
        (200, (("X", "a\r\nY: b"),), "a header that HTTP cannot carry: 'X'"),
    ],
)
async def test_a_head_that_http_cannot_carry_is_the_functions_failure(
    api: Api,
    redis: streams.Redis,
    status: int,
    headers: tuple[tuple[str, str], ...],
    words: str,
) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.begin(status, *headers)
        response = await request
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["fault"]) == (500, "bad_answer", "function")
        assert words in error["message"]
        await cancelled(call)


async def test_a_whole_answer_that_http_cannot_carry_is_the_functions_failure(
    api: Api, redis: streams.Redis
) -> None:
    path = await api.make()
    async with called(api, redis, path) as (request, call):
        await call.end(messages.Answered(b"x", 700))
        assert (await (await request).json())["error"]["code"] == "bad_answer"


async def test_streams_of_several_calls_stay_apart(api: Api, redis: streams.Redis) -> None:
    path = await api.make()
    bodies: list[bytes] = []
    expected: list[bytes] = []
    async with asyncio.TaskGroup() as group:

        async def ask() -> None:
            async with api.ask("POST", path) as response:
                bodies.append(await response.read())

        async def answer(call: Streaming) -> None:
            part = call.head.call_id.encode()
            await call.begin()
            for _ in range(50):
                await call.send(part)
            await call.end()
            expected.append(part * 50)

        for _ in range(8):
            group.create_task(ask())

        async def all_wait() -> bool:
            return await redis.xlen(keys.CALLS_SYNC) == 8

        await eventually(all_wait)
        waiting: Any = await redis.xrange(keys.CALLS_SYNC)
        for entry_id, fields in waiting:
            head = messages.decode(fields[b"h"], messages.CallHead)
            group.create_task(answer(Streaming(redis, entry_id, head)))
    assert sorted(bodies) == sorted(expected)
