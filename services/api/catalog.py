"""Which route does a call mean? From memory, and never older than the last change.

A cached route carries the version its app's catalog had before it was read. Redis refuses to
enqueue a call with an older version than the present one, so a stale route is noticed at the one
round trip that a call makes anyway. Not-founds are never cached.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from services.api import plans
from services.api.models import App, Route
from services.api.problems import NotFound
from services.api.versions import Versions
from shared import clock
from shared.errors import Unavailable

#: Routes kept at most; those longest unused go first.
KEPT_MAX = 10_000
#: How long a call waits for an aged route to be read again, before it uses the old one.
REFRESH_TIMEOUT_S = 2.0

Key = tuple[str, str]
#: Reads an app and a route of it. Raises `AppNotFound`, `RouteNotFound`, `Unavailable`.
Read = Callable[[str, str], Awaitable[tuple[App, Route]]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """A route, its app's config, and the version of the app's catalog they were read at."""

    app_config: dict[str, str]
    route: Route
    version: str
    #: What follows from them for each call.
    plan: plans.Plan


@dataclass(slots=True)
class _Kept:
    found: Found
    #: Monotonic seconds.
    fresh_until_s: float


class Catalog:
    """Routes by app and path. One per replica; only its own methods change it."""

    def __init__(
        self,
        read: Read,
        versions: Versions,
        *,
        ttl_s: float,
        now_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        """Read from `read` what is not kept or was read `ttl_s` seconds ago."""
        self._read, self._versions = read, versions
        self._ttl_s, self._now_s = ttl_s, now_s
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        #: Reads under way: all who want the same wait for one.
        self._flights: dict[Key, asyncio.Task[Found]] = {}

    async def lookup(self, app: str, path: str) -> Found:
        """Return the route at a cleaned path. Raises `AppNotFound`, `RouteNotFound`, `Unavailable`.

        If MySQL is away, known routes are still found.
        """
        key = (app, path)
        kept = self._kept.get(key)
        if kept is None:
            return await self._load(key)
        return self.known(app, path) or await self._refreshed(key, kept)

    def known(self, app: str, path: str) -> Found | None:
        """Return the route if it is in memory and fresh, as it nearly always is."""
        key = (app, path)
        kept = self._kept.get(key)
        if kept is None or self._now_s() >= kept.fresh_until_s:
            return None
        self._kept.move_to_end(key)
        return kept.found

    def forget(self, found: Found) -> None:
        """Drop what turned out to be stale, unless it has been replaced already."""
        key = (found.route.app, found.route.path)
        kept = self._kept.get(key)
        if kept is not None and kept.found is found:
            del self._kept[key]

    async def confirmed(self, found: Found) -> Found:
        """Return the route as it is now, to be sure before a caller is refused by it.

        Costs one round trip to Redis if nothing has changed. Raises as `lookup` does.
        """
        route = found.route
        if await self._versions.current(route.app) == found.version:
            return found
        self.forget(found)
        return await self._load_anew((route.app, route.path))

    async def close(self) -> None:
        """End the reads under way."""
        for flight in list(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    async def _refreshed(self, key: Key, kept: _Kept) -> Found:
        # Others may go on with the old one meanwhile: if it has changed, enqueueing tells.
        kept.fresh_until_s = self._now_s() + self._ttl_s
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                return await self._load_anew(key)
        except NotFound:
            self.forget(kept.found)
            raise
        except (Unavailable, TimeoutError) as error:
            log.warning("catalog_not_refreshed", app=key[0], path=key[1], error=str(error))
            return kept.found

    async def _load(self, key: Key) -> Found:
        """Return what a read brings; one under way will do, unless it finds nothing.

        It may have begun before the route was made, by a request already answered. One begun
        from now on has not.
        """
        flight = self._flights.get(key)
        if flight is not None:
            with suppress(NotFound):
                return await asyncio.shield(flight)
        return await asyncio.shield(self._flights.get(key) or self._start(key))

    async def _load_anew(self, key: Key) -> Found:
        """Return what a read brings that begins from now on."""
        flight = self._flights.get(key)
        if flight is not None:
            await asyncio.wait([flight])
        return await asyncio.shield(self._flights.get(key) or self._start(key))

    def _start(self, key: Key) -> "asyncio.Task[Found]":
        flight = asyncio.create_task(self._fly(key), name="catalog-read")
        self._flights[key] = flight
        flight.add_done_callback(_look_at)
        return flight

    async def _fly(self, key: Key) -> Found:
        app, path = key
        try:
            version = await self._versions.current(app)
            made, route = await self._read(app, path)
            config = made.config or {}
            plan = plans.plan(config, route, version, limits=plans.limits(made))
            found = Found(config, route, version, plan)
            self._kept[key] = _Kept(found, self._now_s() + self._ttl_s)
            self._kept.move_to_end(key)
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
            return found
        finally:
            del self._flights[key]


def _look_at(flight: "asyncio.Task[Found]") -> None:
    """Take note of an error that nobody waits for any more."""
    if not flight.cancelled():
        flight.exception()
