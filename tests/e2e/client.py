"""How do the tests talk to a platform? As any client would: HTTP, and nothing else."""

import asyncio
import io
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from shared import clock, messages


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an error's body."""
        return str(self.json()["error"]["message"])

    @property
    def code(self) -> str:
        """The stable word of an error's body."""
        return str(self.json()["error"]["code"])

    @property
    def fault(self) -> str:
        """Whose fault an error's body says it was."""
        return str(self.json()["error"]["fault"])

    @property
    def call_id(self) -> str:
        """The call's id, of whatever came of it."""
        return self.headers["X-Call-Id"]


class Client:
    """One caller of one api replica."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    def at(self, url: str) -> "Client":
        """Return a client of another replica that shares the connections."""
        return Client(self.session, url)

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Return the answer to a request; `options` are aiohttp's."""
        options.setdefault("allow_redirects", False)
        if isinstance(options.get("data"), bytes):
            options["data"] = io.BytesIO(options["data"])
        async with self.session.request(method, self.url + path, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.ask("POST", path, **options)

    async def patch(self, path: str, **options: Any) -> Answer:
        return await self.ask("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.ask("DELETE", path, **options)

    async def create_app(self, name: str, **fields: Any) -> dict[str, Any]:
        """Make an app; return it as the platform tells it."""
        answer = await self.post("/v1/apps", json={"app": {"name": name, **fields}})
        assert answer.status == 200, answer.text
        return dict(answer.json()["app"])

    async def deploy(self, app: str, path: str, image: str, **fields: Any) -> str:
        """Make a route (and its app if need be); return the path that calls it."""
        route = {"path": path, "image": image, **fields}
        answer = await self.post(f"/v1/apps/{app}/routes", json={"route": route})
        assert answer.status == 200, answer.text
        return f"/r/{app}{path}"

    async def record(self, call_id: str) -> dict[str, Any]:
        """Return the record of a call that is known."""
        answer = await self.get(f"/v1/calls/{call_id}")
        assert answer.status == 200, answer.text
        return dict(answer.json()["call"])

    async def ended(self, call_id: str, timeout_s: float = 60) -> dict[str, Any]:
        """Return the record of a call that has ended, waiting for that."""
        until = clock.monotonic_s() + timeout_s
        while clock.monotonic_s() < until:
            answer = await self.get(f"/v1/calls/{call_id}?wait=30")
            if answer.status == 200 and answer.json()["call"]["status"] in messages.ENDED:
                return dict(answer.json()["call"])
            await asyncio.sleep(0.05)
        raise AssertionError(f"{call_id} has not ended: {answer.text}")

    async def calls(self, app: str, **query: str) -> list[dict[str, Any]]:
        """Return the records of an app, newest first, over all pages."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = query | ({"cursor": cursor} if cursor else {})
            answer = await self.get(f"/v1/apps/{app}/calls", params=page)
            assert answer.status == 200, answer.text
            found += answer.json()["calls"]
            cursor = answer.json().get("next_cursor")
            if not cursor:
                return found
