"""Whatever happens in whatever order: sums balance, no call is in two places, none is lost."""

from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from services.scheduler import events, ledger
from services.scheduler.events import Command, Waiting
from shared import messages
from tests.unit.scheduler.build import Driver, call, head, heartbeat

RUNNERS = st.sampled_from([f"r{n}" for n in range(4)])
APPS = st.sampled_from(["a", "b", "c"])
MODES: st.SearchStrategy[messages.Mode] = st.sampled_from(["sync", "async"])
#: A route's key and its `max_concurrency`: plain ones, and hot ones with short lines.
ROUTES = [("", 0), ("plain", 0), ("h", 1), ("i", 2), ("i", 3)]
ARRIVAL = st.tuples(
    APPS,
    MODES,
    st.sampled_from([100, 250, 600]),
    st.sampled_from([0.5, 2.0]),
    st.sampled_from(ROUTES),
)
Arrival = tuple[str, messages.Mode, int, float, tuple[str, int]]
COUNT = st.builds(
    messages.SandboxCount,
    app=st.just("a"),
    path=st.just("/p"),
    sandbox_key=st.sampled_from(["plain", "h", "i"]),
    idle=st.integers(0, 2),
    busy=st.integers(0, 2),
    starting=st.integers(0, 1),
)


def fields(arrival: Arrival) -> dict[str, Any]:
    """What the head of such a call has."""
    app, _, memory_mb, cpus, (key, most) = arrival
    return {
        "app": app,
        "memory_mb": memory_mb,
        "cpus": cpus,
        "sandbox_key": key,
        "max_concurrency": most,
    }


