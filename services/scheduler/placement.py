"""Where should a call run? Filter the engines that can take it now, then rank them.

Knows nothing of queues or of time. The answer must not cost more with a thousand engines than
with ten, so engines are bits of integers, kept by level of free capacity.
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from services.scheduler.ledger import NOTHING, Size

Reason = Literal["no_runner", "too_large", "memory", "cpus", "earmarked"]

#: Engines of one level that are compared exactly; of more, the first joined ones.
COMPARED = 8


def level(amount: int) -> int:
    """Return the level of a positive amount: four to each doubling, so about 20 % apart.

    >>> [level(amount) for amount in (1024, 1279, 1280, 2048)]
    [40, 40, 41, 44]
    """
    octave = amount.bit_length() - 1
    return octave * 4 + ((amount << 2 >> octave) & 3)


class Levels:
    """Which slots have how much of one resource? A bit set of slots for each level in use."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}
        self._order: list[int] = []
        self._at: dict[int, int] = {}

    def put(self, slot: int, amount: int) -> None:
        """Set a slot's amount; 0 takes it out."""
        now = level(amount) if amount > 0 else -1
        before = self._at.get(slot, -1)
        if now == before:
            return
        if before >= 0:
            self._clear(slot, before)
        if now >= 0:
            if now not in self._masks:
                self._masks[now] = 0
                bisect.insort(self._order, now)
            self._masks[now] |= 1 << slot
            self._at[slot] = now

    def may_have(self, amount: int) -> int:
        """Return the slots that have `amount`, and those of its own level, which may have it."""
        least = level(amount) if amount > 0 else 0
        found = 0
        for at in reversed(self._order):
            if at < least:
                break
            found |= self._masks[at]
        return found

    def descending(self, amount: int) -> Iterator[int]:
        """Yield the slots by level, fullest first, down to the level of `amount`."""
        least = level(amount) if amount > 0 else 0
        for at in reversed(self._order):
            if at < least:
                return
            yield self._masks[at]

    def _clear(self, slot: int, at: int) -> None:
        self._masks[at] ^= 1 << slot
        del self._at[slot]
        if not self._masks[at]:
            del self._masks[at]
            self._order.remove(at)


