"""Does the platform call back whom a caller of the webhook example named?"""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.outside import host_address, served
from tests.e2e.platforms import Platform, free_port
from tests.e2e.workshop import Workshop

ROUTE = {"type": "async", "timeout": 60, "headers": {"Content-Type": ["application/json"]}}


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> str:
    """The example's image."""
    return workshop.build("webhook")


@dataclass
class Receiver:
    """Whom the platform calls back; answers with these statuses first, and then with 204."""

    address: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Remember what has come."""
        self.requests.append((request.path_qs, dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def taken(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many requests; return their bodies."""

        async def enough() -> bool:
            return len(self.requests) >= count

        await eventually(enough, 60)
        return [json.loads(body) for _, _, body in self.requests]


@pytest.fixture
async def receiver(_engine: None) -> AsyncIterator[Receiver]:
    """A receiver on this machine, at an address that the shared platform may call."""
    made = Receiver()
    async with served(made.take) as address:
        made.address = f"http://{address}/done"
        yield made


async def call(client: Client, path: str, callback: str, **request: object) -> str:
    """Call the function; return the call's id."""
    answer = await client.post(path, json=request, headers={"X-Callback-Url": callback})
    assert answer.status == 202, answer.text
    return str(answer.json()["call_id"])


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Tell whether a callback is the app's, as docs/callbacks.md says it."""
    stamp, *given = headers["X-Millrace-Signature"].split(",")
    signed = stamp.removeprefix("t=").encode() + b"." + body
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" in given


async def test_the_caller_is_called_back_until_it_takes_it(
    client: Client, app: str, image: str, receiver: Receiver
) -> None:
    receiver.statuses = [503, 500]
    path = await client.deploy(app, "/factors", image, **ROUTE)
    call_id = await call(client, path, f"{receiver.address}?a=b", number=600851475143)
    expected = {"call_id": call_id, "number": 600851475143, "factors": [71, 839, 1471, 6857]}
    assert await receiver.taken(3) == [expected] * 3
    told = (await client.get(f"/v1/apps/{app}/callback-secret")).json()
    secret = told["callback_secret"]["secret"]
    for target, headers, body in receiver.requests:
        assert target == "/done?a=b"
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Call-Id"] == headers["X-Millrace-Delivery"] == call_id
        assert headers["X-Millrace-Status"] == "success"
        assert is_signed(secret, headers, body)
        assert not is_signed("another", headers, body)
    assert (await client.get(f"/v1/calls/{call_id}/result")).json() == expected

    async def delivered() -> dict[str, Any] | None:
        found = (await client.get(f"/v1/calls/{call_id}")).json()["call"]["callback"]
        return found if found["state"] == "delivered" else None

    callback: Any = await eventually(delivered, 10)
    assert [one["status"] for one in callback["tries"]] == [503, 500, 204]


async def test_a_number_that_is_none_is_told_to_the_receiver(
    client: Client, app: str, image: str, receiver: Receiver
) -> None:
    path = await client.deploy(app, "/factors", image, **ROUTE)
    call_id = await call(client, path, receiver.address, number="twelve")
    [told] = await receiver.taken()
    error = {"message": "exit code 2", "code": "exit", "fault": "function"}
    assert told == {"request_id": call_id, "error": error}
    assert receiver.requests[0][1]["X-Millrace-Code"] == "exit"
    said = (await client.get(f"/v1/calls/{call_id}/log")).text
    assert '"number" is "twelve"; it must be from 2 to 1000000000000000' in said


async def test_an_address_that_is_none(client: Client, app: str, image: str) -> None:
    path = await client.deploy(app, "/factors", image, **ROUTE)
    for url in ("no address", "http://127.0.0.1:1/", "http://169.254.169.254/latest"):
        answer = await client.post(path, json={"number": 12}, headers={"X-Callback-Url": url})
        assert (answer.status, answer.json()["error"]["code"]) == (400, "callback_url")


async def test_the_readme(platform: Platform, client: Client, workshop: Workshop) -> None:
    here = {"192.168.1.10": host_address(), "9000": str(free_port())}
    await workshop.follow("webhook", platform.url, here)
    assert (await client.delete("/v1/apps/demo/routes/factors")).status == 200
