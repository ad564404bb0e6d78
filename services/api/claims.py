"""Which claims of keys are old enough to go? Sweeps them out of Redis, in small steps."""

import asyncio

import structlog

from shared import clock, scripts, streams
from shared.errors import Unavailable

log = structlog.get_logger()

SWEEP_EVERY_S = 10.0
#: Claims forgotten by one script, so that it never holds up Redis.
SWEEP_AT_ONCE = 200


class Claims:
    """Forgets claims whose time is over. Every replica does; a script is one step."""

    def __init__(self, outbox: streams.Outbox) -> None:
        """Send through `outbox`."""
        self._outbox = outbox

    async def run(self) -> None:
        """Sweep now and then, for ever."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await self.sweep(clock.epoch_ms())
            except Unavailable as error:
                log.warning("claims_unswept", error=error.message)

    async def sweep(self, now_ms: int) -> int:
        """Forget what is due by `now_ms`; return how many there were."""
        total = 0
        while gone := int(await self._outbox.send(scripts.sweep_claims(now_ms, SWEEP_AT_ONCE))):
            total += gone
        return total
