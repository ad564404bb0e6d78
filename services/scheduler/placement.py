"""Where should a call run? Filter the engines that can take it now, then rank them.

Knows nothing of queues or of time. The answer must not cost more with a thousand runners than
with ten, so sets of runners are bits of integers, kept by level of free capacity.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from services.scheduler.ledger import NOTHING, Size
from services.scheduler.levels import ANYWHERE, Levels, least_levels, level

Reason = Literal["no_runner", "too_large", "memory", "cpus", "earmarked", "concurrency"]

#: Engines that are compared exactly; of more, the first joined ones.
COMPARED = 4
#: An engine that has this part of its cpus free (one half) has room to spare.
SPARE_PART = 2


@dataclass(slots=True)
class _Engine:
    engine_id: str
    free: Size = NOTHING
    offered: Size = NOTHING
    #: The bits of its usable runners; 0: it takes nothing now.
    usable: int = 0
    #: Whether a call that waits for it does not wait in vain.
    staying: bool = False
    images: tuple[str, ...] = ()
    #: Memory of sandboxes that give way, in MB.
    idle_mb: int = 0
    memory_level: int = -1
    cpus_level: int = -1
    spare: bool = False
    #: Its place among others that can take a call, the smallest first.
    rank: tuple[int, int, str] = (1, 0, "")
    #: Whether levels, spare and rank are older than what is free now.
    stale: bool = False


class Spot(NamedTuple):
    """Where a call should run: an engine, and which of its runners may be given it."""

    engine_id: str
    runners: int
    #: Runners that have a sandbox for it, or are about to.
    preferred: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a call of some size cannot be placed now."""

    reason: Reason
    message: str


