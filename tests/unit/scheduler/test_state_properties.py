"""Whatever happens in whatever order: sums balance, no call is in two places, none is lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from services.scheduler import events
from services.scheduler.events import Command, Waiting
from shared import messages
from tests.unit.scheduler.build import Driver, call, head, heartbeat

RUNNERS = st.sampled_from([f"r{n}" for n in range(4)])
APPS = st.sampled_from(["a", "b", "c"])
MODES: st.SearchStrategy[messages.Mode] = st.sampled_from(["sync", "async"])
ARRIVAL = st.tuples(APPS, MODES, st.sampled_from([100, 250, 600]), st.sampled_from([0.5, 2.0]))


class World(RuleBasedStateMachine):
    """A small honest model of Redis around the state: where each call's entry is.

    `waiting`: entries of calls:*; `held`: entries of runners' streams; `ended`: neither.
    """

    def __init__(self) -> None:
        super().__init__()
        self.given = Driver(sync_backlog_max=6, async_backlog_max=8)
        self.count = 0
        self.waiting: dict[str, Waiting] = {}
        self.held: dict[str, str] = {}
        self.containers: dict[str, str] = {}
        self.ended: set[str] = set()
        self.streams: set[str] = set()
        self.alive: dict[str, messages.Heartbeat] = {}
        self.reclaiming: set[str] = set()

    # -- what the shell does with commands

    def send(self, *given: events.Event, after_s: float = 0.0) -> None:
        for event in given:
            self.perform(self.given(event, after_s=after_s))
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
            self.beat(runner, 1000, able=True)

    @rule(runner=RUNNERS, memory_mb=st.sampled_from([0, 300, 500, 1000]), able=st.booleans())
    def beat(self, runner: str, memory_mb: int, able: bool) -> None:  # noqa: FBT001 (drawn)
        engine = "shared" if runner in {"r0", "r1"} else runner
        said = heartbeat(runner, engine_id=engine, memory_mb=memory_mb, able=able, cpus=4.0)
        if runner not in self.reclaiming:
            self.alive[runner] = said
            self.streams.add(runner)
        self.send(said)

    @rule(arrivals=st.lists(ARRIVAL, min_size=1, max_size=6))
    def arrive(self, arrivals: list[tuple[str, messages.Mode, int, float]]) -> None:
        calls = []
        for app, mode, memory_mb, cpus in arrivals:
            self.count += 1
            new = call(f"c{self.count}", mode, app=app, memory_mb=memory_mb, cpus=cpus)
            self.waiting[new.head.call_id] = new
            calls.append(new)
        self.send(events.CallsArrived(tuple(calls)))

    @rule(runner=RUNNERS, arrival=ARRIVAL)
    def arrive_where_the_stream_is_missing(
        self, runner: str, arrival: tuple[str, messages.Mode, int, float]
    ) -> None:
        self.stream_lost(runner)
        self.arrive([arrival])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.held)))
        self.containers[call_id] = self.held.pop(call_id)
        self.ended.add(call_id)

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
        held = self.given.state.ledger.get(call_id)
        assert held is not None
        self.back(call_id, held.app, held.size.memory_mb, held.size.millicpus / 1000)

    def back(self, call_id: str, app: str, memory_mb: int, cpus: float) -> None:
        del self.held[call_id]
        new = call(call_id, "async", app=app, memory_mb=memory_mb, cpus=cpus)
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
            held = self.given.state.ledger.get(call_id)
            assert held is not None
            self.back(call_id, held.app, held.size.memory_mb, held.size.millicpus / 1000)
        self.containers = {c: at for c, at in self.containers.items() if at != runner}
        self.reclaiming.discard(runner)
        self.alive.pop(runner, None)
        self.streams.discard(runner)
        self.send(events.RunnerReclaimed(runner))

    @rule(seconds=st.sampled_from([0.25, 1.0, 1.9, 30.0]), caught_up=st.booleans())
    def time_passes(self, seconds: float, caught_up: bool) -> None:  # noqa: FBT001 (drawn)
        self.send(events.Tick(caught_up=caught_up), after_s=seconds)

    # -- what must hold

    def agree(self) -> None:
        """What runners hold is reserved; what waits is known, or in Redis for a later read."""
        state = self.given.state
        for call_id, runner_id in (self.held | self.containers).items():
            held = state.ledger.get(call_id)
            assert held is not None, call_id
            assert held.runner_id == runner_id
        for call_id, call_ in self.waiting.items():
            if call_.head.mode == "sync":
                assert state.backlog.get(call_id) == call_, call_id
        assert state.backlog.async_waiting <= 8 + len(self.held)
        assert not self.ended & set(self.waiting)

    def teardown(self) -> None:
        """With enough room at last, every call that waits is placed and ends."""
        for runner in sorted(self.reclaiming):
            self.reclaim()
            assert runner not in self.reclaiming
        said = heartbeat("last", memory_mb=10**6, cpus=10**4)
        self.streams.add("last")
        for _ in range(self.count + 40):
            self.send(said, events.Tick(caught_up=True), after_s=0.5)
            while self.reclaiming:
                self.reclaim()
            for call_id, runner_id in [*self.held.items(), *self.containers.items()]:
                self.held.pop(call_id, None)
                self.containers.pop(call_id, None)
                self.ended.add(call_id)
                self.send(messages.ExecutionFinished(runner_id, call_id))
        assert not self.waiting
        assert len(self.ended) == self.count
        assert not len(self.given.state.backlog)


World.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestWorld = World.TestCase
