"""Does the webhook example call back whom its caller named, through the platform?"""

import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.outside import host_address, served
from tests.e2e.platforms import Platform, free_port
from tests.e2e.workshop import Workshop

ROUTE = {"type": "async", "timeout": 60}


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> str:
    """The example's image."""
    return workshop.build("webhook")


@dataclass
class Receiver:
    """Whom the function calls back; answers with these statuses first, and then with 204."""

    address: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Remember what has come."""
        self.requests.append((request.path_qs, dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def taken(self, count: int = 1) -> list[dict[str, object]]:
        """Wait for so many requests; return their bodies."""

        async def enough() -> bool:
            return len(self.requests) >= count

        await eventually(enough, 60)
        return [json.loads(body) for _, _, body in self.requests]


@pytest.fixture
async def receiver(_engine: None) -> AsyncIterator[Receiver]:
    """A receiver on this machine, at an address that functions can reach."""
    made = Receiver()
    async with served(made.take) as address:
        made.address = f"http://{address}/done"
        yield made


async def call(client: Client, path: str, **request: object) -> str:
    """Call the function; return the call's id."""
    answer = await client.post(path, json=request)
    assert answer.status == 202, answer.text
    return str(answer.json()["call_id"])


async def test_the_caller_is_called_back(
    client: Client, app: str, image: str, receiver: Receiver
) -> None:
    path = await client.deploy(app, "/factors", image, **ROUTE, config={"CALLBACK_SECRET": "hush"})
    call_id = await call(client, path, number=600851475143, callback=f"{receiver.address}?a=b")
    expected = {"call_id": call_id, "number": 600851475143, "factors": [71, 839, 1471, 6857]}
    assert await receiver.taken() == [expected]
    target, headers, body = receiver.requests[0]
    assert target == "/done?a=b"
    assert headers["X-Call-Id"] == call_id
    signature = hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    assert headers["X-Signature"] == f"sha256={signature}"
    assert (await client.ended(call_id))["status"] == "success"
    assert (await client.get(f"/v1/calls/{call_id}/result")).json() == expected


async def test_a_number_that_is_none_is_told_to_the_receiver(
    client: Client, app: str, image: str, receiver: Receiver
) -> None:
    path = await client.deploy(app, "/factors", image, **ROUTE)
    await call(client, path, number="twelve", callback=receiver.address)
    [told] = await receiver.taken()
    assert told["error"] == '"number" is "twelve"; it must be from 2 to 1000000000000000'
    assert "X-Signature" not in receiver.requests[0][1]


async def test_a_receiver_that_is_busy_gets_it_later(
    client: Client, app: str, image: str, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    path = await client.deploy(app, "/factors", image, **ROUTE)
    call_id = await call(client, path, number=12, callback=receiver.address)
    first, second = await receiver.taken(2)
    assert first == second == {"call_id": call_id, "number": 12, "factors": [2, 2, 3]}
    assert (await client.ended(call_id))["status"] == "success"


@pytest.mark.parametrize(
    ("callback", "ending"),
    [("no address", (2, '"callback" is "no address"')), ("{}?gone", (3, "answers 410"))],
)
async def test_whom_it_cannot_call_back_is_in_the_log(
    client: Client, image: str, receiver: Receiver, callback: str, ending: tuple[int, str]
) -> None:
    app, (exit_code, said) = f"t-{secrets.token_hex(6)}", ending
    receiver.statuses = [410]
    path = await client.deploy(app, "/factors", image, **ROUTE)
    call_id = await call(client, path, number=12, callback=callback.format(receiver.address))
    assert (await client.ended(call_id))["exit_code"] == exit_code
    assert said in (await client.get(f"/v1/calls/{call_id}/log")).text


async def test_the_readme(platform: Platform, client: Client, workshop: Workshop) -> None:
    here = {"192.168.1.10": host_address(), "9000": str(free_port())}
    await workshop.follow("webhook", platform.url, here)
    assert (await client.delete("/v1/apps/demo/routes/factors")).status == 200