class Placement:
    """The engines, as placing sees them.

    Filter: usable (a runner there is alive, able and not draining), not earmarked for another
    size, memory and cpus free. Rank:

    1. a runner there has a sandbox free for the call;
    2. a runner there has sandboxes that the call could use, all of them busy or on their way, and
       the engine has cpus to spare: so a burst on a cold route fills a few runners rather than
       touching all, and one runner does not get it all;
    3. the image is on disk.

    Among equals, the one with clearly enough free, then with the most free memory, less what idle
    sandboxes keep of it; then the lowest engine id. Free memory is compared by level, and exactly
    among the first `COMPARED` engines of the highest one.

    Example: a call needs 200 MB and 1 cpu for image `hello`. Engine a has 900 MB and 0.5 cpus
    free: filtered out. b has 800 MB and 2 cpus, c has 500 MB and 1 cpu and `hello` on disk: c
    ranks first, for the image. Without `hello` on c, b would, with 800 > 500 MB. With a sandbox
    free for the call on b, b would too, whatever c has on disk.
    """

    def __init__(self) -> None:
        self._engines: dict[str, _Engine] = {}
        #: The engine of the runner with the bit 1 << n.
        self._of: dict[int, _Engine] = {}
        self._memory = Levels()
        self._cpus = Levels()
        #: Sets of runners: all usable ones; those whose engines have cpus to spare; by image.
        self._usable = 0
        self._spare = 0
        self._images: dict[str, int] = {}
        #: The engine kept free for calls of one size, and that size.
        self._earmark: tuple[str, Size] | None = None
        #: Engines whose place in the sets is to be found anew before it counts.
        self._stale: list[_Engine] = []
        self._shortages: dict[Size, Shortage] = {}
        self._could: dict[Size, bool] = {}

    def describe(
        self,
        engine_id: str,
        *,
        offered: Size,
        images: tuple[str, ...],
        usable: int,
        staying: bool,
    ) -> None:
        """Add an engine, or say what has changed about it; `usable` is a set of runners."""
        engine = self._engines.get(engine_id)
        if engine is None:
            engine = self._engines[engine_id] = _Engine(engine_id)
        if usable != engine.usable:
            self._leave_sets(engine)
            engine.images, engine.usable = images, usable
            self._join_sets(engine)
        elif images != engine.images:
            for image in set(images) ^ set(engine.images):
                self._toggle_image(image, usable)
            engine.images = images
        engine.offered, engine.staying = offered, staying
        self._changed(engine)
        self._could.clear()

    def set_free(self, engine_id: str, free: Size) -> None:
        """Say how much of a known engine is free now."""
        engine = self._engines.get(engine_id)
        if engine is None:
            return
        engine.free = free
        self._changed(engine)

    def set_idle(self, engine_id: str, idle_mb: int) -> None:
        """Say how much memory of an engine idle sandboxes keep."""
        engine = self._engines.get(engine_id)
        if engine is not None and engine.idle_mb != idle_mb:
            engine.idle_mb = idle_mb
            self._changed(engine)

    def remove(self, engine_id: str) -> None:
        """Forget an engine whose last runner is gone."""
        engine = self._engines.pop(engine_id, None)
        if engine is None:
            return
        self._leave_sets(engine)
        engine.usable = 0
        self._shortages.clear()
        self._could.clear()
        if self._earmark and self._earmark[0] == engine_id:
            self._earmark = None

    def best(
        self,
        size: Size,
        image: str,
        *,
        room: int = ANYWHERE,
        ready: int = 0,
        home: int = 0,
        full: int = 0,
    ) -> Spot | None:
        """Return where a call should run; None if nowhere now.

        All are sets of runners. `room`: where to look; `ready`: those with a sandbox free for the
        call; `home`: those that have one for it, or are about to; `full`: those that may not get
        it, however much is free.
        """
        among = self.open_to(size)
        if room != ANYWHERE:
            among &= room
        if full:
            among &= ~full
        if among.bit_count() <= COMPARED:
            among = self._fitting(among, size)
            if not among & (among - 1):
                return self._only(among)
        near = among & ready
        engine = self._freest(near, size) if near else None
        if engine is not None:
            return Spot(engine.engine_id, among & engine.usable, ready)
        engine = self._best_without_a_free_one(among, size, image, home)
        return Spot(engine.engine_id, among & engine.usable, home) if engine is not None else None

    def _best_without_a_free_one(
        self, among: int, size: Size, image: str, home: int
    ) -> _Engine | None:
        """Return the engine where a sandbox should be started; None if nowhere now."""
        if home:
            self._settle()
            near = among & home & self._spare
            engine = self._freest(near, size) if near else None
            if engine is not None:
                return engine
        near = among & self._images.get(image, 0)
        engine = self._freest(near, size) if near else None
        return engine if engine is not None else self._freest(among, size)

    def open_to(self, size: Size) -> int:
        """Return the usable runners whose engines are not earmarked for another size."""
        if self._earmark and self._earmark[1] != size:
            return self._usable & ~self._engines[self._earmark[0]].usable
        return self._usable

    def kept_for(self, engine_id: str) -> Size | None:
        """Return the size that an engine is kept for; None if for no one."""
        return self._earmark[1] if self._earmark and self._earmark[0] == engine_id else None

    def usable(self, engine_id: str) -> int:
        """Return an engine's usable runners."""
        engine = self._engines.get(engine_id)
        return engine.usable if engine else 0

    def free(self, engine_id: str) -> Size | None:
        """Return what an engine was last said to have free; None if it is not known."""
        engine = self._engines.get(engine_id)
        return engine.free if engine else None

    def could_ever(self, size: Size) -> bool:
        """Say whether some engine would take a call of this size if it were idle."""
        known = self._could.get(size)
        if known is None:
            known = any(e.staying and e.offered.covers(size) for e in self._engines.values())
            self._could[size] = known
        return known

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

    def check(self) -> None:
        """Raise AssertionError unless the sets are what the engines say. For tests."""
        fresh = Placement()
        for engine in self._engines.values():
            fresh._join_sets(engine)
            levels = (
                level(engine.free.memory_mb),
                level(engine.free.millicpus),
                _has_spare(engine),
            )
            listed = (engine.memory_level, engine.cpus_level, engine.spare)
            if listed != levels and engine not in self._stale:
                raise AssertionError(f"{engine} should be at {levels}")
        if self._sets() != fresh._sets():
            raise AssertionError(f"{self._sets()} should be {fresh._sets()}")

    def _sets(self) -> tuple[object, ...]:
        levels = (list(each.descending(-1)) for each in (self._memory, self._cpus))
        return (self._usable, self._spare, self._images, *levels)

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

    def _freest(self, candidates: int, size: Size) -> _Engine | None:
        """Return the engine that ranks first among those of some runners; None if it fits nowhere.

        Engines that have enough for sure come first: they need not be looked at one by one.
        """
        if not candidates & (candidates - 1):
            engine = self._of[candidates.bit_length() - 1]
            return engine if engine.free.covers(size) else None
        self._settle()
        if candidates.bit_count() <= COMPARED:
            return self._first(candidates, size)
        least = least_levels(size)
        sure = candidates & self._cpus.from_(least.sure_cpus)
        found = self._by_level(sure, least.sure_memory, size) if sure else None
        if found is not None:
            return found
        perhaps = candidates & self._cpus.from_(least.cpus)
        return self._by_level(perhaps, least.memory, size) if perhaps else None

    def _by_level(self, candidates: int, least: int, size: Size) -> _Engine | None:
        """Return the first engine of the highest level of memory where one fits."""
        for runners in self._memory.descending(least):
            among = runners & candidates
            found = self._first(among, size) if among else None
            if found is not None:
                return found
        return None

    def _first(self, among: int, size: Size) -> _Engine | None:
        """Return the engine that ranks first, comparing the first `COMPARED` that fit."""
        memory_mb, millicpus = size
        best: _Engine | None = None
        left = COMPARED
        while among and left:
            engine = self._of[(among & -among).bit_length() - 1]
            among ^= among & engine.usable
            if engine.free[0] >= memory_mb and engine.free[1] >= millicpus:
                left -= 1
                if best is None or engine.rank < best.rank:
                    best = engine
        return best

    def _fitting(self, among: int, size: Size) -> int:
        """Return those of a few runners whose engines can take a call of this size."""
        memory_mb, millicpus = size
        found = 0
        while among:
            engine = self._of[(among & -among).bit_length() - 1]
            if engine.free[0] >= memory_mb and engine.free[1] >= millicpus:
                found |= among & engine.usable
            among &= ~engine.usable
        return found

    def _only(self, runner: int) -> Spot | None:
        """Return the spot of the only runner that is left; None if there is none."""
        if not runner:
            return None
        return Spot(self._of[runner.bit_length() - 1].engine_id, runner, runner)

    def _join_sets(self, engine: _Engine) -> None:
        runners = engine.usable
        for slot in _slots(runners):
            self._of[slot] = engine
        self._usable |= runners
        self._memory.add(runners, engine.memory_level)
        self._cpus.add(runners, engine.cpus_level)
        if engine.spare:
            self._spare |= runners
        for image in set(engine.images):
            self._toggle_image(image, runners)

    def _leave_sets(self, engine: _Engine) -> None:
        runners = engine.usable
        self._usable ^= runners
        self._memory.discard(runners, engine.memory_level)
        self._cpus.discard(runners, engine.cpus_level)
        if engine.spare:
            self._spare ^= runners
        for image in set(engine.images):
            self._toggle_image(image, runners)

    def _toggle_image(self, image: str, runners: int) -> None:
        now = self._images.get(image, 0) ^ runners
        if now:
            self._images[image] = now
        else:
            self._images.pop(image, None)

    def _changed(self, engine: _Engine) -> None:
        if self._shortages:
            self._shortages.clear()
        if not engine.stale:
            engine.stale = True
            self._stale.append(engine)

    def _settle(self) -> None:
        """Bring the sets up to what is free.

        Put off until sets are asked: where a call finds its own runner, or where all are full,
        they are not.
        """
        for engine in self._stale:
            engine.stale = False
            memory_mb, millicpus = engine.free
            memory_level, cpus_level = level(memory_mb), level(millicpus)
            if memory_level != engine.memory_level:
                self._memory.move(engine.usable, engine.memory_level, memory_level)
                engine.memory_level = memory_level
            if cpus_level != engine.cpus_level:
                self._cpus.move(engine.usable, engine.cpus_level, cpus_level)
                engine.cpus_level = cpus_level
            if engine.spare != _has_spare(engine):
                engine.spare = not engine.spare
                self._spare ^= engine.usable
            engine.rank = (-memory_level, engine.idle_mb - memory_mb, engine.engine_id)
        self._stale.clear()


def _slots(runners: int) -> Iterator[int]:
    while runners:
        low = runners & -runners
        runners ^= low
        yield low.bit_length() - 1


def _has_spare(engine: _Engine) -> bool:
    return engine.free.millicpus * SPARE_PART >= engine.offered.millicpus


def _by_free_memory(engine: _Engine) -> tuple[int, str]:
    return (-engine.free.memory_mb, engine.engine_id)
