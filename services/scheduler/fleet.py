"""Which runners are there, and which of them take calls? Known by their heartbeats alone.

Knows nothing of calls, nor of how much of an engine is in use.
"""

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from services.scheduler import ledger
from services.scheduler.ledger import NOTHING, Size
from shared import messages


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

    said: messages.Heartbeat
    offered: Size
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


@dataclass(slots=True)
class _Engine:
    """One container engine and the runners that share it."""

    runners: dict[str, Runner] = field(default_factory=dict)
    #: (load, runner id) of the usable ones, sorted: the first gets the next call.
    order: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EngineView:
    """What placing calls needs to know of an engine."""

    #: The least that any of its runners says the engine offers; nothing without runners.
    offered: Size
    images: tuple[str, ...]
    usable: bool
    #: Whether waiting for it makes sense: it has something to offer, now or soon.
    staying: bool


class Fleet:
    """All runners, by their engines.

    Invariant: an engine's `order` has exactly its usable runners, each with its present load.
    """

    def __init__(self) -> None:
        self._runners: dict[str, Runner] = {}
        self._engines: dict[str, _Engine] = {}

    def __iter__(self) -> Iterator[Runner]:
        return iter(self._runners.values())

    def get(self, runner_id: str) -> Runner | None:
        """Return a runner, if it is known."""
        return self._runners.get(runner_id)

    def beat(self, said: messages.Heartbeat, now_s: float) -> tuple[str, ...]:
        """Take a heartbeat in. Returns the engines that are to be looked at anew."""
        runner = self._runners.get(said.runner_id)
        if runner is None:
            self._add(Runner(said=said, offered=ledger.offer(said), seen_s=now_s))
            return (said.engine_id,)
        if runner.standing is Standing.LEAVING:
            return ()
        runner.seen_s = now_s
        before = runner.said
        if before.engine_id != said.engine_id:
            self.remove(said.runner_id)
            self._add(Runner(said=said, offered=ledger.offer(said), seen_s=now_s))
            return (before.engine_id, said.engine_id)
        with_order = self._out_of_order(runner)
        runner.said, runner.offered = said, ledger.offer(said)
        self._into_order(runner, with_order)
        return (said.engine_id,) if _differ(before, said) else ()

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
        engine = self._out_of_order(runner)
        runner.standing, runner.held_until_s = standing, held_until_s
        self._into_order(runner, engine)

    def held(self, now_s: float) -> list[str]:
        """Return the runners whose time of being `HELD` is over."""
        return [
            runner_id
            for runner_id, runner in self._runners.items()
            if runner.standing is Standing.HELD and runner.held_until_s <= now_s
        ]

    def load(self, runner_id: str, change: int) -> None:
        """Note that a runner has got a call (+1) or is rid of one (-1)."""
        runner = self._runners.get(runner_id)
        if runner is not None:
            engine = self._out_of_order(runner)
            runner.load += change
            self._into_order(runner, engine)

    def pick(self, engine_id: str) -> str:
        """Return the runner of an engine that gets the next call: the least loaded, then by id.

        Raises IndexError unless the engine's view is usable.
        """
        return self._engines[engine_id].order[0][1]

    def view(self, engine_id: str) -> EngineView:
        """Return what placing needs to know of an engine."""
        engine = self._engines.get(engine_id)
        if engine is None:
            return EngineView(NOTHING, (), usable=False, staying=False)
        runners = engine.runners.values()
        latest = max(runners, key=lambda runner: runner.said.sent_ms)
        offered = _least(runner.offered for runner in runners)
        return EngineView(
            offered=offered,
            images=latest.said.images,
            usable=bool(engine.order),
            staying=offered != NOTHING and any(runner.staying for runner in runners),
        )

    def remove(self, runner_id: str) -> str | None:
        """Forget a runner. Returns its engine, to be looked at anew."""
        runner = self._runners.pop(runner_id, None)
        if runner is None:
            return None
        engine = self._out_of_order(runner)
        del engine.runners[runner_id]
        if not engine.runners:
            del self._engines[runner.said.engine_id]
        return runner.said.engine_id

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        for engine_id, engine in self._engines.items():
            usable = sorted((r.load, i) for i, r in engine.runners.items() if r.usable)
            if usable != engine.order:
                raise AssertionError(f"engine {engine_id}: {engine.order} is not {usable}")

    def _add(self, runner: Runner) -> None:
        runner_id = runner.said.runner_id
        self._runners[runner_id] = runner
        engine = self._engines.setdefault(runner.said.engine_id, _Engine())
        engine.runners[runner_id] = runner
        self._into_order(runner, engine)

    def _out_of_order(self, runner: Runner) -> _Engine:
        engine = self._engines[runner.said.engine_id]
        if runner.usable:
            del engine.order[bisect.bisect_left(engine.order, (runner.load, runner.said.runner_id))]
        return engine

    def _into_order(self, runner: Runner, engine: _Engine) -> None:
        if runner.usable:
            bisect.insort(engine.order, (runner.load, runner.said.runner_id))


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