@dataclass(slots=True)
class _Engine:
    engine_id: str
    slot: int
    free: Size = NOTHING
    offered: Size = NOTHING
    usable: bool = False
    #: Whether a call that waits for it does not wait in vain.
    staying: bool = False
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a call of some size cannot be placed now."""

    reason: Reason
    message: str


class Placement:
    """The engines, as placing sees them.

    Filter: usable (a runner there is alive, able and not draining), not earmarked for another
    size, memory and cpus free. Rank: the image on disk, then the most free memory, then the
    lowest engine id.

    Example: a call needs 200 MB and 1 cpu for image `hello`. Engine a has 900 MB and 0.5 cpus
    free: filtered out. b has 800 MB and 2 cpus, c has 500 MB and 1 cpu and `hello` on disk: c
    ranks first, for the image. Without `hello` on c, b would, with 800 > 500 MB.

    Free memory is compared exactly among the first `COMPARED` engines of the highest level.
    """

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}
        self._slots: list[_Engine | None] = []
        self._vacant: list[int] = []
        self._memory = Levels()
        self._cpus = Levels()
        self._usable = 0
        self._images: dict[str, int] = {}
        #: The engine kept free for calls of one size, and that size.
        self._earmark: tuple[str, Size] | None = None
        self._shortages: dict[Size, Shortage] = {}

    def describe(
        self,
        engine_id: str,
        *,
        offered: Size,
        images: tuple[str, ...],
        usable: bool,
        staying: bool,
    ) -> None:
        """Add an engine, or say what has changed about it."""
        engine = self._engines.get(engine_id) or self._join(engine_id)
        bit = 1 << engine.slot
        if usable != engine.usable:
            self._usable ^= bit
        engine.offered, engine.usable, engine.staying = offered, usable, staying
        self._set_images(engine, images)
        self._shortages.clear()

    def set_free(self, engine_id: str, free: Size) -> None:
        """Say how much of a known engine is free now."""
        engine = self._engines.get(engine_id)
        if engine is not None:
            engine.free = free
            self._memory.put(engine.slot, free.memory_mb)
            self._cpus.put(engine.slot, free.millicpus)
            self._shortages.clear()

    def remove(self, engine_id: str) -> None:
        """Forget an engine whose last runner is gone."""
        engine = self._engines.get(engine_id)
        if engine is None:
            return
        self.set_free(engine_id, NOTHING)
        self.describe(engine_id, offered=NOTHING, images=(), usable=False, staying=False)
        del self._engines[engine_id]
        self._slots[engine.slot] = None
        bisect.insort(self._vacant, engine.slot)
        if self._earmark and self._earmark[0] == engine_id:
            self._earmark = None

    def best(self, size: Size, image: str) -> str | None:
        """Return the engine for a call of a size and image; None if none can take it now."""
        eligible = self._usable & self._cpus.may_have(size.millicpus)
        if self._earmark and self._earmark[1] != size:
            eligible &= ~(1 << self._engines[self._earmark[0]].slot)
        near = eligible & self._images.get(image, 0)
        found = self._freest(near, size) if near else None
        return found or (self._freest(eligible, size) if eligible else None)

    def takes(self, engine_id: str, size: Size) -> bool:
        """Say whether an engine can take a call of this size now."""
        engine = self._engines.get(engine_id)
        if engine is None or not engine.usable or not engine.free.covers(size):
            return False
        return not (self._earmark and self._earmark[0] == engine_id and self._earmark[1] != size)

    def free(self, engine_id: str) -> Size | None:
        """Return what an engine was last said to have free; None if it is not known."""
        engine = self._engines.get(engine_id)
        return engine.free if engine else None

    def could_ever(self, size: Size) -> bool:
        """Say whether some engine would take a call of this size if it were idle."""
        return any(e.staying and e.offered.covers(size) for e in self._engines.values())

    @property
    def staying(self) -> bool:
        """Whether there is any engine worth waiting for."""
        return any(engine.staying for engine in self._engines.values())

    @property
    def earmark(self) -> tuple[str, Size] | None:
        """The engine that is kept for calls of one size, and that size."""
        return self._earmark

    def earmark_for(self, size: Size) -> str | None:
        """Keep an engine for calls of a size: of those that could take one, the freest now."""
        fitting = [e for e in self._engines.values() if e.usable and e.offered.covers(size)]
        if not fitting:
            return None
        chosen = min(fitting, key=_by_free_memory)
        self._earmark = (chosen.engine_id, size)
        self._shortages.clear()
        return chosen.engine_id

    def lift_earmark(self) -> str | None:
        """Give the earmarked engine back to all. Returns which it was."""
        lifted = self._earmark[0] if self._earmark else None
        self._earmark = None
        self._shortages.clear()
        return lifted

    def shortage(self, size: Size) -> Shortage:
        """Say why a call of this size is not placed now, and by how much it misses."""
        known = self._shortages.get(size)
        if known is None:
            known = self._shortages[size] = self._explain(size)
        return known

    def _explain(self, size: Size) -> Shortage:
        engines = list(self._engines.values())
        usable = [engine for engine in engines if engine.usable]
        if engines and self.staying and not self.could_ever(size):
            largest = max((e for e in engines if e.staying), key=lambda engine: engine.offered)
            message = f"needs {size}; the largest runner offers {largest.offered} in all"
            return Shortage("too_large", message)
        if not usable:
            return Shortage("no_runner", f"needs {size}; no runner is there to take calls")
        freest = min(usable, key=_by_free_memory)
        message = f"needs {size}; the largest free runner has {freest.free}"
        if self._earmark and self._engines[self._earmark[0]].free.covers(size):
            return Shortage("earmarked", message + ", kept for a call that has waited longer")
        enough_memory = any(e.free.memory_mb >= size.memory_mb for e in usable)
        return Shortage("cpus" if enough_memory else "memory", message)

    def _freest(self, candidates: int, size: Size) -> str | None:
        for mask in self._memory.descending(size.memory_mb):
            among = mask & candidates
            fitting: list[_Engine] = []
            while among and len(fitting) < COMPARED:
                low = among & -among
                among ^= low
                engine = self._slots[low.bit_length() - 1]
                if engine is not None and engine.free.covers(size):
                    fitting.append(engine)
            if fitting:
                return min(fitting, key=_by_free_memory).engine_id
        return None

    def _join(self, engine_id: str) -> _Engine:
        slot = self._vacant.pop(0) if self._vacant else len(self._slots)
        engine = self._engines[engine_id] = _Engine(engine_id, slot)
        if slot == len(self._slots):
            self._slots.append(engine)
        else:
            self._slots[slot] = engine
        return engine

    def _set_images(self, engine: _Engine, images: tuple[str, ...]) -> None:
        if images == engine.images:
            return
        bit = 1 << engine.slot
        before, now = set(engine.images), set(images)
        for image in before - now:
            self._images[image] ^= bit
            if not self._images[image]:
                del self._images[image]
        for image in now - before:
            self._images[image] = self._images.get(image, 0) | bit
        engine.images = images


def _by_free_memory(engine: _Engine) -> tuple[int, str]:
    return (-engine.free.memory_mb, engine.engine_id)
