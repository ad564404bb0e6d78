"""Is every accepted async call run and recorded exactly once, however many wait?"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.conftest import World
from tests.e2e.load import accept, resident_bytes, work_off
from tests.e2e.test_conformance_copy import CAT

Image = Callable[[str], str]

ACCEPTED = 5_000
#: What "flat" is held to.
GROWS_AT_MOST_BYTES = 24 * 1024 * 1024
FINISHED = 300
#: Tells the world its call's id, each time it runs.
TELL = 'exec wget -q -O- "http://$WORLD/$CALL_ID"'


async def all_recorded(
    client: Client, app: str, status: str, count: int, **query: str
) -> list[dict[str, Any]]:
    """Wait until an app has so many records of a status (and a path); return them."""

    async def enough() -> list[dict[str, Any]] | None:
        found = await client.calls(app, status=status, limit="1000", **query)
        return found if len(found) >= count else None

    found = await eventually(enough, 120)
    assert isinstance(found, list)
    return found


async def test_five_thousand_wait_and_each_is_done_exactly_once(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    with new_platform() as platform:
        for role in ("api", "scheduler"):
            platform.add(role)
        for service in platform.services:
            service.wait_ready()
        client = Client(http, platform.url)
        image = function_image(TELL)
        path = await client.deploy(app, "/x", image, type="async", config=world.config)
        early = await accept(client, path, 100)
        before = await resident_bytes(client)
        accepted = await accept(client, path, ACCEPTED)
        grown = await resident_bytes(client) - before
        assert len(set(accepted)) == ACCEPTED
        assert grown < GROWS_AT_MOST_BYTES, f"{grown / 1e6:.1f} MB more"

        taken = await work_off(client, app, len(early) + ACCEPTED - FINISHED)
        assert len(set(taken)) == len(taken), "an outside worker got what another had"
        await asyncio.to_thread(platform.add("runner").wait_ready)
        await eventually(lambda: idle(client), 120)
        done = await all_recorded(client, app, "success", len(early + accepted))
        # Whatever is run twice would show by now or while the runner drains.
    assert Counter(call["id"] for call in done) == Counter(early + accepted)
    left = set(accepted) - set(taken)
    assert len(left) == FINISHED
    assert world.hits == Counter({f"/{call_id}": 1 for call_id in left})


async def idle(client: Client) -> bool:
    """Return whether no call waits or runs."""
    stats = (await client.get("/stats")).json()
    return bool(stats["Queue"] == 0 and stats["Running"] == 0)


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00\x80 not text", b"", bytes(range(256)) * 400], ids=["bad", "none", "big"]
)
async def test_bytes_stay_bytes(
    client: Client, app: str, function_image: Image, body: bytes
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT), type="async")
    call_id = (await client.post(path, data=body)).json()["call_id"]
    assert (await client.ended(call_id))["status"] == "success"
    result = await client.get(f"/v1/calls/{call_id}/result")
    assert (result.status, result.body) == (200, body)


async def test_an_async_call_fails_with_its_reason(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("echo why >&2; exit 7"), type="async")
    call_id = (await client.post(path)).json()["call_id"]
    record = await client.ended(call_id)
    assert (record["status"], record["code"], record["exit_code"]) == ("error", "exit", 7)
    assert (await client.get(f"/v1/calls/{call_id}/log")).text == "why\n"


async def test_any_method_may_call_an_async_route(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image('echo "$METHOD"; cat'), type="async")
    for method, payload in (("GET", b""), ("PUT", b"a"), ("DELETE", b"")):
        answer = await client.ask(method, path, data=payload)
        assert answer.status == 202
        await client.ended(answer.json()["call_id"])
        result = await client.get(f"/v1/calls/{answer.json()['call_id']}/result")
        assert result.body == method.encode() + b"\n" + payload
