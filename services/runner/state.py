"""What is to be done with each call here? Pure: one object, one door, `handle(event, now_ms)`.

It knows each call from its assignment until its capacity is free, and each sandbox until nothing
is left of it; it decides, and returns commands, which `service` performs. `pool` knows which
sandbox a call gets. It has no clock and does no I/O.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from services.runner import outcome, pool, runs
from services.runner.outcome import StopReason
from services.runner.pool import Kind, Pool
from shared import messages, retrying
from shared.errors import CODES, MillraceError

#: A sync call gets a "running" record only if it still runs after this time, in milliseconds:
#: most are over by then, and two records for each would double the recorder's work.
ANNOUNCE_AFTER_MS = 200
#: So often a call may meet a sandbox that is of no use; then there is more to it than bad luck.
REFUSALS_MAX = 8


class Phase(enum.StrEnum):
    """Where an execution is on its way."""

    #: Its parcel, which is too large for the stream, is being fetched.
    FETCHING = "fetching"
    #: It waits for a sandbox.
    WAITING = "waiting"
    #: It runs in a sandbox.
    RUNNING = "running"
    #: Its outcome is known, and its sandbox is being removed.
    ENDED = "ended"


class Alarm(enum.StrEnum):
    """What a timer of a call is for."""

    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    ANNOUNCE = "announce"


# Events: facts.


class _Fact(msgspec.Struct, frozen=True, gc=False):
    pass


class Assigned(_Fact, frozen=True):
    """An entry of this runner's stream gives it a call."""

    entry_id: bytes
    head: messages.CallHead
    assignment: messages.Assignment
    #: None: it is in Redis under its own key.
    parcel: messages.Parcel | None = None


class AssignedTogether(_Fact, frozen=True):
    """Several of them, read at one time: to be decided about for less."""

    calls: tuple[Assigned, ...]


class ParcelFetched(_Fact, frozen=True):
    """The parcel of a call is here; None: it is nowhere any more."""

    call_id: str
    parcel: messages.Parcel | None


class CallerLeft(_Fact, frozen=True):
    """An entry of this runner's stream says that nobody waits for a call any more."""

    entry_id: bytes
    call_id: str


class RunEnded(_Fact, frozen=True):
    """The run of a call is over; `reusable`: its sandbox may run another one."""

    call_id: str
    result: runs.Result
    reusable: bool


class RunRefused(_Fact, frozen=True):
    """A sandbox was of no use for a call, of which nothing has been run."""

    call_id: str


class SandboxReady(_Fact, frozen=True):
    """A sandbox can run calls, `start_ms` milliseconds after it was asked for."""

    sandbox_id: str
    digest: str
    start_ms: float


class SandboxFailed(_Fact, frozen=True):
    """A sandbox could not be opened, and nothing is left of it."""

    sandbox_id: str
    ending: runs.Ending
    log: bytes = b""


class SandboxLost(_Fact, frozen=True):
    """A sandbox turned out to be of no use; what becomes of its opening or its call comes apart."""

    sandbox_id: str


class SandboxGone(_Fact, frozen=True):
    """Nothing of a sandbox is left in the engine."""

    sandbox_id: str


class AlarmRang(_Fact, frozen=True):
    """A timer of a call has run out."""

    call_id: str
    alarm: Alarm


class Ticked(_Fact, frozen=True):
    """Time has passed."""


class ReadinessWanted(_Fact, frozen=True):
    """These kinds of sandboxes are to be kept ready, and no others."""

    kinds: tuple[Kind, ...]


class ImageMoved(_Fact, frozen=True):
    """An image's name means another image by now."""

    image: str
    digest: str


class EngineChanged(_Fact, frozen=True):
    """The engine answers again, or no longer."""

    able: bool


class DrainWished(_Fact, frozen=True):
    """An operator wants the runner to be empty, or no longer."""

    wished: bool


class ContactChanged(_Fact, frozen=True):
    """The runner may be thought lost by now, for Redis has not heard it; or it is heard again."""

    cut: bool


class DrainAsked(_Fact, frozen=True):
    """The runner is to leave: take nothing new, finish what runs."""


class GraceOver(_Fact, frozen=True):
    """The time for finishing is over."""


