"""What is refused at the entrance when there is too much? And what when a replica stops?"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from services.api import connections, entrance
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


async def _bodiless(url: str, path: str) -> bytes:
    """Return the answer to a request whose body never comes; b"" if there is none for long."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
    try:
        async with asyncio.timeout(0.5):
            return await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        return b""
    finally:
        writer.close()