class World(RuleBasedStateMachine):
    """A small honest model of Redis around the state: where each call's entry is.

    `waiting`: entries of calls:*; `held`: entries of runners' streams; `ended`: neither. `granted`:
    by kind, an open grant, its runner and its free places; `by_grant`: calls that came by one;
    `granted_at`: by grant, its runner, until that one's capacity is given to others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.short_lines = mock.patch.object(ledger, "QUEUED_MAX", 2)
        self.short_lines.start()
        self.given = Driver(sync_backlog_max=6, async_backlog_max=8)
        self.count = self.reigns = 0
        self.heads: dict[str, messages.CallHead] = {}
        self.waiting: dict[str, Waiting] = {}
        self.held: dict[str, str] = {}
        self.granted: dict[str, list[Any]] = {}
        self.by_grant: dict[str, str] = {}
        self.granted_at: dict[str, str] = {}
        self.recalled: list[events.GrantRecalled] = []
        self.containers: dict[str, str] = {}
        self.ended: set[str] = set()
        self.streams: set[str] = set()
        self.alive: dict[str, messages.Heartbeat] = {}
        self.reclaiming: set[str] = set()

    # -- what the shell does with commands

    def send(self, *given: events.Event, after_s: float = 0.0, agree: bool = True) -> None:
        for event in given:
            self.perform(self.given(event, after_s=after_s))
        if agree:
            self.agree()

    def perform(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case events.AssignCall(call=call, runner_id=runner_id):
                    self.assign(call, runner_id)
                case events.RefuseCall(call=call) | events.CancelWaiting(call=call):
                    if self.waiting.pop(call.head.call_id, None):
                        self.ended.add(call.head.call_id)
                case events.ReclaimRunner(runner_id=runner_id):
                    assert runner_id not in self.reclaiming
                    self.reclaiming.add(runner_id)
                case events.ScanAsync(app=app, from_id=from_id):
                    self.scan(app, from_id)
                case events.GrantPlace(grant_id=grant_id, kind=kind, runner_id=runner_id):
                    self.granted_at[grant_id] = runner_id
                    self.granted.setdefault(kind, [grant_id, runner_id, 0])[2] += 1
                    assert self.granted[kind][0] == grant_id
                case events.RecallGrant(grant_id=grant_id, kind=kind, close=close):
                    self.recall(grant_id, kind, close=close)
                case _:
                    pass

    def assign(self, call: Waiting, runner_id: str) -> None:
        call_id = call.head.call_id
        if runner_id not in self.streams:
            self.perform(self.given(events.AssignFailed(call, runner_id, b"lost")))
        elif self.waiting.get(call_id) != call:
            self.perform(self.given(events.AssignFailed(call, runner_id, b"gone")))
        else:
            del self.waiting[call_id]
            assert call_id not in self.held
            self.held[call_id] = runner_id

    def recall(self, grant_id: str, kind: str, *, close: bool) -> None:
        """What is free is no longer; that this was so is told later."""
        known, _, free = self.granted[kind]
        assert known == grant_id
        self.granted[kind][2] = 0
        if close:
            del self.granted[kind]
        self.recalled.append(events.GrantRecalled(grant_id, free))

    @precondition(lambda self: self.recalled)
    @rule()
    def recall_answered(self) -> None:
        self.send(self.recalled.pop(0))

    def goes_past(self, new: Waiting) -> bool:
        """Whether a call takes a free place of a grant; what Redis does as it is enqueued."""
        grant = self.granted.get(new.head.sandbox_key)
        if new.head.mode != "sync" or not grant or not grant[2] or grant[1] not in self.streams:
            return False
        grant[2] -= 1
        self.by_grant[new.head.call_id] = grant[0]
        self.held[new.head.call_id] = grant[1]
        return True

    def end_by_grant(self, call_id: str) -> None:
        """End a call that came by a grant: its place is free again, or told."""
        runner_id, grant_id = self.held.pop(call_id), self.by_grant.pop(call_id)
        self.ended.add(call_id)
        grant = self.granted.get(self.heads[call_id].sandbox_key)
        if grant and grant[0] == grant_id:
            grant[2] += 1
        else:
            self.send(messages.ExecutionFinished(runner_id, call_id, grant_id))

    def scan(self, app: str, from_id: bytes) -> None:
        least = events.waiting(from_id, head("any")).order
        mine = [
            call
            for call in self.waiting.values()
            if call.head.app == app and call.head.mode == "async" and call.order >= least
        ]
        mine.sort(key=lambda call: call.order)
        page, rest = mine[:3], mine[3:]
        next_id = rest[0].entry_id if rest else None
        self.perform(self.given(events.AsyncScanned(app, tuple(page), next_id)))

    # -- what happens

    @initialize()
    def start(self) -> None:
        for runner in ("r0", "r1", "r2"):
            self.beat(runner, 1000, able=True, counts=[])

    @rule(
        runner=RUNNERS,
        memory_mb=st.sampled_from([0, 300, 500, 1000]),
        able=st.booleans(),
        counts=st.lists(COUNT, max_size=4),
    )
    def beat(
        self,
        runner: str,
        memory_mb: int,
        able: bool,  # noqa: FBT001 (drawn)
        counts: list[messages.SandboxCount],
    ) -> None:
        engine = "shared" if runner in {"r0", "r1"} else runner
        said = heartbeat(
            runner,
            engine_id=engine,
            memory_mb=memory_mb,
            able=able,
            cpus=4.0,
            sandboxes=tuple(counts),
            idle_memory_mb=100 * len(counts),
        )
        if runner not in self.reclaiming:
            self.alive[runner] = said
            self.streams.add(runner)
        self.send(said)

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=6))
    def arrive(self, arrivals: list[Arrival]) -> None:
        calls = []
        for arrival in arrivals:
            self.count += 1
            new = call(f"c{self.count}", arrival[1], **fields(arrival))
            self.heads[new.head.call_id] = new.head
            if not self.goes_past(new):
                self.waiting[new.head.call_id] = new
                calls.append(new)
        self.send(events.CallsArrived(tuple(calls)))

    @rule(arrival=ARRIVAL, count=st.integers(2, 12))
    def burst(self, arrival: Arrival, count: int) -> None:
        self.arrive([arrival] * count)

    @rule(runner=RUNNERS, arrival=ARRIVAL)
    def arrive_where_the_stream_is_missing(self, runner: str, arrival: Arrival) -> None:
        self.stream_lost(runner)
        self.arrive([arrival])

    @rule()
    def a_new_reign_begins(self) -> None:
        """It knows no more than Redis does, and comes to the same charges."""
        self.containers.clear()
        self.reclaiming.clear()
        self.granted.clear()
        self.granted_at.clear()
        self.recalled.clear()
        before = self.charges()
        now_s = self.given.now_s
        self.reigns += 1
        self.given = Driver(self.reigns, sync_backlog_max=6, async_backlog_max=8)
        self.given.now_s = now_s
        held = tuple(events.Held(at, self.heads[call_id]) for call_id, at in self.held.items())
        self.perform(self.given(events.Rebuilt(tuple(self.alive.values()), held)))
        assert self.charges() == before
        waiting = sorted(self.waiting.values(), key=lambda call: call.order)
        self.send(events.CallsArrived(tuple(waiting)))

    def charges(self) -> dict[str, tuple[int, int]]:
        """What each engine should have given to the calls that runners hold, by a plain count."""
        sums: dict[str, tuple[int, int]] = {}
        for runner in self.alive:
            held = [self.heads[call_id] for call_id, at in self.held.items() if at == runner]
            engine = self.alive[runner].engine_id
            for each in charged(held):
                mb, millicpus = sums.get(engine, (0, 0))
                sums[engine] = (mb + each.memory_mb, millicpus + each.millicpus)
        return sums

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        if call_id in self.by_grant and data.draw(st.booleans()):
            self.end_by_grant(call_id)
            return
        runner_id = self.containers[call_id] = self.held.pop(call_id)
        self.ended.add(call_id)
        if call_id in self.by_grant:
            self.send(messages.PlaceKept(runner_id, call_id, self.by_grant.pop(call_id)))

    @precondition(lambda self: self.containers)
    @rule(data=st.data())
    def container_gone(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.containers)))
        runner_id = self.containers.pop(call_id)
        self.send(messages.ExecutionFinished(runner_id, call_id))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        if call_id in self.by_grant:
            runner_id, grant_id = self.held[call_id], self.by_grant.pop(call_id)
            self.send(messages.ExecutionFinished(runner_id, call_id, grant_id), agree=False)
        self.back(call_id)

    def back(self, call_id: str) -> None:
        del self.held[call_id]
        self.by_grant.pop(call_id, None)
        head = self.heads[call_id]
        again = {name: getattr(head, name) for name in head.__struct_fields__}
        again |= {"mode": "async", "wait_until_ms": 0}
        new = call(**again)
        self.heads[call_id] = new.head
        self.waiting[call_id] = new
        self.send(events.CallsArrived((new,)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def taken_by_a_worker(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[call_id]
        self.ended.add(call_id)

    @rule(number=st.integers(1, 60))
    def caller_leaves(self, number: int) -> None:
        self.send(messages.CancelCall(f"c{number}"))

    def stream_lost(self, runner: str) -> None:
        if runner not in self.held.values():
            self.streams.discard(runner)

    @rule(runner=RUNNERS)
    def runner_gone(self, runner: str) -> None:
        if runner in self.alive and runner not in self.reclaiming:
            self.send(messages.RunnerGone(runner))

    @precondition(lambda self: self.reclaiming)
    @rule()
    def reclaim(self) -> None:
        runner = min(self.reclaiming)
        for call_id in [c for c, at in self.held.items() if at == runner]:
            self.back(call_id)
        self.containers = {c: at for c, at in self.containers.items() if at != runner}
        self.reclaiming.discard(runner)
        self.alive.pop(runner, None)
        self.streams.discard(runner)
        self.granted_at = {g: at for g, at in self.granted_at.items() if at != runner}
        self.send(events.RunnerReclaimed(runner))

    @rule(seconds=st.sampled_from([0.25, 1.0, 1.9, 30.0]), caught_up=st.booleans())
    def time_passes(self, seconds: float, caught_up: bool) -> None:  # noqa: FBT001 (drawn)
        self.send(events.Tick(caught_up=caught_up), after_s=seconds)

    # -- what must hold

    def agree(self) -> None:
        """What runners hold is reserved; what waits is known, or in Redis for a later read."""
        state = self.given.state
        for call_id, runner_id in (self.held | self.containers).items():
            if call_id in self.by_grant:
                continue
            held = state.ledger.get(call_id)
            assert held is not None, call_id
            assert held.runner_id == runner_id
        for call_id, call_ in self.waiting.items():
            if call_.head.mode == "sync":
                assert state.backlog.get(call_id) == call_, call_id
        assert state.backlog.async_waiting <= 8 + len(self.held)
        self.agree_on_grants()
        if not self.containers and not state.grants:
            given = {e: tuple(both[1]) for e, both in state.ledger.engines().items()}
            assert {e: g for e, g in given.items() if any(g)} == self.charges()
        assert not self.ended & set(self.waiting)

    def agree_on_grants(self) -> None:
        """Each place is free, in use, or on its way back; what is granted is reserved."""
        places = Counter[str]()
        for grant_id, _, free in self.granted.values():
            places[grant_id] += free
        for recalled in self.recalled:
            places[recalled.grant_id] += recalled.free
        known = self.given.state.grants
        old = {g for g in self.by_grant.values() if known.get(g) is None}
        places.update(g for g in self.by_grant.values() if g not in old)
        for grant_id, count in places.items():
            grant = known.get(grant_id)
            # The answer to a recall may come when all that its runner had has been released.
            reserved = count if grant_id in self.granted_at else 0
            assert len(grant.places if grant else ()) == reserved, (grant_id, count, grant)

    def teardown(self) -> None:
        """With enough room at last, every call that waits is placed and ends."""
        try:
            self.finish()
        finally:
            self.short_lines.stop()

    def finish(self) -> None:
        for runner in sorted(self.reclaiming):
            self.reclaim()
            assert runner not in self.reclaiming
        said = heartbeat("last", memory_mb=10**6, cpus=10**4)
        self.streams.add("last")
        self.alive["last"] = said
        for _ in range(self.count + 40):
            self.send(said, events.Tick(caught_up=True), after_s=0.5)
            while self.reclaiming:
                self.reclaim()
            while self.recalled:
                self.recall_answered()
            for call_id in [*self.by_grant]:
                self.end_by_grant(call_id)
            for call_id, runner_id in [*self.held.items(), *self.containers.items()]:
                self.held.pop(call_id, None)
                self.containers.pop(call_id, None)
                self.ended.add(call_id)
                self.send(messages.ExecutionFinished(runner_id, call_id))
        assert not self.waiting
        assert len(self.ended) == self.count
        assert not len(self.given.state.backlog)
        assert not self.given.state.grants


def charged(heads: list[messages.CallHead]) -> Iterator[ledger.Size]:
    """Which sizes one runner's calls are charged."""
    seen: dict[object, int] = {}
    for each in heads:
        size = ledger.need(each)
        route = (each.app, each.sandbox_key, size, each.max_concurrency)
        seen[route] = seen.get(route, 0) + 1
        if not each.max_concurrency or seen[route] <= each.max_concurrency:
            yield size


World.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestWorld = World.TestCase
