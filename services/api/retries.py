"""When do async calls come back whose next attempt was to wait? Each half second, what is due.

They wait in Redis, from the very step that ended the attempt before (`scripts.try_again`).
"""

import asyncio

import structlog

from shared import clock, scripts, streams
from shared.errors import Unavailable

log = structlog.get_logger()

RETURN_EVERY_S = 0.5
#: Calls returned by one script, so that it never holds up Redis.
RETURN_AT_ONCE = 100


class Retries:
    """Brings calls back. One task (`run`) does; so does every replica, each call once."""

    def __init__(self, outbox: streams.Outbox) -> None:
        """All that is known of them is in Redis, and the same for all replicas."""
        self._outbox = outbox

    async def run(self) -> None:
        """Return what is due, for ever."""
        while True:
            try:
                await self.return_due(clock.epoch_ms())
            except Unavailable as error:
                log.warning("retries_unreturned", error=str(error))
            await asyncio.sleep(RETURN_EVERY_S)

    async def return_due(self, now_ms: int) -> int:
        """Return the calls that are due by `now_ms`; how many there were."""
        total = 0
        due = scripts.return_due_retries(now_ms, RETURN_AT_ONCE)
        while returned := await self._outbox.send(due):
            total += int(returned)
        if total:
            log.info("retries_returned", count=total)
        return total
