"""Is a caller called back, whichever api replica dies?"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web

from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.outside import host_address, served


async def test_a_killed_replicas_callback_is_made_by_another(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    function_image: Callable[[str], str],
) -> None:
    told: list[tuple[str, bytes]] = []
    killed = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        told.append((request.headers["X-Millrace-Delivery"], await request.read()))
        await killed.wait()
        return web.Response(status=204)

    async def told_twice() -> bool:
        return len(told) >= 2

    settings = {"CALLBACK_ALLOW_NETWORKS": host_address(), "CALLBACK_TIMEOUT_S": "5"}
    async with served(take) as address:
        with new_platform(**settings) as platform:
            platform.start()
            dying = platform.first("api")
            client = Client(http, dying.url)
            path = await client.deploy(app, "/x", function_image("cat"), type="async")
            headers = {"X-Callback-Url": f"http://{address}/done"}
            accepted = await client.post(path, data=b"outcome", headers=headers)
            call_id = accepted.json()["call_id"]

            async def told_once() -> bool:
                return bool(told)

            await eventually(told_once, 30)
            dying.kill()
            killed.set()
            second = platform.add("api")
            await asyncio.to_thread(second.wait_ready)
            await eventually(told_twice, 60)
            other = client.at(second.url)

            async def delivered() -> bool:
                callback = (await other.record(call_id))["callback"]
                return bool(callback["state"] == "delivered")

            await eventually(delivered, 10)
    assert told == [(call_id, b"outcome")] * 2
