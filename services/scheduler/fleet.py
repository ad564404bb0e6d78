"""Which runners are there, and which of them take calls? Known by their heartbeats alone.

Knows nothing of calls, nor of how much of an engine is in use.
"""

import bisect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from services.scheduler import ledger
from services.scheduler.ledger import NOTHING, Size
from shared import messages

#: A preferred replica is passed over if it has more than so many calls more than the least loaded.
CLOSE = 4


class Standing(Enum):
    """What the scheduler thinks of a runner, beyond what the runner says of itself."""

    TRUSTED = "trusted"
    #: Its stream was missing at the last assignment: it gets nothing for a moment.
    HELD = "held"
    #: Lost, or gone by its own word: its stream is being reclaimed, its heartbeats are ignored.
    LEAVING = "leaving"


@dataclass(slots=True)
class Runner:
    """One runner process."""

    #: One string for each runner and engine, however often they are named: found without comparing.
    runner_id: str
    engine_id: str
    said: messages.Heartbeat
    offered: Size
    #: Its bit in sets of runners; another runner may get it once this one is forgotten.
    bit: int
    #: Monotonic seconds of its last sign of life.
    seen_s: float
    standing: Standing = Standing.TRUSTED
    #: Until when it is `HELD`, in monotonic seconds.
    held_until_s: float = 0.0
    #: Calls it has been given and that have not ended.
    load: int = 0

    @property
    def usable(self) -> bool:
        """Whether it takes calls now."""
        return self.standing is Standing.TRUSTED and self.said.able and not self.said.draining

    def describe(self) -> str:
        """Return one word for operators."""
        if self.standing is not Standing.TRUSTED:
            return str(self.standing.value)
        if self.said.draining:
            return "draining"
        return "usable" if self.said.able else "unable"

    @property
    def staying(self) -> bool:
        """Whether it is going to take calls, now or once its engine answers again."""
        return self.standing is not Standing.LEAVING and not self.said.draining


@dataclass(frozen=True, slots=True)
class EngineView:
    """What placing calls needs to know of an engine."""

    #: The least that any of its runners says the engine offers; nothing without runners.
    offered: Size
    images: tuple[str, ...]
    #: The bits of its usable runners.
    usable: int
    #: Whether waiting for it makes sense: it has something to offer, now or soon.
    staying: bool


