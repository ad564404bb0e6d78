"""What does every case need? The platform under measure, and functions deployed on it."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.bench import echoes, engine
from tests.e2e.client import Client

Progress = Callable[[str], None]
#: What a route of the benchmark says unless its case wants something else: its sandboxes are gone
#: soon after their last call, so that no case meets those of another.
IDLE_TIMEOUT_S = 2
#: How long removing routes may take, also from a platform that hangs.
REMOVED_WITHIN_S = 60
#: How long sandboxes may take to go once their routes are gone.
GONE_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Deployed:
    """An app with routes of one image, one route if nothing else was asked for."""

    app: str
    image: str
    paths: tuple[str, ...]

    @property
    def path(self) -> str:
        """The path that calls the first route."""
        return self.paths[0]


def new_app() -> str:
    """Return a name that no other app has."""
    return f"bench-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark."""

    client: Client
    #: How long a load lasts.
    seconds: int
    #: How many calls the growth of memory is measured over; None: many, if the platform is quick.
    calls: int | None
    tell: Progress

    @property
    def rounds(self) -> int:
        """How often a case that takes turns does so."""
        return max(1, round(self.seconds / 3))

    @property
    def warm_up_s(self) -> int:
        """How long a load lasts before its measured time."""
        return max(1, self.seconds // 5)

    @asynccontextmanager
    async def echo(
        self, name: echoes.Name, count: int = 1, **fields: Any
    ) -> AsyncIterator[Deployed]:
        """Give routes of one of the echo functions while inside."""
        image = await echoes.image(name)
        async with self.deployed(image, count, **fields) as deployed:
            yield deployed

    @asynccontextmanager
    async def deployed(
        self, image: str, count: int = 1, *, app: str = "", **fields: Any
    ) -> AsyncIterator[Deployed]:
        """Give an app with routes of an image while inside: one of its own, if none is named.

        The routes differ in their config, so that none can use a sandbox of another. Afterwards
        all are removed, and their sandboxes have gone.
        """
        app = app or new_app()
        routes = [f"/{number}" for number in range(count)]
        try:
            for route in routes:
                await self._deploy(app, route, image, fields)
            yield Deployed(app, image, tuple(f"/r/{app}{route}" for route in routes))
        finally:
            async with asyncio.timeout(REMOVED_WITHIN_S):
                await self._remove(app, routes)
        if not await engine.emptied(image, GONE_WITHIN_S):
            self.tell(f"sandboxes of a removed route are there after {GONE_WITHIN_S} s")

    async def _deploy(self, app: str, path: str, image: str, fields: dict[str, Any]) -> None:
        route = {
            "path": path,
            "image": image,
            "idle_timeout": IDLE_TIMEOUT_S,
            "config": {"ROUTE_OF_BENCH": path},
            **fields,
        }
        answer = await self.client.post(f"/v1/apps/{app}/routes", json={"route": route})
        if answer.status != 200:
            raise RuntimeError(f"the platform refuses a route: {answer.text}")
        if warnings := answer.json().get("warnings"):
            raise RuntimeError(f"the platform does not know what is measured: {warnings}")

    async def _remove(self, app: str, routes: list[str]) -> None:
        for route in routes:
            await self.client.delete(f"/v1/apps/{app}/routes{route}")
        await self.client.delete(f"/v1/apps/{app}")
