"""Which runners have how much of something? Sets of runners as bits of integers, by level.

Knows nothing of what is measured. With a bit for each runner, a set operation over a thousand of
them costs hardly more than over ten.
"""

import bisect
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from services.scheduler.ledger import Size

#: All runners, and none, as sets.
ANYWHERE, NOWHERE = -1, 0


@lru_cache(maxsize=1 << 16)
def level(amount: int) -> int:
    """Return the level of an amount: four to each doubling, so about 20 % apart; -1 for nothing.

    >>> [level(amount) for amount in (1024, 1279, 1280, 2048)]
    [40, 40, 41, 44]
    """
    if amount <= 0:
        return -1
    octave = amount.bit_length() - 1
    return octave * 4 + ((amount << 2 >> octave) & 3)


class Levels:
    """Which runners are at which level? A set of runners for each level in use."""

    def __init__(self) -> None:
        self._sets: dict[int, int] = {}
        self._order: list[int] = []

    def add(self, bits: int, at: int) -> None:
        """Put runners that are at no level at one."""
        if not bits:
            return
        if at not in self._sets:
            self._sets[at] = 0
            bisect.insort(self._order, at)
        self._sets[at] |= bits

    def discard(self, bits: int, at: int) -> None:
        """Take runners away from their level."""
        if not bits:
            return
        self._sets[at] ^= bits
        if not self._sets[at]:
            del self._sets[at]
            del self._order[bisect.bisect_left(self._order, at)]

    def move(self, bits: int, before: int, now: int) -> None:
        """Put runners from one level to another."""
        self.discard(bits, before)
        self.add(bits, now)

    def from_(self, least: int) -> int:
        """Return the runners at a level or above."""
        found = 0
        for at in reversed(self._order):
            if at < least:
                break
            found |= self._sets[at]
        return found

    def descending(self, least: int) -> Iterator[int]:
        """Yield the runners by level, highest first, down to the least."""
        for at in reversed(self._order):
            if at < least:
                return
            yield self._sets[at]

    def lowest(self, among: int) -> tuple[int, int] | None:
        """Return the lowest level where some of these runners are, and which; None if nowhere."""
        for at in self._order:
            found = self._sets[at] & among
            if found:
                return at, found
        return None


class LeastLevels(NamedTuple):
    """Levels from which on a size fits for sure, and from which on it may fit."""

    sure_memory: int
    sure_cpus: int
    memory: int
    cpus: int


@lru_cache(maxsize=4096)
def least_levels(size: Size) -> LeastLevels:
    """Return the levels that matter for a size."""
    memory_mb, millicpus = size
    return LeastLevels(_sure(memory_mb), _sure(millicpus), level(memory_mb), level(millicpus))


def _sure(amount: int) -> int:
    return level(amount - 1) + 1 if amount > 1 else 0
