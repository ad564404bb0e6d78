"""How many decisions a second does the scheduler's state make, with 10, 100 and 1,000 runners?

Run with `python -m tests.bench.scheduler_state`: a table of all loads; with `--json` what the
benchmark wants of it, few runners and many of one load.

No I/O: it drives the pure state alone, with calls of 10,000 routes that arrive and end in batches,
as the shell would hand them over, and with the heartbeats of runners that keep sandboxes. Calls of
routes that are called often go past the state, as they do past the scheduler, and are no decisions.
Only the time inside the state counts, with the garbage collector at rest as in the service.
"""

import gc
import itertools
import random
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from services.scheduler import events
from services.scheduler.events import Now
from services.scheduler.settings import Settings
from services.scheduler.state import State
from shared import messages, service

Load = Literal["half full", "saturated", "hot"]
LOADS: tuple[Load, ...] = ("half full", "saturated", "hot")
FEW, MANY = 10, 1000
RUNNERS = (FEW, 100, MANY)

ROUTES = 10_000
APPS = 500
IMAGES = 1000
DECISIONS = 20_000
#: Parts of a measurement, when several take turns.
SLICES = 20
BATCH = 50
#: Calls a second that the simulated clients make: each runner beats once in so many calls.
CALLS_PER_S = 20_000
EPOCH_MS = 1_700_000_000_000
SIZES = ((128, 0.5), (128, 1.0), (256, 1.0), (512, 1.0), (1024, 2.0))
#: Every so many routes one is hot, with up to so many sandboxes a runner.
HOT_EVERY = 5
MOST = (1, 2, 4, 8)
#: Sandboxes that a runner keeps.
KEPT = 64
#: Seconds between two ticks, as in the service.
TICK_S = 0.25
#: Calls under way for each runner, on average.
UNDER_WAY: dict[Load, int] = {"half full": 8, "saturated": 1000, "hot": 16}


@dataclass(frozen=True, slots=True)
class Figures:
    """What deciding cost, with so many runners under one load."""

    runners: int
    load: Load
    decisions: int
    us_each: float
    #: Part of the calls that were given to a runner with a sandbox free for them.
    warm: float

    @property
    def decisions_per_s(self) -> float:
        """How many decisions one core makes in a second."""
        return 1e6 / self.us_each


@dataclass(slots=True)
class Simulated:
    """A runner as the state knows it: its calls, and the sandboxes it keeps, by key."""

    number: int
    kept: OrderedDict[str, int] = field(default_factory=OrderedDict)
    busy: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def take(self, key: str, most: int) -> bool:
        """Start a call; says whether a sandbox was free."""
        self.calls += 1
        self.busy[key] += 1
        kept = self.kept.pop(key, 0)
        warm = kept >= self.busy[key]
        needed = min(self.busy[key], most) if most else self.busy[key]
        self.kept[key] = max(kept, needed)
        return warm

    def finish(self, key: str) -> None:
        self.calls -= 1
        self.busy[key] -= 1

    def beat(self) -> messages.Heartbeat:
        """Give sandboxes up that are too many, and say what is left."""
        while sum(self.kept.values()) > KEPT and not self.busy[next(iter(self.kept))]:
            self.kept.popitem(last=False)
        counts = tuple(
            messages.SandboxCount("app", "/", key, max(kept - self.busy[key], 0), self.busy[key], 0)
            for key, kept in self.kept.items()
        )
        return messages.Heartbeat(
            runner_id=f"runner{self.number}",
            engine_id=f"engine{self.number}",
            sent_ms=EPOCH_MS,
            memory_mb=8192,
            cpus=16.0,
            arch="amd64",
            images=tuple(f"image{n}" for n in range(self.number % 10, IMAGES, 10)),
            running=self.calls,
            sandboxes=counts,
            idle_memory_mb=sum(count.idle for count in counts) * 128,
        )


@dataclass(slots=True)
class Granted:
    """A grant as Redis has it: calls of one kind that may go to a runner past the state."""

    grant_id: str
    runner_id: str
    free: int = 0