CallEvent = ParcelFetched | RunEnded | RunRefused | AlarmRang
SandboxEvent = SandboxReady | SandboxFailed | SandboxLost | SandboxGone
Event = (
    Assigned
    | AssignedTogether
    | CallerLeft
    | CallEvent
    | SandboxEvent
    | Ticked
    | ReadinessWanted
    | ImageMoved
    | EngineChanged
    | DrainWished
    | ContactChanged
    | DrainAsked
    | GraceOver
)


# Commands: imperatives.


class _Command(msgspec.Struct, frozen=True, gc=False):
    pass


class FetchParcel(_Command, frozen=True):
    """Fetch the parcel of a call; `ParcelFetched` is to follow."""

    call_id: str


class StartSandbox(_Command, frozen=True):
    """Open a sandbox; `SandboxReady` or `SandboxFailed` is to follow.

    `mode` is that of the call it is for; async also if it is for none.
    """

    sandbox_id: str
    kind: Kind
    mode: messages.Mode


class RunCall(_Command, frozen=True):
    """Run a call in a sandbox; `RunEnded` or `RunRefused` is to follow, perhaps at once."""

    sandbox_id: str
    head: messages.CallHead
    parcel: messages.Parcel


class StopSandbox(_Command, frozen=True):
    """End what runs in a sandbox, which is of no use then; `RunEnded` is to follow soon."""

    sandbox_id: str


class RemoveSandbox(_Command, frozen=True):
    """Remove a sandbox; `SandboxGone` is to follow."""

    sandbox_id: str


class SetAlarm(_Command, frozen=True):
    """Ring for a call after some milliseconds, and forget what was set before."""

    call_id: str
    alarm: Alarm
    delay_ms: int


class SendRecord(_Command, frozen=True):
    """Tell the recorder that a call runs."""

    record: messages.Record


class EndCall(_Command, frozen=True):
    """End a call by its entry: with its record, and its reply for who waits.

    `freed`: its capacity is free as well; otherwise `FreeCapacity` follows later. `dead`: it is to
    be kept as a dead letter.
    """

    entry_id: bytes
    record: messages.Record
    reply: messages.Reply | None
    head: messages.CallHead
    freed: bool
    #: The grant in whose place it came; "": the scheduler gave it.
    grant: str = ""
    dead: bool = False


class FreeCapacity(_Command, frozen=True):
    """Tell the scheduler that nothing of a call is left here."""

    call_id: str


class HandBack(_Command, frozen=True):
    """Tell the scheduler the same, and then put the call back among the waiting."""

    entry_id: bytes
    head: messages.CallHead
    why: str
    #: As in `EndCall`.
    grant: str = ""


class TryAgain(_Command, frozen=True):
    """Tell the scheduler the same, and let the call's next attempt wait, with `record` saying so.

    `head` is that attempt's; `delayed`: it waits for a while before it is among the waiting.
    """

    entry_id: bytes
    head: messages.CallHead
    record: messages.Record
    delayed: bool


class DropEntry(_Command, frozen=True):
    """Delete an entry that has done its work."""

    entry_id: bytes


class Beat(_Command, frozen=True):
    """Send a heartbeat now: something in it has changed."""


class Leave(_Command, frozen=True):
    """No call is here any more and the runner drains: it can go."""


Command = (
    FetchParcel
    | StartSandbox
    | RunCall
    | StopSandbox
    | RemoveSandbox
    | SetAlarm
    | SendRecord
    | EndCall
    | FreeCapacity
    | HandBack
    | TryAgain
    | DropEntry
    | Beat
    | Leave
)


class Impossible(MillraceError):
    """An event came to a call in a phase where it cannot come."""

    def __init__(self, execution: "Execution", event: object) -> None:
        """The message tells the whole way of the call."""
        super().__init__(f"{event!r} in {execution.phase}; before: {execution.history}")


@dataclass(slots=True)
class Execution:
    """One call here."""

    entry_id: bytes
    head: messages.CallHead
    phase: Phase = Phase.FETCHING
    parcel: messages.Parcel | None = None
    #: The grant in whose place it came; "": the scheduler gave it.
    grant: str = ""
    #: The sandbox it runs or ran in; "" before.
    sandbox_id: str = ""
    #: Epoch milliseconds; None until it runs.
    started_ms: int | None = None
    #: How many sandboxes were of no use for it.
    refusals: int = 0
    #: Why we have asked for the end of its run.
    stop_reason: StopReason | None = None
    #: Why it goes back among the waiting once its sandbox is gone; "": it does not.
    hand_back: str = ""
    #: What is done then instead, if its run has failed and another attempt follows.
    again: TryAgain | None = None
    #: The names of the events it has seen.
    history: list[str] = field(default_factory=list)


