"""Which version has an app's catalog? A number in Redis that changes with each change.

Who caches a route remembers the version it was read at: read *before* MySQL was. Who changes an
app moves the number before the commit and again after it, so that a route read between the two
is known to be old.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from redis.exceptions import ResponseError

from shared import keys
from shared.errors import MillraceError
from shared.scripts import Command

#: How often, and at which distance in seconds, the second move is tried.
AFTER_TRIES, AFTER_PAUSE_S = 5, 0.2

log = structlog.get_logger()


class Versions:
    """The numbers, in Redis. Raises `Unavailable` when that is away."""

    def __init__(self, send: Callable[[Command], "asyncio.Future[Any]"]) -> None:
        """`send` is an outbox's."""
        self._send = send

    async def current(self, app: str) -> str:
        """Return the version now."""
        found = await self._send(("HGET", keys.CATALOG_VERSIONS, app))
        return found.decode() if found else "0"

    async def move(self, app: str) -> None:
        """Move to a new version: whatever was cached of the app is old."""
        await self._send(("HINCRBY", keys.CATALOG_VERSIONS, app, 1))

    async def move_after(self, app: str) -> None:
        """Do the same after a commit, which nothing can undo: insist for a moment, then log.

        If Redis stays away, calls cannot come in either; a route cached meanwhile is read again
        when it is `catalog_ttl_s` old.
        """
        for _ in range(AFTER_TRIES):
            try:
                await self.move(app)
            except (MillraceError, ResponseError) as error:
                log.warning("catalog_version_not_moved", app=app, error=str(error))
                await asyncio.sleep(AFTER_PAUSE_S)
            else:
                return