class UnderWay(NamedTuple):
    """A call at a runner; `grant_id`: by which grant it came, "" if the state gave it."""

    call_id: str
    runner_id: str
    key: str
    grant_id: str = ""


class Simulation:
    """A state, its runners and its clients."""

    def __init__(self, runners: int, load: Load) -> None:
        self.runners = {f"runner{n}": Simulated(n) for n in range(runners)}
        self.load: Load = load
        self.state = State(Settings(sync_backlog_max=10**6))
        self.now = Now(1.0, EPOCH_MS)
        self.decided = self.warm = 0
        self.spent_s = 0.0
        self._under_way: deque[UnderWay] = deque()
        self._granted: dict[str, Granted] = {}
        self._recalled: list[events.GrantRecalled] = []
        self._ticked_s = self.now.s
        self._next_beats = itertools.cycle(self.runners.values())
        self._beats_due = 0.0
        self._calls = _calls(load)

    def warm_up(self) -> None:
        """Let runners and calls come, until there are sandboxes and the load is what it will be."""
        self._handle(events.Rebuilt(tuple(r.beat() for r in self.runners.values()), ()))
        if self.load == "saturated":
            self._arrive(len(self.runners) * 20 + 200)
        self.decide(DECISIONS)
        self.decided = self.warm = 0
        self.spent_s = 0.0

    def decide(self, count: int) -> None:
        """Go on until so many more calls have been given to runners."""
        enough = self.decided + count
        while self.decided < enough:
            self._turn()

    def figures(self) -> Figures:
        """Return what deciding has cost since the warming up."""
        each_us = self.spent_s / self.decided * 1e6
        warm = self.warm / self.decided
        return Figures(len(self.runners), self.load, self.decided, each_us, warm)

    def _turn(self) -> None:
        self._arrive(BATCH)
        limit = UNDER_WAY[self.load] * len(self.runners)
        ends = BATCH if self.load == "saturated" else max(len(self._under_way) - limit, 0)
        self._handle(*filter(None, [self._end() for _ in range(ends)]))
        recalled, self._recalled = self._recalled, []
        self._handle(*recalled)
        passed_s = BATCH / CALLS_PER_S
        self.now = Now(self.now.s + passed_s, self.now.ms + round(passed_s * 1000))
        self._beats_due += len(self.runners) * passed_s
        beats = int(self._beats_due)
        self._beats_due -= beats
        self._handle(*(next(self._next_beats).beat() for _ in range(beats)))
        if self.now.s - self._ticked_s >= TICK_S:
            self._ticked_s = self.now.s
            self._handle(events.Tick(caught_up=True))

    def _end(self) -> messages.ExecutionFinished | None:
        """End a call; return what is told of it, nothing if its place is left to the next one."""
        call_id, runner_id, key, grant_id = self._under_way.popleft()
        self.runners[runner_id].finish(key)
        granted = self._granted.get(key)
        if grant_id and granted and granted.grant_id == grant_id:
            granted.free += 1
            return None
        return messages.ExecutionFinished(runner_id, call_id, grant_id)

    def _arrive(self, count: int) -> None:
        came = itertools.islice(self._calls, count)
        self._handle(events.CallsArrived(tuple(c for c in came if not self._goes_past(c))))

    def _goes_past(self, call: events.Waiting) -> bool:
        """Let a call take a free place, if there is one."""
        head = call.head
        granted = self._granted.get(head.sandbox_key)
        if granted is None or not granted.free:
            return False
        granted.free -= 1
        self.runners[granted.runner_id].take(head.sandbox_key, head.max_concurrency)
        there = UnderWay(head.call_id, granted.runner_id, head.sandbox_key, granted.grant_id)
        self._under_way.append(there)
        return True

    def _handle(self, *given: events.Event) -> None:
        began_s = time.process_time()
        commands = [self.state.handle(event, self.now) for event in given]
        self.spent_s += time.process_time() - began_s
        for command in itertools.chain.from_iterable(commands):
            match command:
                case events.AssignCall():
                    self._assign(command)
                case events.GrantPlace(grant_id=grant_id, kind=kind, runner_id=runner_id):
                    self._granted.setdefault(kind, Granted(grant_id, runner_id)).free += 1
                case events.RecallGrant():
                    self._recall(command)
                case _:
                    pass

    def _recall(self, command: events.RecallGrant) -> None:
        granted = self._granted[command.kind]
        self._recalled.append(events.GrantRecalled(command.grant_id, granted.free))
        granted.free = 0
        if command.close:
            del self._granted[command.kind]

    def _assign(self, command: events.AssignCall) -> None:
        head = command.call.head
        self.decided += 1
        runner = self.runners[command.runner_id]
        self.warm += runner.take(head.sandbox_key, head.max_concurrency)
        self._under_way.append(UnderWay(head.call_id, command.runner_id, head.sandbox_key))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    thresholds = gc.get_threshold()
    service.rest_garbage_collector()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def _calls(load: Load) -> Iterator[events.Waiting]:
    """Yield calls of all routes, of some more often than of others; `hot`: of a few hot ones."""
    chance = random.Random(1)
    routes = range(0, ROUTES, HOT_EVERY)[:50] if load == "hot" else range(ROUTES)
    weights = list(itertools.accumulate(1 / (10 + place) for place in range(len(routes))))
    for number in itertools.count(1):
        route = chance.choices(routes, cum_weights=weights)[0]
        memory_mb, cpus = SIZES[route // HOT_EVERY % len(SIZES)]
        most = 0 if route % HOT_EVERY else MOST[route // HOT_EVERY % len(MOST)]
        head = messages.CallHead(
            call_id=f"call{number}",
            mode="sync",
            app=f"app{route % APPS}",
            path=f"/{route}",
            image=f"image{route % IMAGES}",
            memory_mb=memory_mb,
            cpus=cpus,
            accepted_ms=EPOCH_MS,
            wait_until_ms=EPOCH_MS + 30_000,
            deadline_ms=EPOCH_MS + 60_000,
            reply_to="api",
            timeout_ms=30_000,
            format="http" if most else "default",
            max_concurrency=most,
            sandbox_key=f"key{route}",
        )
        yield events.waiting(b"%d-0" % number, head)


def take_turns(*simulations: Simulation) -> list[Figures]:
    """Return the figures of simulations that run slice by slice, warmed up before.

    So whatever else the machine does meets them all, and their ratio says something.
    """
    for simulation in simulations:
        simulation.warm_up()
    with _collector_at_rest():
        for simulation in simulations * SLICES:
            simulation.decide(DECISIONS // SLICES)
    return [simulation.figures() for simulation in simulations]


def measure() -> list[Figures]:
    """Return the figures of all loads, each with few and with many runners."""
    by_load = (take_turns(*(Simulation(runners, load) for runners in RUNNERS)) for load in LOADS)
    return [*itertools.chain.from_iterable(by_load)]


def table(figures: list[Figures]) -> str:
    """Return a Markdown table; the last column compares with the fewest runners."""
    lines = [
        "| load | runners | decisions/s | µs each | warm | cost, 10 runners = 1 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    few = {each.load: each.us_each for each in figures if each.runners == min(RUNNERS)}
    lines += [
        f"| {each.load} | {each.runners} | {each.decisions_per_s:.0f} | {each.us_each:.1f} "
        f"| {each.warm:.0%} | {each.us_each / few[each.load]:.2f} |"
        for each in figures
    ]
    return "\n".join(lines)


def few_and_many() -> list[Figures]:
    """Return the figures of few runners and of many, taking turns."""
    return take_turns(*(Simulation(runners, "half full") for runners in (FEW, MANY)))


if __name__ == "__main__":
    as_json = sys.argv[1:] == ["--json"]
    told = msgspec.json.encode(few_and_many()).decode() if as_json else table(measure())
    sys.stdout.write(f"{told}\n")
