"""Does the word count answer while the text still comes, through the platform?"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.e2e.client import Client
from tests.e2e.outside import served
from tests.e2e.platforms import Platform
from tests.e2e.workshop import Workshop

ROUTE = {"format": "http", "timeout": 60, "max_concurrency": 2}


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> str:
    """The example's image."""
    return workshop.build("wordcount")


@dataclass
class SlowText:
    """A text that goes on only when it is told to."""

    address: str = ""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    #: Break off instead.
    breaks: bool = False

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Send one half, wait, send the other."""
        response = web.StreamResponse(headers={"Content-Length": "16"})
        await response.prepare(request)
        await response.write(b"one two ")
        await self.go_on.wait()
        if self.breaks:
            assert request.transport
            request.transport.close()
        else:
            await response.write(b"two six ")
        return response


@pytest.fixture
async def text(_engine: None) -> AsyncIterator[SlowText]:
    """A text on this machine, at an address that functions can reach."""
    made = SlowText()
    async with served(made.serve) as address:
        made.address = f"http://{address}/text"
        yield made
        made.go_on.set()


async def line(response: aiohttp.ClientResponse) -> Any:
    """Return the next line of an answer that still comes."""
    return json.loads(await response.content.readline())


def lines(body: bytes) -> list[Any]:
    """Return all lines of an answer."""
    return [json.loads(text) for text in body.splitlines()]


async def test_counts_come_while_the_text_comes(
    client: Client, app: str, image: str, text: SlowText
) -> None:
    path = await client.deploy(app, "/wordcount", image, **ROUTE)
    async with client.session.post(f"{client.url}{path}?from={text.address}") as response:
        assert response.headers["Content-Type"] == "application/x-ndjson"
        assert await line(response) == {"words": 2, "distinct": 2, "most": {"one": 1, "two": 1}}
        text.go_on.set()
        most = {"two": 2, "one": 1, "six": 1}
        assert await line(response) == {"words": 4, "distinct": 3, "most": most}
        assert await line(response) == {"words": 4, "distinct": 3, "most": most, "done": True}
        assert await response.content.read() == b""


async def test_a_text_that_breaks_off_is_told_and_the_next_call_is_served(
    client: Client, app: str, image: str, text: SlowText
) -> None:
    path = await client.deploy(app, "/wordcount", image, **ROUTE)
    text.breaks = True
    text.go_on.set()
    told = lines((await client.post(f"{path}?from={text.address}", data=b"unread")).body)
    assert "error" in told[-1]
    assert "done" not in told[-1]
    assert lines((await client.post(path, data=b"a b a")).body)[-1]["most"] == {"a": 2, "b": 1}


async def test_a_large_text_is_counted_whole(client: Client, app: str, image: str) -> None:
    path = await client.deploy(app, "/wordcount", image, **ROUTE)
    body = "".join(f"word{number % 1000} 世界 " for number in range(200_000)).encode()
    told = lines((await client.post(path, data=body)).body)
    assert told[-1]["words"] == 400_000
    assert told[-1]["distinct"] == 1001
    assert told[-1]["most"]["世界"] == 200_000
    assert [report["words"] for report in told] == sorted(report["words"] for report in told)
    assert len(told) > 100


async def test_a_caller_who_leaves_ends_it(
    client: Client, app: str, image: str, text: SlowText
) -> None:
    path = await client.deploy(app, "/wordcount", image, **ROUTE)
    async with client.session.post(f"{client.url}{path}?from={text.address}") as response:
        assert (await line(response))["words"] == 2
        call_id = response.headers["X-Call-Id"]
        response.close()
    assert (await client.ended(call_id))["status"] != "success"


async def test_the_readme(
    platform: Platform, client: Client, workshop: Workshop, text: SlowText
) -> None:
    text.go_on.set()
    await workshop.follow(
        "wordcount", platform.url, {"http://192.168.1.10:8000/book.txt": text.address}
    )
    assert (await client.delete("/v1/apps/demo/routes/wordcount")).status == 200