class Fleet:
    """All runners, by their engines.

    Invariant: each runner has a bit of its own, the lowest that was free when it came.
    """

    def __init__(self) -> None:
        self._runners: dict[str, Runner] = {}
        self._engines: dict[str, dict[str, Runner]] = {}
        #: Which runner has the bit 1 << n.
        self._slots: list[Runner | None] = []
        self._vacant: list[int] = []

    def __iter__(self) -> Iterator[Runner]:
        return iter(self._runners.values())

    def get(self, runner_id: str) -> Runner | None:
        """Return a runner, if it is known."""
        return self._runners.get(runner_id)

    def __getitem__(self, runner_id: str) -> Runner:
        return self._runners[runner_id]

    def having(self, bit: int) -> Runner:
        """Return the runner that has a bit. Raises LookupError if none has."""
        runner = self._slots[bit.bit_length() - 1]
        if runner is None:
            raise LookupError(bit)
        return runner

    def beat(self, said: messages.Heartbeat, now_s: float) -> tuple[str, ...]:
        """Take a heartbeat in. Returns the engines that are to be looked at anew."""
        runner = self._runners.get(said.runner_id)
        if runner is None:
            return (self._add(said, now_s).engine_id,)
        if runner.standing is Standing.LEAVING:
            return ()
        before, engine_id = runner.said, runner.engine_id
        runner.said, runner.offered, runner.seen_s = said, ledger.offer(said), now_s
        if said.engine_id != engine_id:
            self._leave_engine(runner)
            runner.engine_id = sys.intern(said.engine_id)
            self._engines.setdefault(runner.engine_id, {})[runner.runner_id] = runner
            return (engine_id, runner.engine_id)
        return (engine_id,) if _differ(before, said) else ()

    def silent(self, now_s: float, longest_s: float) -> list[str]:
        """Return the runners that have given no sign of life for longer than `longest_s`."""
        return [
            runner_id
            for runner_id, runner in self._runners.items()
            if now_s - runner.seen_s > longest_s and runner.standing is not Standing.LEAVING
        ]

    def forgive(self, now_s: float) -> None:
        """Give every runner a fresh window: it was we who could not hear."""
        for runner in self._runners.values():
            runner.seen_s = now_s

    def stand(self, runner_id: str, standing: Standing, held_until_s: float = 0.0) -> None:
        """Change what is thought of a runner."""
        runner = self._runners[runner_id]
        runner.standing, runner.held_until_s = standing, held_until_s

    def held(self, now_s: float) -> list[str]:
        """Return the runners whose time of being `HELD` is over."""
        return [
            runner_id
            for runner_id, runner in self._runners.items()
            if runner.standing is Standing.HELD and runner.held_until_s <= now_s
        ]

    def pick(self, engine_id: str, among: int, preferred: int) -> Runner:
        """Return the runner of an engine that gets the next call, of those whose bits are given.

        The least loaded one, then by id; but a preferred one first, if it is not clearly busier.
        Raises ValueError if there is none.

        Example: of three replicas, a has 7 calls, b 3, and c 2. a and b are preferred: b gets the
        call, though c has less. With 2 + `CLOSE` + 1 calls at b, and more at a, c would get it.
        """
        runners = self._engines[engine_id]
        if len(runners) == 1:
            return next(iter(runners.values()))
        least = min((r for r in runners.values() if r.bit & among), key=_by_load)
        warm = [r for r in runners.values() if r.bit & preferred & among]
        if not warm:
            return least
        best = min(warm, key=_by_load)
        return best if best.load - least.load <= CLOSE else least

    def idle_mb(self, engine_id: str) -> int:
        """Return the memory of sandboxes on an engine that give way to calls, in MB."""
        runners = self._engines.get(engine_id, {})
        return sum(runner.said.idle_memory_mb for runner in runners.values())

    def view(self, engine_id: str) -> EngineView:
        """Return what placing needs to know of an engine."""
        runners = self._engines.get(engine_id, {}).values()
        if not runners:
            return EngineView(NOTHING, (), usable=0, staying=False)
        latest = max(runners, key=lambda runner: runner.said.sent_ms)
        offered = _least(runner.offered for runner in runners)
        return EngineView(
            offered=offered,
            images=latest.said.images,
            usable=sum(runner.bit for runner in runners if runner.usable),
            staying=offered != NOTHING and any(runner.staying for runner in runners),
        )

    def remove(self, runner_id: str) -> str | None:
        """Forget a runner. Returns its engine, to be looked at anew."""
        runner = self._runners.pop(runner_id, None)
        if runner is None:
            return None
        slot = runner.bit.bit_length() - 1
        self._slots[slot] = None
        bisect.insort(self._vacant, slot)
        self._leave_engine(runner)
        return runner.engine_id

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        for runner in self._runners.values():
            if self.having(runner.bit) is not runner:
                raise AssertionError(f"{runner} has the bit of another")
        by_engine = {r.runner_id: e for e, rs in self._engines.items() for r in rs.values()}
        if by_engine != {r.said.runner_id: r.said.engine_id for r in self}:
            raise AssertionError(f"engines {by_engine}")

    def _add(self, said: messages.Heartbeat, now_s: float) -> Runner:
        slot = self._vacant.pop(0) if self._vacant else len(self._slots)
        runner = Runner(
            runner_id=sys.intern(said.runner_id),
            engine_id=sys.intern(said.engine_id),
            said=said,
            offered=ledger.offer(said),
            bit=1 << slot,
            seen_s=now_s,
        )
        if slot == len(self._slots):
            self._slots.append(runner)
        else:
            self._slots[slot] = runner
        self._runners[runner.runner_id] = runner
        self._engines.setdefault(runner.engine_id, {})[runner.runner_id] = runner
        return runner

    def _leave_engine(self, runner: Runner) -> None:
        del self._engines[runner.engine_id][runner.runner_id]
        if not self._engines[runner.engine_id]:
            del self._engines[runner.engine_id]


def _by_load(runner: Runner) -> tuple[int, str]:
    return (runner.load, runner.runner_id)


def _differ(before: messages.Heartbeat, said: messages.Heartbeat) -> bool:
    """Say whether a heartbeat changes anything for placing."""
    return (
        before.memory_mb != said.memory_mb
        or before.cpus != said.cpus
        or before.able != said.able
        or before.draining != said.draining
        or before.images != said.images
    )


def _least(offers: Iterable[Size]) -> Size:
    offers = list(offers)
    return Size(min(o.memory_mb for o in offers), min(o.millicpus for o in offers))
