"""Whatever happens in whatever order: each call ends once, no sandbox runs two, none is forgotten.

`Shell` does what `service` does with commands, in a world that `Life` lets go on at random.
"""

from collections import Counter, deque
from dataclasses import dataclass, field, replace

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.runner import runs, state
from services.runner.pool import Kind
from services.runner.state import Alarm, Command, Event, Phase, State
from shared import messages
from tests.unit.runner.builders import NOW_MS, async_head, exited, head, kind

MEMORY_MB = 512
PARCEL = messages.Parcel({}, {}, b"in")
#: Rounds in which everything that is under way happens: enough for all that is here to end.
ROUNDS = 300

#: Routes with what their sandboxes are made of. The last one needs more memory than there is.
ROUTES = (
    kind("plain", memory_mb=128),
    kind("large", memory_mb=384),
    kind("hot", memory_mb=64, format="http", most=4),
    kind("once", memory_mb=64, isolation="call"),
    kind("socket", memory_mb=256, format="http-stream", idle_timeout_ms=1_000),
    kind("vast", memory_mb=600),
)
BEFORE_ITS_END = (
    runs.Broken("x"),
    runs.EngineFailed("x"),
    runs.EngineAway("x"),
    runs.PullFailed("img", "x"),
)
ENDINGS = (
    runs.Exited(0),
    runs.Exited(1),
    runs.BadAnswer("x"),
    runs.Overflowed(8),
    runs.EngineFailed("x"),
    runs.ImageUnusable("x"),
)


@dataclass
class Room:
    """One sandbox of the world."""

    kind: Kind
    #: "opening", "open", "stopped", "removing".
    phase: str = "opening"
    #: The call it runs.
    call_id: str = ""
    uses: int = 0
    #: What its image was when it was opened.
    digest: str = ""