def key_of(head: messages.CallHead) -> str:
    """Return the key of the kind of sandbox that a call needs."""
    return head.sandbox_key or f"{head.app}{head.path}"


def kind_of(head: messages.CallHead, parcel: messages.Parcel) -> Kind:
    """Return the kind of sandbox that a call needs. How many are kept is `wanted_kind`'s to say."""
    return Kind(
        key=key_of(head),
        app=head.app,
        path=head.path,
        image=head.image,
        memory_mb=head.memory_mb,
        cpus=head.cpus,
        format=head.format,
        isolation=head.isolation,
        most=head.max_concurrency,
        idle_timeout_ms=parcel.idle_timeout_s * 1000,
        revision=head.revision,
        config_env=parcel.config_env,
    )


def wanted_kind(wanted: messages.Wanted) -> Kind:
    """Return the kind of sandbox that is to be kept ready."""
    return Kind(
        key=wanted.sandbox_key,
        app=wanted.app,
        path=wanted.path,
        image=wanted.image,
        memory_mb=wanted.memory_mb,
        cpus=wanted.cpus,
        format=wanted.format,
        isolation=wanted.isolation,
        most=wanted.max_concurrency,
        least=wanted.min_sandboxes,
        idle_timeout_ms=wanted.idle_timeout_s * 1000,
        revision=wanted.revision,
        config_env=wanted.config_env,
    )


#: What an event does to an execution, at an epoch time in milliseconds.
_Step = Callable[["State", Execution, Any, int], list[Command]]


#: Why a call that was stopped for such a reason is run again, if it is.
_AGAIN: dict[StopReason | None, str] = {
    StopReason.DRAIN: "the runner is draining",
    StopReason.CUT_OFF: "the runner is cut off from Redis",
}
_BEGUN = frozenset({Phase.RUNNING, Phase.ENDED})
#: The phase of a call's sandbox in each phase of the call; None: it has none.
_SANDBOX_PHASES = {
    Phase.FETCHING: None,
    Phase.WAITING: None,
    Phase.RUNNING: pool.Phase.BUSY,
    Phase.ENDED: pool.Phase.LEAVING,
}


