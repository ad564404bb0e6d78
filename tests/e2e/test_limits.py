"""Is each limit held, with an error of its own?"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from yarl import URL

from shared import clock
from tests.e2e.client import Client
from tests.e2e.test_conformance_copy import CAT

Image = Callable[[str], str]
MIB = 1024 * 1024


async def test_the_largest_request_and_answer_pass(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT))
    body = b"x" * (8 * MIB)
    answer = await client.post(path, data=body)
    assert answer.status == 200
    assert answer.body == body


async def answer_to(client: Client, path: str, header: str, body: bytes) -> bytes:
    """Return the answer to an upload that the server may stop reading at any byte.

    (aiohttp's client would leave a half-sent body behind it.)
    """
    where = URL(client.url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    head = f"POST {path} HTTP/1.1\r\nHost: {where.authority}\r\n{header}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(20):
            return await reader.readuntil(b"}}")
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("size", ["said", "unsaid"])
async def test_a_larger_request_is_413(
    client: Client, app: str, function_image: Image, kind: str, size: str
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT), type=kind)
    if size == "said":
        header, body = f"Content-Length: {8 * MIB + 1}", b"x" * (8 * MIB + 1)
    else:
        header, body = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (MIB, b"x" * MIB) * 9
    answer = await answer_to(client, path, header, body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large","fault":"caller"' in answer


async def test_a_larger_answer_is_the_functions_fault(
    client: Client, app: str, function_image: Image
) -> None:
    script = "exec head -c %d /dev/zero"
    path = await client.deploy(app, "/fits", function_image(script % (8 * MIB)))
    assert len((await client.post(path)).body) == 8 * MIB
    path = await client.deploy(app, "/more", function_image(script % (8 * MIB + 1)))
    answer = await client.post(path)
    assert (answer.status, answer.code) == (500, "too_large")
    assert answer.json()["error"]["fault"] == "function"


async def test_a_large_environment_is_413(client: Client, app: str, function_image: Image) -> None:
    await client.create_app(app, config={"A": "v" * 100_000})
    config = {"B": "v" * 100_000, "C": "v" * 100_000}
    path = await client.deploy(app, "/x", function_image(CAT), config=config)
    answer = await client.post(path)
    assert (answer.status, answer.code) == (413, "too_large")


async def test_what_never_fits_is_refused_at_once(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT), memory=1_000_000)
    started = clock.monotonic_s()
    answer = await client.post(path)
    assert (answer.status, answer.code) == (503, "capacity")
    assert int(answer.headers["Retry-After"]) > 0
    assert clock.monotonic_s() - started < 10


async def test_waiting_for_capacity_ends(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Image,
) -> None:
    """Two calls of 60 MB at once on a runner with 100: one runs, one waits its time out."""
    with new_platform(CAPACITY_WAIT_S="2", RUNNER_MEMORY_MB="100") as platform:
        platform.start()
        client = Client(http, platform.url)
        image = function_image("exec sleep 5")
        path = await client.deploy(app, "/x", image, memory=60)
        answers = await asyncio.gather(client.post(path), client.post(path))
        ran, refused = sorted(answers, key=lambda a: a.status)
        assert ran.status == 200
        assert (refused.status, refused.code) == (503, "capacity")
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.json()["error"]["fault"] == "platform"


async def test_full_queues_refuse(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Image,
) -> None:
    with new_platform(ASYNC_QUEUE_MAX="3") as platform:
        platform.add("api").wait_ready()
        client = Client(http, platform.url)
        path = await client.deploy(app, "/x", function_image(CAT), type="async")
        answers = [await client.post(path) for _ in range(4)]
        assert [a.status for a in answers] == [202, 202, 202, 503]
        assert answers[-1].code == "overloaded"
        assert answers[-1].headers["Retry-After"]
