"""What is refused at the entrance when there is too much? And what when a replica stops?"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from services.api import bodies, connections, entrance
from services.api.app import build_app
from services.api.settings import Settings
from shared import keys, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving

KIB = 1024


async def test_bodies_have_room_and_give_it_back(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    """Two of 60 kB wait in room for 150; a third is refused, until they have been answered."""
    room = {"bodies_max_bytes": 150 * KIB, "request_max_bytes": 100 * KIB}
    async with serving(redis_server, database, **room) as api, EchoRunner(redis) as runner:
        path = await api.make()
        runner.working.clear()
        body = b'"' + b"x" * 60 * KIB + b'"'
        waiting = [asyncio.create_task(api.json("POST", path, data=body)) for _ in range(2)]

        async def waits() -> bool:
            return await redis.xlen(keys.CALLS_SYNC) == 2

        await eventually(waits)
        async with api.ask("POST", path, data=body) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "1"
            error = (await response.json())["error"]
            assert error["code"] == "overloaded"
            assert "BODIES_MAX_BYTES" in error["message"]
        small = asyncio.create_task(api.json("POST", path, data=b'"small"'))
        runner.working.set()
        assert [status for status, _ in await asyncio.gather(*waiting, small)] == [200] * 3
        for _ in range(3):
            assert (await api.json("POST", path, data=body))[0] == 200


@contextlib.asynccontextmanager
async def _site(
    redis_server: str, database: str, most: int
) -> AsyncIterator[tuple[str, web.AppRunner]]:
    runner = web.AppRunner(
        build_app(Settings(mq_url=redis_server, db_url=database)), shutdown_timeout=1
    )
    await entrance.set_up(runner)
    try:
        await connections.Site(runner, "127.0.0.1", 0, most).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", runner
    finally:
        await runner.cleanup()


@pytest.mark.usefixtures("redis")
async def test_connections_beyond_so_many_are_told_and_closed(
    redis_server: str, database: str
) -> None:
    async with _site(redis_server, database, 3) as (url, _):
        async with contextlib.AsyncExitStack() as stack:
            sessions = [await stack.enter_async_context(aiohttp.ClientSession()) for _ in range(5)]
            statuses = []
            for session in sessions:
                async with session.get(f"{url}/version") as response:
                    statuses.append(response.status)
                    if response.status == 503:
                        assert response.headers["Retry-After"] == "1"
                        assert (await response.json())["error"]["code"] == "overloaded"
            assert statuses == [200, 200, 200, 503, 503]

        async def room_again() -> bool:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/version") as answer:
                return answer.status == 200

        await eventually(room_again)


@pytest.mark.usefixtures("redis")
async def test_what_is_no_http_is_no_defect(
    redis_server: str,
    database: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connections.rest_server_log()
    async with _site(redis_server, database, 3) as (url, _):
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write("GET /r/demo/日本 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await _head(reader)).startswith("HTTP/1.0 400 ")
        writer.close()
    assert "aiohttp.server" not in {record.name for record in caplog.records}
    assert "request_malformed" in capsys.readouterr().out


@pytest.mark.usefixtures("redis")
async def test_who_stops_closes_connections_behind_their_answers(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    async with (
        _site(redis_server, database, 100) as (url, runner),
        EchoRunner(redis),
        aiohttp.ClientSession() as session,
    ):
        path = await Api(url, session).make()
        for leaving in (False, True):
            if leaving:
                entrance.let_go(runner)
            for _ in range(2):
                async with session.post(url + path, data=b"x") as answer:
                    assert (answer.status, await answer.read()) == (200, b"x")
                    assert (answer.headers.get("Connection") == "close") is leaving
                async with session.get(f"{url}/version") as answer:
                    assert answer.status == 200
                    assert (answer.headers.get("Connection") == "close") is leaving


class SlowRunner(EchoRunner):
    """Answers one call in 20 ms."""

    async def _end(self, stream: str, entry: streams.Entry) -> None:
        await asyncio.sleep(0.02)
        await super()._end(stream, entry)


async def test_a_flood_is_refused_before_its_bodies_are_read(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    """One call in 20 ms is served and five come."""
    async with (
        serving(redis_server, database, line_wait_s=0.1) as behind,
        SlowRunner(redis),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as many,
    ):
        api = Api(behind.url, many)
        path = await api.make()
        assert (await api.json("POST", path, data=b'"x"'))[0] == 200
        statuses: list[int] = []

        async def ask() -> None:
            async with api.ask("POST", path, data=b'"x"') as answer:
                await answer.read()
                statuses.append(answer.status)
                if answer.status == 503:
                    assert int(answer.headers["Retry-After"]) >= 1

        async with asyncio.TaskGroup() as calls:
            bodiless = []
            for number in range(1000):
                calls.create_task(ask())
                if 700 <= number < 712:
                    bodiless.append(calls.create_task(_bodiless(api.url, path)))
                await asyncio.sleep(0.004)
        assert any(call.result().startswith(b"HTTP/1.1 503 ") for call in bodiless)
        assert set(statuses) == {200, 503}
        assert statuses.count(503) > 200
        assert (await api.json("POST", path, data=b'"x"'))[0] == 200


@contextlib.asynccontextmanager
async def _posting(
    url: str, path: str, length: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Begin a request whose body is still to be sent."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode())
    try:
        yield reader, writer
    finally:
        writer.close()


async def _head(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(10):
        return (await reader.readuntil(b"\r\n\r\n")).decode()


@pytest.mark.parametrize("path", ["", "/v1/apps"])
async def test_a_body_that_stays_away_is_not_waited_for_for_ever(
    redis: streams.Redis,
    redis_server: str,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.3)
    async with serving(redis_server, database) as api, EchoRunner(redis):
        route = await api.make()
        async with _posting(api.url, path or route, 10) as (reader, writer):
            writer.write(b"123")
            assert (await _head(reader)).startswith("HTTP/1.1 408 ")
            error = json.loads(await reader.readuntil(b"}}"))["error"]
        if not path:
            assert (error["code"], error["fault"]) == ("slow_body", "caller")
        assert error["message"].startswith("3 bytes of the request body came in time")
        assert (await api.json("POST", route, data=b'"x"'))[0] == 200


async def test_a_body_may_take_long_if_it_is_long(
    redis: streams.Redis, redis_server: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.3)
    body = b'"' + b"x" * 8 * KIB + b'"'
    async with serving(redis_server, database) as api, EchoRunner(redis):
        path = await api.make()
        async with _posting(api.url, path, len(body)) as (reader, writer):
            writer.write(body[: 4 * KIB])
            await asyncio.sleep(0.8)
            writer.write(body[4 * KIB :])
            assert (await _head(reader)).startswith("HTTP/1.1 200 ")


async def _bodiless(url: str, path: str) -> bytes:
    """Return the answer to a request whose body never comes; b"" if there is none for long."""
    async with _posting(url, path, 1000) as (reader, _):
        try:
            async with asyncio.timeout(0.5):
                return await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return b""