class State:
    """All calls and sandboxes of one runner. One task of `service` owns it.

    Invariants: each assigned call gets exactly one of `EndCall`, `HandBack` and `TryAgain` for its
    entry, and once nothing of it is left, that is told; while draining, cut off from Redis, or
    while the engine is away, nothing is started.
    """

    def __init__(self, runner_id: str, *, memory_mb: int, result_max_bytes: int) -> None:
        """`memory_mb` is for all sandboxes together, idle ones included."""
        self.runner_id = runner_id
        self.result_max_bytes = result_max_bytes
        #: It drains because it is to leave; because an operator wants it to be empty.
        self.leaving = self.emptying = False
        self.able = True
        #: Whether it may be thought lost.
        self.cut = False
        #: The latest reign of a scheduler that has assigned something here.
        self.epoch = 0
        self.calls: dict[str, Execution] = {}
        self.pool = Pool(memory_mb)
        #: Sandbox -> the call that runs or ran in it.
        self._runs: dict[str, str] = {}

    def handle(self, event: Event, now_ms: int) -> list[Command]:
        """Take an event at an epoch time in milliseconds; return what is to be done, in order.

        Raises `Impossible` for an event that the table of transitions does not have.
        """
        commands = self._doors[type(event)](self, event, now_ms)
        commands += self._settled(now_ms)
        if type(event) is Assigned:
            commands += self._deadline_of(event.head, now_ms)
        elif type(event) is AssignedTogether:
            for call in event.calls:
                commands += self._deadline_of(call.head, now_ms)
        if self.leaving and not self.calls:
            commands.append(Leave())
        return commands

    @property
    def draining(self) -> bool:
        """Whether it takes no more calls."""
        return self.leaving or self.emptying

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        self.pool.check()
        for call_id, execution in self.calls.items():
            box = self.pool.get(execution.sandbox_id) if execution.sandbox_id else None
            phase = box.phase if box else None
            if phase is not _SANDBOX_PHASES[execution.phase]:
                raise AssertionError(f"{call_id} is {execution.phase}, its sandbox {phase}")

    def _settled(self, now_ms: int) -> list[Command]:
        """Return what the pool wants done by now."""
        commands: list[Command] = []
        for action in self.pool.settle(now_ms):
            if isinstance(action, pool.Give):
                commands += self._given(self.calls[action.call_id], action.sandbox_id, now_ms)
            elif isinstance(action, pool.Start):
                mode = self._mode_for(action.kind)
                commands.append(StartSandbox(action.sandbox_id, action.kind, mode))
            else:
                commands.append(RemoveSandbox(action.sandbox_id))
        return commands

    def _mode_for(self, kind: Kind) -> messages.Mode:
        waiting = self.pool.waiting(kind.key)
        sync = any(self.calls[call_id].head.mode == "sync" for call_id in waiting)
        return "sync" if sync else "async"

    # Calls come.

    def _assigned(self, event: Assigned, now_ms: int) -> list[Command]:
        head, epoch, grant = event.head, event.assignment.epoch, event.assignment.grant
        if epoch < self.epoch:
            why = f"assigned in reign {epoch}, now is {self.epoch}"
            return [HandBack(event.entry_id, head, why, grant)]
        self.epoch = epoch
        known = self.calls.get(head.call_id)
        if known is not None:
            return self._assigned_again(known, event)
        if why := self._why_not():
            return [HandBack(event.entry_id, head, why, grant)]
        execution = self.calls[head.call_id] = Execution(event.entry_id, head, grant=grant)
        if head.deadline_ms and head.deadline_ms <= now_ms:
            return self._stop(execution, StopReason.DEADLINE, now_ms)
        if event.parcel is None:
            return [FetchParcel(head.call_id)]
        return self._wait(execution, event.parcel, now_ms)

    def _assigned_together(self, event: AssignedTogether, now_ms: int) -> list[Command]:
        return [command for call in event.calls for command in self._assigned(call, now_ms)]

    def _deadline_of(self, head: messages.CallHead, now_ms: int) -> list[Command]:
        """Set the alarm of a call that has come and does not run at once (then it has others)."""
        execution = self.calls.get(head.call_id)
        if execution is None or not head.deadline_ms or execution.phase in _BEGUN:
            return []
        return [SetAlarm(head.call_id, Alarm.DEADLINE, max(0, head.deadline_ms - now_ms))]

    def _why_not(self) -> str:
        """Return why nothing can be begun here; "" if it can."""
        if self.draining:
            return "the runner is draining"
        if self.cut:
            return _AGAIN[StopReason.CUT_OFF]
        return "" if self.able else "the container engine is away"

    def _assigned_again(self, known: Execution, event: Assigned) -> list[Command]:
        """Take a call that is here already.

        A scheduler that took this runner for lost has put the call back and assigned it here once
        more. The old entry is gone, so the outcome of the run under way counts for the new one. If
        that is known already, the call goes back; not before its capacity is told to be free, or
        that would be told twice.
        """
        if known.entry_id == event.entry_id:
            return []
        known.entry_id, known.head = event.entry_id, event.head
        known.grant = event.assignment.grant
        if known.phase is Phase.ENDED:
            known.hand_back, known.again = "an earlier attempt was being removed", None
        return []

    def _wait(
        self, execution: Execution, parcel: messages.Parcel, now_ms: int, *, first: bool = False
    ) -> list[Command]:
        """Let a call wait for a sandbox; `first`: before all others."""
        execution.phase, execution.parcel, execution.sandbox_id = Phase.WAITING, parcel, ""
        if why := self._why_not():
            return self._put_back(execution, why)
        self.pool.wait(execution.head.call_id, self._kind(execution), now_ms, first=first)
        return []

    def _put_back(self, execution: Execution, why: str) -> list[Command]:
        """Let a call of which nothing has been run go back among the waiting."""
        self.pool.forget(execution.head.call_id, key_of(execution.head))
        del self.calls[execution.head.call_id]
        return [HandBack(execution.entry_id, execution.head, why, execution.grant)]

    def _put_back_all(self, why: str) -> list[Command]:
        unbegun = [e for e in self.calls.values() if e.phase in {Phase.FETCHING, Phase.WAITING}]
        return [command for execution in unbegun for command in self._put_back(execution, why)]

    def _kind(self, execution: Execution) -> Kind:
        """Return the kind of sandbox a call needs; calls of one route share the object."""
        head, parcel = execution.head, execution.parcel
        assert parcel is not None  # noqa: S101 (it is here by then)
        known = self.pool.kind(key_of(head))
        if known is not None and known.revision == head.revision:
            return known
        return kind_of(head, parcel)

    def _given(self, execution: Execution, sandbox_id: str, now_ms: int) -> list[Command]:
        """Let a call run in the sandbox it got."""
        head, parcel = execution.head, execution.parcel
        assert parcel is not None  # noqa: S101 (it could not wait without)
        execution.phase, execution.sandbox_id = Phase.RUNNING, sandbox_id
        execution.started_ms = now_ms
        self._runs[sandbox_id] = head.call_id
        alarms = self._next_alarm(execution, now_ms, after=None)
        run = RunCall(sandbox_id, head, parcel)
        if head.mode == "async":
            return [*alarms, SendRecord(self._running_record(execution)), run]
        return [*alarms, run]

    def _next_alarm(
        self, execution: Execution, now_ms: int, *, after: Alarm | None
    ) -> list[SetAlarm]:
        """Set the next of a running call's alarms: one timer is enough for all of them."""
        head, started_ms = execution.head, execution.started_ms or now_ms
        alarm, due_ms = Alarm.TIMEOUT, started_ms + head.timeout_ms
        if head.deadline_ms and head.deadline_ms < due_ms:
            alarm, due_ms = Alarm.DEADLINE, head.deadline_ms
        announced_ms = started_ms + ANNOUNCE_AFTER_MS
        if head.mode == "sync" and after is None and announced_ms < due_ms:
            alarm, due_ms = Alarm.ANNOUNCE, announced_ms
        return [SetAlarm(head.call_id, alarm, max(0, due_ms - now_ms))]

    # Events of calls.

    def _of_call(self, event: CallEvent, now_ms: int) -> list[Command]:
        execution = self.calls.get(event.call_id)
        if execution is None:
            # Only a timer or a parcel can come after the last event of its call.
            return []
        step = self._transitions.get((execution.phase, type(event)))
        if step is None:
            raise Impossible(execution, event)
        execution.history.append(type(event).__name__)
        return step(self, execution, event, now_ms)

    def _fetched(self, execution: Execution, event: CallEvent, now_ms: int) -> list[Command]:
        assert isinstance(event, ParcelFetched)  # noqa: S101 (the table says so)
        if event.parcel is not None:
            return self._wait(execution, event.parcel, now_ms)
        lost = runs.Broken("The call's input is not there any more.")
        return self._end(execution, runs.Result(lost), now_ms)

    def _rang(self, execution: Execution, event: CallEvent, now_ms: int) -> list[Command]:
        assert isinstance(event, AlarmRang)  # noqa: S101 (the table says so)
        if event.alarm is Alarm.ANNOUNCE:
            alarms = self._next_alarm(execution, now_ms, after=Alarm.ANNOUNCE)
            return [*alarms, SendRecord(self._running_record(execution))]
        return self._stop(execution, StopReason(event.alarm.value), now_ms)

    def _rang_before(self, execution: Execution, event: CallEvent, now_ms: int) -> list[Command]:
        """Heed the deadline alone: other alarms are of a run that was refused."""
        assert isinstance(event, AlarmRang)  # noqa: S101 (the table says so)
        if event.alarm is not Alarm.DEADLINE:
            return []
        return self._rang(execution, event, now_ms)

    def _ignored(self, execution: Execution, event: CallEvent, now_ms: int) -> list[Command]:
        del execution, event, now_ms
        return []

    def _refused(self, execution: Execution, _: CallEvent, now_ms: int) -> list[Command]:
        """Let a call wait again, before all others: nothing of it has been run."""
        head, sandbox_id, parcel = execution.head, execution.sandbox_id, execution.parcel
        assert parcel is not None  # noqa: S101 (kept until its end)
        del self._runs[sandbox_id]
        execution.phase, execution.sandbox_id = Phase.WAITING, ""
        execution.started_ms = None
        execution.refusals += 1
        self.pool.refused(sandbox_id)
        if execution.stop_reason is not None:
            return self._end(execution, runs.Result(runs.Stopped()), now_ms)
        if execution.refusals == REFUSALS_MAX:
            failed = runs.EngineFailed("sandboxes end before they can be used")
            return self._end(execution, runs.Result(failed), now_ms)
        waits = self._wait(execution, parcel, now_ms, first=True)
        if head.deadline_ms and not waits:
            left_ms = max(0, head.deadline_ms - now_ms)
            return [SetAlarm(head.call_id, Alarm.DEADLINE, left_ms)]
        return waits

    def _run_ended(self, execution: Execution, event: CallEvent, now_ms: int) -> list[Command]:
        assert isinstance(event, RunEnded)  # noqa: S101 (the table says so)
        run_ms, reusable = event.result.run_ms, event.reusable and execution.stop_reason is None
        self.pool.freed(execution.sandbox_id, run_ms, now_ms, reusable=reusable)
        return self._end(execution, event.result, now_ms)

    #: What may happen in which phase, and what it leads to. All else is `Impossible`.
    _transitions: ClassVar[dict[tuple[Phase, type], _Step]] = {
        (Phase.FETCHING, ParcelFetched): _fetched,
        (Phase.FETCHING, AlarmRang): _rang_before,
        (Phase.WAITING, AlarmRang): _rang_before,
        (Phase.RUNNING, RunEnded): _run_ended,
        (Phase.RUNNING, RunRefused): _refused,
        (Phase.RUNNING, AlarmRang): _rang,
        (Phase.ENDED, AlarmRang): _ignored,
        # One asked for in vain, of a call that had ended and was assigned again.
        (Phase.WAITING, ParcelFetched): _ignored,
        (Phase.RUNNING, ParcelFetched): _ignored,
        (Phase.ENDED, ParcelFetched): _ignored,
    }

    # Calls end.

    def _stop(self, execution: Execution, reason: StopReason, now_ms: int) -> list[Command]:
        """End a call at whatever point it is."""
        if execution.phase is Phase.ENDED or execution.stop_reason is not None:
            return []
        execution.history.append(f"stop: {reason.value}")
        execution.stop_reason = reason
        if execution.phase is Phase.RUNNING:
            return [StopSandbox(execution.sandbox_id)]
        self.pool.forget(execution.head.call_id, key_of(execution.head))
        return self._end(execution, runs.Result(runs.Stopped()), now_ms)

    def _end(self, execution: Execution, result: runs.Result, now_ms: int) -> list[Command]:
        """End a call whose outcome is known. Its capacity is free if its sandbox is idle again."""
        head, sandbox_id = execution.head, execution.sandbox_id
        box = self.pool.get(sandbox_id)
        freed = box is None or box.phase is not pool.Phase.LEAVING
        #: What is lost cannot be run again, nor kept.
        whole, execution.parcel = execution.parcel is not None, None
        execution.phase = Phase.ENDED
        reached = outcome.judge(result, head.image, execution.stop_reason)
        if self._unbegun(execution, result):
            execution.hand_back = _AGAIN[execution.stop_reason]
        elif isinstance(reached, messages.Failed) and whole:
            execution.again = self._next_attempt(execution, result, reached, now_ms)
        if freed:
            del self.calls[head.call_id]
            self._runs.pop(sandbox_id, None)
        if execution.hand_back or execution.again:
            return [self._removed(execution)] if freed else []
        return [self._ending(execution, result, reached, now_ms, freed=freed, whole=whole)]

    def _ending(
        self,
        execution: Execution,
        result: runs.Result,
        reached: messages.Outcome,
        now_ms: int,
        *,
        freed: bool,
        whole: bool,
    ) -> EndCall:
        head = execution.head
        record = self._end_record(execution, result, reached, now_ms)
        reply = None
        if head.reply_to:
            reply = messages.Reply(head.call_id, reached, result.start_ms, result.run_ms)
        dead = False
        if whole and isinstance(reached, messages.Failed):
            dead = retrying.is_kept(head, reached.code)
        return EndCall(execution.entry_id, record, reply, head, freed, execution.grant, dead)

    def _unbegun(self, execution: Execution, result: runs.Result) -> bool:
        """Say whether a call had not started when the runner was to leave: it goes back freely."""
        return (
            execution.stop_reason in _AGAIN
            and execution.started_ms is None
            and isinstance(result.ending, runs.EngineFailed | runs.Stopped)
        )

    def _next_attempt(
        self, execution: Execution, result: runs.Result, failed: messages.Failed, now_ms: int
    ) -> TryAgain | None:
        """Return what to do if another attempt follows one that failed.

        When the runner is to leave, others are there: the attempt need not wait for them.
        """
        head = execution.head
        following = retrying.next_attempt(head, failed.code)
        if following is None:
            return None
        failure = messages.Attempt(
            head.attempt, CODES[failed.code].word, failed.message, now_ms,
            started_ms=result.started_ms, exit_code=failed.exit_code,
            runner_id=self.runner_id, log=result.log,
        )  # fmt: skip
        record = retrying.waiting_record(following, failure)
        delayed = execution.stop_reason not in _AGAIN
        return TryAgain(execution.entry_id, following, record, delayed)

    def _removed(self, execution: Execution) -> Command:
        """Tell that nothing of an ended call is left."""
        if execution.again:
            return execution.again
        if execution.hand_back:
            why, grant = execution.hand_back, execution.grant
            return HandBack(execution.entry_id, execution.head, why, grant)
        return FreeCapacity(execution.head.call_id)

    # Sandboxes.

    def _ready(self, event: SandboxReady, now_ms: int) -> list[Command]:
        self.pool.ready(event.sandbox_id, event.digest, event.start_ms, now_ms)
        return []

    def _failed(self, event: SandboxFailed, now_ms: int) -> list[Command]:
        """End the calls that wait for a sandbox that cannot be opened, if there is none like it.

        If that is so because the engine is away, they go back, with all that wait here, before it
        is noticed otherwise: others may be able.
        """
        box = self.pool.get(event.sandbox_id)
        assert box is not None  # noqa: S101 (told once of each that was started)
        self.pool.failed(event.sandbox_id, now_ms)
        commands: list[Command] = []
        if isinstance(event.ending, runs.EngineAway):
            return self._engine(EngineChanged(able=False), now_ms) if self.able else commands
        if self.pool.alive(box.kind.key):
            return commands
        for call_id in self.pool.waiting(box.kind.key):
            self.pool.forget(call_id, box.kind.key)
            failed = runs.Result(event.ending, log=event.log, digest=box.digest)
            commands += self._end(self.calls[call_id], failed, now_ms)
        return commands

    def _lost(self, event: SandboxLost, now_ms: int) -> list[Command]:
        if self.pool.get(event.sandbox_id):
            self.pool.lost(event.sandbox_id, now_ms)
        return []

    def _gone(self, event: SandboxGone, _: int) -> list[Command]:
        self.pool.gone(event.sandbox_id)
        call_id = self._runs.pop(event.sandbox_id, None)
        execution = self.calls.pop(call_id, None) if call_id else None
        return [self._removed(execution)] if execution else []

    # All else.

    def _caller_left(self, event: CallerLeft, now_ms: int) -> list[Command]:
        execution = self.calls.get(event.call_id)
        stopping = self._stop(execution, StopReason.CANCELLED, now_ms) if execution else []
        return [DropEntry(event.entry_id), *stopping]

    def _ticked(self, _: Ticked, now_ms: int) -> list[Command]:
        self.pool.tick(now_ms)
        return []

    def _wanted(self, event: ReadinessWanted, _: int) -> list[Command]:
        if not self.leaving:
            self.pool.want(event.kinds)
        return []

    def _moved(self, event: ImageMoved, _: int) -> list[Command]:
        self.pool.image_moved(event.image, event.digest)
        return []

    def _engine(self, event: EngineChanged, _: int) -> list[Command]:
        """Begin nothing while the engine is away: what waits goes back, others may be able."""
        self.able = event.able
        if self.able:
            self._resume()
            return [Beat()]
        self.pool.pause()
        return [Beat(), *self._put_back_all(self._why_not())]

    def _resume(self) -> None:
        if self.able and not self.cut:
            self.pool.resume()

    def _contact(self, event: ContactChanged, now_ms: int) -> list[Command]:
        """Run nothing that others may be given. Async calls are run again, here or elsewhere."""
        self.cut = event.cut
        if not self.cut:
            self._resume()
            return []
        self.pool.pause()
        return [
            *self._put_back_all(self._why_not()),
            *self._stop_all(StopReason.CUT_OFF, now_ms),
        ]

    def _drain(self, _: DrainAsked, __: int) -> list[Command]:
        """Take no more calls. Those that run go on; those that wait go back: others may be free."""
        self.leaving = True
        return self._close()

    def _wished(self, event: DrainWished, _: int) -> list[Command]:
        """Do the same without leaving, or take calls again."""
        if event.wished == self.emptying:
            return []
        self.emptying = event.wished
        if event.wished:
            return self._close()
        if not self.leaving:
            self.pool.open()
        return [Beat()]

    def _close(self) -> list[Command]:
        self.pool.close()
        return [Beat(), *self._put_back_all(self._why_not())]

    def _grace_over(self, _: GraceOver, now_ms: int) -> list[Command]:
        return self._stop_all(StopReason.DRAIN, now_ms)

    def _stop_all(self, reason: StopReason, now_ms: int) -> list[Command]:
        return [
            command
            for execution in list(self.calls.values())
            for command in self._stop(execution, reason, now_ms)
        ]

    _doors: ClassVar[dict[type, Callable[["State", Any, int], list[Command]]]] = {
        Assigned: _assigned,
        AssignedTogether: _assigned_together,
        ParcelFetched: _of_call,
        RunEnded: _of_call,
        RunRefused: _of_call,
        AlarmRang: _of_call,
        CallerLeft: _caller_left,
        SandboxReady: _ready,
        SandboxFailed: _failed,
        SandboxLost: _lost,
        SandboxGone: _gone,
        Ticked: _ticked,
        ReadinessWanted: _wanted,
        ImageMoved: _moved,
        EngineChanged: _engine,
        DrainWished: _wished,
        ContactChanged: _contact,
        DrainAsked: _drain,
        GraceOver: _grace_over,
    }

    # Records.

    def _running_record(self, execution: Execution) -> messages.Record:
        head = execution.head
        return messages.Record(
            head.call_id, "running", head.mode, head.app, head.path, head.image, head.accepted_ms,
            started_ms=execution.started_ms, runner_id=self.runner_id, attempt=head.attempt,
        )  # fmt: skip

    def _end_record(
        self,
        execution: Execution,
        result: runs.Result,
        reached: messages.Outcome,
        now_ms: int,
    ) -> messages.Record:
        head = execution.head
        failed = reached if isinstance(reached, messages.Failed) else None
        kept, cut = self._kept(head, reached)
        return messages.Record(
            call_id=head.call_id,
            status=outcome.status_of(reached),
            mode=head.mode,
            app=head.app,
            path=head.path,
            image=head.image,
            queued_ms=head.accepted_ms,
            started_ms=result.started_ms,
            finished_ms=now_ms,
            code=CODES[failed.code].word if failed else "",
            message=failed.message if failed else "",
            exit_code=failed.exit_code if failed else outcome.exit_code(result.ending),
            digest=result.digest,
            runner_id=self.runner_id,
            attempt=head.attempt,
            peak_memory_bytes=result.peak_memory_bytes,
            log=result.log,
            result=kept,
            result_truncated=cut,
            callback=_callback(head, reached),
        )

    def _kept(
        self, head: messages.CallHead, reached: messages.Outcome
    ) -> tuple[bytes | None, bool]:
        """Return what is kept of an async call's answer, and whether that is not all of it."""
        if head.mode == "sync" or isinstance(reached, messages.Failed):
            return None, False
        kept = reached.body[: self.result_max_bytes]
        return kept, len(kept) < len(reached.body)


def _callback(head: messages.CallHead, reached: messages.Outcome) -> messages.Callback | None:
    """Return who is told of a call's end; a type that the route has set wins over others."""
    callback = head.callback
    if callback is None or callback.content_type or isinstance(reached, messages.Failed):
        return callback
    said = (value for name, value in reached.headers if name.lower() == "content-type")
    return messages.Callback(callback.url, next(said, ""))