@dataclass
class Shell:
    """Performs commands as `service` does, and looks at each of them with suspicion."""

    state: State = field(
        default_factory=lambda: State("r1", memory_mb=MEMORY_MB, result_max_bytes=10)
    )
    now_ms: int = NOW_MS
    rooms: dict[str, Room] = field(default_factory=dict)
    #: Calls whose parcel is on its way, as often as it was asked for.
    fetching: list[str] = field(default_factory=list)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    #: Calls whose entry is in the runner's stream -> that entry.
    held: dict[str, bytes] = field(default_factory=dict)
    #: Calls that the scheduler has a reservation for.
    reserved: set[str] = field(default_factory=set)
    #: Entries that were ended or handed back.
    settled: Counter[bytes] = field(default_factory=Counter)
    #: Next attempts that wait.
    again: list[messages.CallHead] = field(default_factory=list)
    #: What the next runs come to at once: "refused", "useless", "broken"; else they last.
    fates: deque[str] = field(default_factory=deque)
    digests: dict[str, str] = field(default_factory=dict)
    wanted: tuple[Kind, ...] = ()
    left: bool = False
    _queue: deque[Event] = field(default_factory=deque)

    def apply(self, event: Event) -> None:
        self._queue.append(event)
        while self._queue:
            commands = self.state.handle(self._queue.popleft(), self.now_ms)
            self.state.check()
            for command in commands:
                self.perform(command)
                if isinstance(command, state.TryAgain):
                    self.look_at_next(command.head, command.record)
            self.left = state.Leave() in commands
            assert self.left == (self.state.leaving and not self.state.calls)

    def perform(self, command: Command) -> None:
        match command:
            case state.FetchParcel(call_id):
                self.fetching.append(call_id)
            case state.StartSandbox(sandbox_id, of, _):
                self.start(sandbox_id, of)
            case state.RunCall(sandbox_id, call, _):
                self.run(sandbox_id, call)
            case state.StopSandbox(sandbox_id):
                self.stop(sandbox_id)
            case state.RemoveSandbox(sandbox_id):
                self.remove(sandbox_id)
            case state.SetAlarm(call_id, alarm, delay_ms):
                assert call_id in self.held
                assert delay_ms >= 0
                self.alarms[call_id] = alarm
            case state.EndCall(entry_id, record, _, call, freed, dead):
                assert not dead or (call.mode, record.status) == ("async", "error")
                self.end(entry_id, record.call_id, freed=freed)
            case state.HandBack(entry_id, call, _) | state.TryAgain(entry_id, call, _, _):
                self.end(entry_id, call.call_id, freed=True)
            case state.FreeCapacity(call_id):
                self.reserved.remove(call_id)

    def look_at_next(self, call: messages.CallHead, record: messages.Record) -> None:
        """Look at a next attempt, which comes at some time."""
        assert call.mode == "async"
        assert call.tries is not None
        assert call.tries.own_failures <= call.tries.retries
        assert [failure.number for failure in record.failures] == [call.attempt - 1]
        assert (record.status, record.attempt) == ("queued", call.attempt)
        self.again.append(call)

    def start(self, sandbox_id: str, of: Kind) -> None:
        assert sandbox_id not in self.rooms
        assert not self.state.draining
        assert not self.state.cut
        assert self.state.able
        alike = [r for r in self.rooms.values() if r.kind.key == of.key and r.phase != "removing"]
        assert not of.most or len(alike) < of.most
        self.rooms[sandbox_id] = Room(of)
        used_mb = sum(room.kind.memory_mb for room in self.rooms.values())
        assert used_mb <= MEMORY_MB or len(self.rooms) == 1

    def run(self, sandbox_id: str, call: messages.CallHead) -> None:
        room = self.rooms[sandbox_id]
        assert (room.phase, room.call_id) == ("open", "")
        assert room.kind.key == call.sandbox_key
        assert not (room.kind.once and room.uses)
        assert call.call_id in self.held
        room.call_id = call.call_id
        room.uses += 1
        fate = self.fates.popleft() if self.fates else ""
        if fate == "useless":
            self._queue.append(state.SandboxLost(sandbox_id))
        if fate in {"useless", "refused"}:
            room.call_id = ""
            self._queue.append(state.RunRefused(call.call_id))
        elif fate == "broken":
            self.over(sandbox_id, runs.Result(runs.Broken("x")), reusable=False)

    def over(self, sandbox_id: str, result: runs.Result, *, reusable: bool) -> None:
        room = self.rooms[sandbox_id]
        call_id, room.call_id = room.call_id, ""
        self._queue.append(state.RunEnded(call_id, result, reusable))

    def stop(self, sandbox_id: str) -> None:
        room = self.rooms[sandbox_id]
        assert room.phase == "open"
        assert room.call_id
        room.phase = "stopped"
        self.over(sandbox_id, runs.Result(runs.Stopped()), reusable=False)

    def remove(self, sandbox_id: str) -> None:
        room = self.rooms[sandbox_id]
        assert not room.call_id
        if room.phase == "failed":
            self.gone(sandbox_id)
            return
        assert room.phase in {"open", "stopped"}
        room.phase = "removing"

    def gone(self, sandbox_id: str) -> None:
        del self.rooms[sandbox_id]
        self._queue.append(state.SandboxGone(sandbox_id))

    def end(self, entry_id: bytes, call_id: str, *, freed: bool) -> None:
        self.settled[entry_id] += 1
        assert self.settled[entry_id] == 1, "an entry was settled twice"
        if self.held.get(call_id) == entry_id:
            del self.held[call_id]
            self.alarms.pop(call_id, None)
        if freed:
            self.reserved.remove(call_id)

    # What happens in the world.

    def assign(self, call: messages.CallHead, entry_id: bytes, *, inline: bool = True) -> None:
        self.held[call.call_id] = entry_id
        self.reserved.add(call.call_id)
        assignment = messages.Assignment(1, self.now_ms)
        parcel = PARCEL if inline else None
        self.apply(state.Assigned(entry_id, call, assignment, parcel))

    def opened(self, sandbox_id: str) -> None:
        room = self.rooms[sandbox_id]
        room.phase, room.digest = "open", self.digests.get(room.kind.image, "d0")
        self.apply(state.SandboxReady(sandbox_id, room.digest, 100.0))

    def unopened(self, sandbox_id: str, why: runs.Ending) -> None:
        self.rooms[sandbox_id].phase = "failed"
        self.apply(state.SandboxFailed(sandbox_id, why))

    def finished(self, sandbox_id: str, ending: runs.Ending, *, reusable: bool) -> None:
        result = msgspec.structs.replace(exited(), ending=ending, run_ms=5.0)
        room = self.rooms[sandbox_id]
        call_id, room.call_id = room.call_id, ""
        self.apply(state.RunEnded(call_id, result, reusable))

    def vanished(self, sandbox_id: str) -> None:
        del self.rooms[sandbox_id]
        self.apply(state.SandboxGone(sandbox_id))

    def ring(self, call_id: str) -> None:
        self.apply(state.AlarmRang(call_id, self.alarms.pop(call_id)))

    def pass_time(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        self.apply(state.Ticked())

    def in_phase(self, phase: str) -> list[str]:
        return [sandbox_id for sandbox_id, room in self.rooms.items() if room.phase == phase]

    def busy(self) -> list[str]:
        return [sandbox_id for sandbox_id, room in self.rooms.items() if room.call_id]

    def go_on(self) -> None:
        """Let everything happen that is under way, and nothing else."""
        fetching, self.fetching = self.fetching, []
        for call_id in fetching:
            self.apply(state.ParcelFetched(call_id, PARCEL))
        for sandbox_id in self.in_phase("opening"):
            self.opened(sandbox_id)
        for sandbox_id in self.busy():
            self.finished(sandbox_id, runs.Exited(0), reusable=True)
        for sandbox_id in self.in_phase("removing"):
            self.vanished(sandbox_id)
        self.pass_time(25)

    def calm(self) -> None:
        """Let everything that is here come to its end, which it must."""
        self.fates.clear()
        if not self.state.able:
            self.apply(state.EngineChanged(able=True))
        for _ in range(ROUNDS):
            if not self.state.calls:
                break
            self.go_on()
        assert not self.state.calls, "a call waits for ever"
        assert not self.held
        assert not self.reserved

    def rest(self) -> None:
        """Let so much time pass that nothing is left but what is kept ready."""
        self.calm()
        for _ in range(4):
            self.now_ms += 3_600_000
            for _ in range(4):
                self.go_on()
        idle = Counter(room.kind.key for room in self.rooms.values())
        least = {wanted.key: wanted.least for wanted in self.wanted}
        assert all(count <= least.get(key, 0) for key, count in idle.items()), idle
        if self.state.draining:
            assert self.left == self.state.leaving
            assert not self.rooms


def key(route: Kind, revision: int) -> str:
    return f"{route.key}-{revision // 2}"


def most(route: Kind, revision: int) -> int:
    return max(1, route.most - 3 * (revision % 2)) if route.most else 0


def drawn(data: st.DataObject, choices: list[str]) -> str:
    choice: str = data.draw(st.sampled_from(choices))
    return choice


class Life(RuleBasedStateMachine):
    """What can happen to a runner."""

    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell()
        self.count = 0
        self.revisions: Counter[str] = Counter()
        self.heads: dict[str, messages.CallHead] = {}

    def entry(self) -> bytes:
        self.count += 1
        return b"%d-0" % self.count

    # Calls.

    @rule(
        route=st.sampled_from(ROUTES),
        mode=st.sampled_from(["sync", "async"]),
        inline=st.booleans(),
        back=st.integers(0, 1),
        number=st.integers(1, 6),
        late=st.booleans(),
        retries=st.integers(0, 2),
    )
    def calls_come(
        self,
        *,
        route: Kind,
        mode: str,
        inline: bool,
        back: int,
        number: int,
        late: bool,
        retries: int,
    ) -> None:
        revision = max(0, self.revisions[route.key] - back)
        make = head if mode == "sync" else async_head
        for _ in range(number):
            entry_id = self.entry()
            call = make(
                call_id=f"c{self.count}", path=route.path, memory_mb=route.memory_mb,
                format=route.format, isolation=route.isolation, revision=revision,
                sandbox_key=key(route, revision), max_concurrency=most(route, revision),
            )  # fmt: skip
            if mode == "sync":
                deadline_ms = self.shell.now_ms + (0 if late else 60_000)
                call = msgspec.structs.replace(call, deadline_ms=deadline_ms)
            else:
                tries = messages.Tries(max_attempts=2, retries=retries)
                call = msgspec.structs.replace(call, tries=tries)
            self.heads[call.call_id] = call
            self.shell.assign(call, entry_id, inline=inline)

    @precondition(lambda self: self.shell.again)
    @rule(data=st.data())
    def a_next_attempt_comes(self, data: st.DataObject) -> None:
        """Another runner may have had it meanwhile, but here it comes once at a time."""
        call = self.shell.again.pop(data.draw(st.integers(0, len(self.shell.again) - 1)))
        if call.call_id not in self.shell.held:
            self.heads[call.call_id] = call
            self.shell.assign(call, self.entry())

    @rule(route=st.sampled_from(ROUTES))
    def a_route_changes(self, route: Kind) -> None:
        """Every other time sandboxes are made otherwise; else how many there may be changes."""
        self.revisions[route.key] += 1

    @precondition(lambda self: self.shell.state.calls)
    @rule(data=st.data())
    def a_call_comes_again(self, data: st.DataObject) -> None:
        """The scheduler has taken this runner for lost, and thinks otherwise by now."""
        call_id = drawn(data, sorted(self.shell.state.calls))
        call = self.heads[call_id]
        if call.mode == "async":
            again = msgspec.structs.replace(call, attempt=call.attempt + 1)
            self.heads[call_id] = again
            self.shell.assign(again, self.entry())

    @rule(data=st.data())
    def an_entry_is_read_again(self, data: st.DataObject) -> None:
        held = self.shell.held
        if held:
            call_id = drawn(data, sorted(held))
            self.shell.apply(
                state.Assigned(
                    held[call_id], self.heads[call_id], messages.Assignment(1, NOW_MS), PARCEL
                )
            )

    @rule(data=st.data())
    def a_call_of_before_comes_back(self, data: st.DataObject) -> None:
        """It ended here, or was handed back; its outcome came too late to count."""
        ended = sorted(self.heads.keys() - self.shell.state.calls.keys() - self.shell.reserved)
        if ended:
            call = self.heads[drawn(data, ended)]
            self.shell.assign(call, self.entry(), inline=data.draw(st.booleans()))

    @rule(data=st.data())
    def a_caller_leaves(self, data: st.DataObject) -> None:
        call_id = drawn(data, sorted(self.heads)) if self.heads else "unknown"
        self.shell.apply(state.CallerLeft(b"x", call_id))

    @precondition(lambda self: self.shell.fetching)
    @rule(data=st.data(), there=st.booleans())
    def a_parcel_is_fetched(self, *, data: st.DataObject, there: bool) -> None:
        call_id = drawn(data, self.shell.fetching)
        self.shell.fetching.remove(call_id)
        self.shell.apply(state.ParcelFetched(call_id, PARCEL if there else None))

    @precondition(lambda self: self.shell.alarms)
    @rule(data=st.data())
    def an_alarm_rings(self, data: st.DataObject) -> None:
        self.shell.ring(drawn(data, sorted(self.shell.alarms)))

    # Sandboxes.

    @precondition(lambda self: self.shell.in_phase("opening"))
    @rule(data=st.data())
    def a_sandbox_is_ready(self, data: st.DataObject) -> None:
        self.shell.opened(drawn(data, self.shell.in_phase("opening")))

    @precondition(lambda self: self.shell.in_phase("opening"))
    @rule(data=st.data(), ending=st.sampled_from(BEFORE_ITS_END))
    def a_sandbox_fails(self, data: st.DataObject, ending: runs.Ending) -> None:
        self.shell.unopened(drawn(data, self.shell.in_phase("opening")), ending)

    @precondition(lambda self: self.shell.rooms)
    @rule(data=st.data())
    def a_sandbox_is_lost(self, data: st.DataObject) -> None:
        """Whatever it is doing: it may be opened or removed, or its last call be told late."""
        self.shell.apply(state.SandboxLost(drawn(data, sorted(self.shell.rooms))))

    @precondition(lambda self: self.shell.busy())
    @rule(data=st.data(), ending=st.sampled_from(ENDINGS), reusable=st.booleans())
    def a_run_ends(self, *, data: st.DataObject, ending: runs.Ending, reusable: bool) -> None:
        self.shell.finished(drawn(data, self.shell.busy()), ending, reusable=reusable)

    @precondition(lambda self: self.shell.busy())
    @rule(data=st.data())
    def a_run_is_refused_late(self, data: st.DataObject) -> None:
        sandbox_id = drawn(data, self.shell.busy())
        room = self.shell.rooms[sandbox_id]
        call_id, room.call_id = room.call_id, ""
        self.shell.apply(state.RunRefused(call_id))

    @rule(fates=st.lists(st.sampled_from(["refused", "useless", "broken"]), max_size=4))
    def the_next_runs_fare_badly(self, fates: list[str]) -> None:
        self.shell.fates = deque(fates)

    @precondition(lambda self: self.shell.in_phase("removing"))
    @rule(data=st.data())
    def a_sandbox_is_gone(self, data: st.DataObject) -> None:
        self.shell.vanished(drawn(data, self.shell.in_phase("removing")))

    # All else.

    @rule(passed_ms=st.sampled_from([1, 25, 200, 1_000, 10_000, 60_000]))
    def time_passes(self, passed_ms: int) -> None:
        self.shell.pass_time(passed_ms)

    @rule(
        wanted=st.dictionaries(st.sampled_from(range(len(ROUTES))), st.integers(0, 3), max_size=3)
    )
    def others_are_wanted(self, wanted: dict[int, int]) -> None:
        kinds = []
        for number, least in wanted.items():
            route = ROUTES[number]
            revision = self.revisions[route.key]
            bounds = {"most": most(route, revision), "least": least}
            kinds.append(replace(route, key=key(route, revision), revision=revision, **bounds))
        self.shell.apply(state.ReadinessWanted(tuple(kinds)))
        if not self.shell.state.leaving:
            self.shell.wanted = tuple(kinds)

    @rule(digest=st.sampled_from(["d0", "d1"]))
    def the_image_moves(self, digest: str) -> None:
        self.shell.digests["img:1"] = digest
        self.shell.apply(state.ImageMoved("img:1", digest))

    @rule(able=st.booleans())
    def the_engine_goes_or_comes(self, *, able: bool) -> None:
        self.shell.apply(state.EngineChanged(able))

    @rule(wished=st.booleans())
    def it_is_to_be_empty_or_not(self, *, wished: bool) -> None:
        self.shell.apply(state.DrainWished(wished))

    @rule(cut=st.booleans())
    def it_is_cut_off_or_heard_again(self, *, cut: bool) -> None:
        self.shell.apply(state.ContactChanged(cut))
        assert not (cut and self.shell.busy())

    @rule()
    def the_runner_is_to_leave(self) -> None:
        if self.count > 20:
            self.shell.apply(state.DrainAsked())

    @precondition(lambda self: self.shell.state.leaving)
    @rule()
    def the_grace_is_over(self) -> None:
        self.shell.apply(state.GraceOver())
        assert not self.shell.busy()

    @rule()
    def it_calms_down(self) -> None:
        self.shell.calm()

    # What holds.

    @invariant()
    def what_runs_here_runs_there(self) -> None:
        runs_here = {
            (execution.sandbox_id, call_id)
            for call_id, execution in self.shell.state.calls.items()
            if execution.phase is Phase.RUNNING
        }
        rooms = self.shell.rooms.items()
        assert runs_here == {(sandbox_id, r.call_id) for sandbox_id, r in rooms if r.call_id}

    @invariant()
    def what_is_not_settled_is_here(self) -> None:
        assert self.shell.held.keys() <= self.shell.state.calls.keys()
        assert self.shell.reserved == self.shell.state.calls.keys()

    @invariant()
    def sandboxes_of_an_image_that_moved_are_not_waiting_for_calls(self) -> None:
        pool = self.shell.state.pool
        for sandbox_id, room in self.shell.rooms.items():
            box = pool.get(sandbox_id)
            assert box is not None
            if room.phase == "open" and not room.call_id and not box.retired:
                assert room.digest == self.shell.digests.get(room.kind.image, "d0")

    def teardown(self) -> None:
        self.shell.rest()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
