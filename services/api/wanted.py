"""Which routes have sandboxes kept ready? Keeps the list that runners read equal to MySQL's.

The list is the Redis hash `keys.WANTED`. A change through this replica is written there at once,
and every few seconds all of it is compared with MySQL: so a replica may die between its commit
and the writing, and Redis may lose the list. Any replica may write, in any order: an app's part
of the list is written only if the app's catalog still has the version it had *before* MySQL was
read (`scripts.want`), so that an old reading never replaces a newer one.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pymysql.err
import structlog
from redis.exceptions import RedisError

from services.api import plans
from services.api.store import Store
from shared import keys, messages, scripts, streams
from shared.errors import Unavailable

log = structlog.get_logger()

#: How often all of the list is compared with MySQL, in seconds.
COMPARE_EVERY_S = 5.0
#: Pause after a failure, in seconds.
RETRY_S = 1.0
#: Apps compared in one go, so that the event loop is never held for long.
APPS_AT_ONCE = 50


class WantedRoutes:
    """Writes the list. One task, `run`, does; changes are told to it from anywhere in the loop."""

    def __init__(self, redis: streams.Redis, outbox: streams.Outbox, store: Store) -> None:
        """Compare with the routes of `store`."""
        self._redis, self._outbox, self._store = redis, outbox, store
        self._changed: set[str] = set()
        self._look = asyncio.Event()

    def changed(self, app: str) -> None:
        """Have an app's part of the list written soon."""
        self._changed.add(app)
        self._look.set()

    async def run(self) -> None:
        """Keep the list right, for ever; what fails now, the next comparison does."""
        loop = asyncio.get_running_loop()
        compare_at_s = loop.time()
        while True:
            try:
                if loop.time() >= compare_at_s:
                    compare_at_s = loop.time() + COMPARE_EVERY_S
                    await self.compare_all()
                await self._write_changed()
            except (Unavailable, RedisError, OSError, pymysql.err.MySQLError) as error:
                log.warning("wanted_not_written", error=str(error))
                await asyncio.sleep(RETRY_S)
            await self._until_change(compare_at_s)

    async def _until_change(self, at_most_until_s: float) -> None:
        try:
            async with asyncio.timeout_at(at_most_until_s):
                await self._look.wait()
        except TimeoutError:
            pass

    async def _write_changed(self) -> None:
        self._look.clear()
        apps, self._changed = self._changed, set()
        if apps:
            await self._compare(apps, await self._listed())

    async def compare_all(self) -> None:
        """Compare the whole list, some apps at a time."""
        listed = await self._listed()
        apps = set(await self._store.apps_with_wanted()) | {_app(field) for field in listed}
        for some in _chunks(sorted(apps), APPS_AT_ONCE):
            await self._compare(some, listed)

    async def _listed(self) -> dict[bytes, bytes]:
        found: Any = await self._redis.hgetall(keys.WANTED)
        return dict(found)

    async def _compare(self, apps: Collection[str], listed: Mapping[bytes, bytes]) -> None:
        """Write what differs of some apps. The order is what makes it right: versions first."""
        names = list(apps)
        versions: Any = await self._redis.hmget(keys.CATALOG_VERSIONS, names)
        known = {app: (v or b"0").decode() for app, v in zip(names, versions, strict=True)}
        wanted: dict[str, dict[bytes, bytes]] = {app: {} for app in names}
        for made, route in await self._store.wanted_routes(names):
            plan = plans.plan(made.config or {}, route, known[route.app])
            field = f"{route.app}\n{route.path}".encode()
            wanted[route.app][field] = messages.encode(plans.wanted(plan))
        sent: list[Any] = []
        for app, entries in wanted.items():
            if changes := _changes(app, entries, listed):
                sent.append(self._outbox.send(scripts.want(app, known[app], changes)))
        # One that answers `STALE` has changed meanwhile: whoever changed it writes it anew.
        await asyncio.gather(*sent)


def _app(field: bytes) -> str:
    return field.partition(b"\n")[0].decode(errors="replace")


def _changes(
    app: str, wanted: Mapping[bytes, bytes], listed: Mapping[bytes, bytes]
) -> dict[bytes, bytes]:
    """Return what is to be set of an app's part of the list; b"" is to be removed."""
    gone = {field: b"" for field in listed if _app(field) == app and field not in wanted}
    return gone | {field: raw for field, raw in wanted.items() if listed.get(field) != raw}


def _chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
