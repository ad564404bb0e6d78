"""Who may start a container now? So many at one time, and fewer of those nobody waits for."""

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class Slot:
    """The right to start one container, until it is released."""

    free: asyncio.Semaphore
    outer: "Slot | None"
    held: bool = True

    def release(self) -> None:
        """Let the next one start. Only the first time counts."""
        if self.held:
            self.held = False
            self.free.release()
            if self.outer:
                self.outer.release()


class Slots:
    """So many containers may be started at one time; a start takes a slot `within` others too."""

    def __init__(self, count: int, within: "Slots | None" = None) -> None:
        """Allow `count` at one time."""
        self._free = asyncio.Semaphore(count)
        self._within = within

    async def acquire(self) -> Slot:
        """Wait for a slot."""
        await self._free.acquire()
        try:
            outer = await self._within.acquire() if self._within else None
        except BaseException:
            self._free.release()
            raise
        return Slot(self._free, outer)
