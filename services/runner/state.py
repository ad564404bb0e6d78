"""What is to be done with each call here? Pure: one object, one door, `handle(event, now_ms)`.

It knows each call from its assignment until its container is gone, decides, and returns commands;
`service` performs them. It has no clock and does no I/O.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from services.runner import outcome, runs
from services.runner.outcome import StopReason
from shared import messages
from shared.errors import CODES, MillraceError

#: A sync call gets a "running" record only if it still runs after this time, in milliseconds:
#: most are over by then, and two records for each would double the recorder's work.
ANNOUNCE_AFTER_MS = 200


class Phase(enum.Enum):
    """Where an execution is on its way."""

    #: Its sandbox is being made: parcel, image, container.
    STARTING = "starting"
    #: Its process runs.
    RUNNING = "running"
    #: We have asked for its end.
    STOPPING = "stopping"
    #: Its outcome is known, and its container is being removed.
    ENDED = "ended"


class Alarm(enum.Enum):
    """What a timer of a call is for."""

    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    ANNOUNCE = "announce"


# Events: facts.


@dataclass(frozen=True, slots=True)
class Assigned:
    """An entry of this runner's stream gives it a call."""

    entry_id: bytes
    head: messages.CallHead
    assignment: messages.Assignment
    #: None: it is in Redis under its own key.
    parcel: messages.Parcel | None = None


@dataclass(frozen=True, slots=True)
class CallerLeft:
    """An entry of this runner's stream says that nobody waits for a call any more."""

    entry_id: bytes
    call_id: str


@dataclass(frozen=True, slots=True)
class Started:
    """The process of a call runs."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The run of a call is over."""

    call_id: str
    result: runs.Result


@dataclass(frozen=True, slots=True)
class Removed:
    """Nothing of a call is left in the engine."""

    call_id: str


@dataclass(frozen=True, slots=True)
class AlarmRang:
    """A timer of a call has run out."""

    call_id: str
    alarm: Alarm


@dataclass(frozen=True, slots=True)
class EngineChanged:
    """The engine answers again, or no longer."""

    able: bool


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """The runner is to leave: take nothing new, finish what runs."""


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The time for finishing is over."""


CallEvent = Started | Ended | Removed | AlarmRang
Event = Assigned | CallerLeft | CallEvent | EngineChanged | DrainAsked | GraceOver


# Commands: imperatives.


@dataclass(frozen=True, slots=True)
class StartSandbox:
    """Run a call; `Started`, `Ended` and `Removed` are to follow, the first if it comes so far."""

    head: messages.CallHead
    parcel: messages.Parcel | None


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """End the run of a call, at whatever point it is; `Ended` is to follow at once."""

    call_id: str


@dataclass(frozen=True, slots=True)
class SetAlarm:
    """Ring after some milliseconds, unless the call is gone by then."""

    call_id: str
    alarm: Alarm
    delay_ms: int


@dataclass(frozen=True, slots=True)
class SendRecord:
    """Tell the recorder that a call runs."""

    record: messages.Record


@dataclass(frozen=True, slots=True)
class EndCall:
    """End a call by its entry: with its record, and its reply for who waits."""

    entry_id: bytes
    record: messages.Record
    reply: messages.Reply | None
    head: messages.CallHead


@dataclass(frozen=True, slots=True)
class FreeCapacity:
    """Tell the scheduler that nothing of a call is left here; drop its timers."""

    call_id: str


@dataclass(frozen=True, slots=True)
class HandBack:
    """Tell the scheduler the same, and then put the call back among the waiting."""

    entry_id: bytes
    head: messages.CallHead
    why: str


@dataclass(frozen=True, slots=True)
class DropEntry:
    """Delete an entry that has done its work."""

    entry_id: bytes


@dataclass(frozen=True, slots=True)
class Beat:
    """Send a heartbeat now: something in it has changed."""


@dataclass(frozen=True, slots=True)
class Leave:
    """All is done and the runner drains: it can go."""


#: Commands whose performing takes a while.
WorkCommand = StartSandbox | SendRecord | EndCall | FreeCapacity | HandBack | DropEntry
Command = WorkCommand | StopSandbox | SetAlarm | Beat | Leave


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
    phase: Phase = Phase.STARTING
    #: Why we asked for its end; set exactly in STOPPING, and kept in ENDED.
    stop_reason: StopReason | None = None
    #: Epoch milliseconds; None until its process runs.
    started_ms: int | None = None
    #: Why it goes back among the waiting once its container is gone; "": it does not.
    hand_back: str = ""
    #: The names of the events it has seen.
    history: list[str] = field(default_factory=list)


#: What an event does to an execution, at an epoch time in milliseconds.
_Step = Callable[["State", Execution, Any, int], list[Command]]


@dataclass
class State:
    """All calls of one runner. One task of `service` owns it.

    Invariants: each assigned call gets exactly one of `EndCall` and `HandBack` for its entry;
    each `StartSandbox` is followed by `FreeCapacity` or `HandBack` once its container is gone;
    while draining, or while the engine is away, nothing is started.
    """

    runner_id: str
    async_attempts: int
    result_max_bytes: int
    draining: bool = False
    able: bool = True
    #: The latest reign of a scheduler that has assigned something here.
    epoch: int = 0
    calls: dict[str, Execution] = field(default_factory=dict)

    def handle(self, event: Event, now_ms: int) -> list[Command]:
        """Take an event at an epoch time in milliseconds; return what is to be done, in order.

        Raises `Impossible` for an event that the table of transitions does not have.
        """
        match event:
            case Assigned():
                return self._assigned(event, now_ms)
            case CallerLeft(entry_id, call_id):
                return [DropEntry(entry_id), *self._stop(call_id, StopReason.CANCELLED)]
            case EngineChanged(able):
                self.able = able
                return [Beat()]
            case DrainAsked():
                return self._drain()
            case GraceOver():
                return [c for call_id in self.calls for c in self._stop(call_id, StopReason.DRAIN)]
            case _:
                return self._of_call(event, now_ms)

    def _of_call(self, event: CallEvent, now_ms: int) -> list[Command]:
        execution = self.calls.get(event.call_id)
        if execution is None:
            # Only a timer can come after the last event of its call.
            return []
        step = self._transitions.get((execution.phase, type(event)))
        if step is None:
            raise Impossible(execution, event)
        execution.history.append(type(event).__name__)
        return step(self, execution, event, now_ms)

    def _assigned(self, event: Assigned, now_ms: int) -> list[Command]:
        head = event.head
        refusal = self._refusal(event)
        self.epoch = max(self.epoch, event.assignment.epoch)
        if refusal:
            return [HandBack(event.entry_id, head, refusal)]
        known = self.calls.get(head.call_id)
        if known is not None:
            return self._assigned_again(known, event)
        execution = self.calls[head.call_id] = Execution(event.entry_id, head)
        if head.deadline_ms and head.deadline_ms <= now_ms:
            result = runs.Result(runs.Stopped())
            execution.stop_reason = StopReason.DEADLINE
            return [*self._ended(execution, Ended(head.call_id, result), now_ms),
                    *self._removed(execution, Removed(head.call_id), now_ms)]  # fmt: skip
        started: list[Command] = [StartSandbox(head, event.parcel)]
        if head.deadline_ms:
            started.append(SetAlarm(head.call_id, Alarm.DEADLINE, head.deadline_ms - now_ms))
        return started

    def _refusal(self, event: Assigned) -> str:
        """Return why a call is not taken; "" if it is."""
        if event.assignment.epoch < self.epoch:
            return f"assigned in reign {event.assignment.epoch}, now is {self.epoch}"
        if self.draining:
            return "the runner is draining"
        return "" if self.able else "the container engine is away"

    def _assigned_again(self, known: Execution, event: Assigned) -> list[Command]:
        """Take a call that is here already.

        A scheduler that took this runner for lost has put the call back and assigned it here once
        more. The old entry is gone, so the outcome of the run under way counts for the new one.
        """
        if known.entry_id == event.entry_id:
            return []
        if known.phase is Phase.ENDED or known.hand_back:
            return [HandBack(event.entry_id, event.head, "an earlier attempt is being removed")]
        known.entry_id, known.head = event.entry_id, event.head
        return []

    def _drain(self) -> list[Command]:
        """Take no more calls; those that are here go on.

        Also those that are just starting: to stop one could come too late to give it back, and
        its caller would get an error for nothing.
        """
        self.draining = True
        return [Beat(), *self._leave()]

    def _leave(self) -> list[Command]:
        return [Leave()] if self.draining and not self.calls else []

    def _stop(self, call_id: str, reason: StopReason) -> list[Command]:
        execution = self.calls.get(call_id)
        if execution is None or execution.phase in (Phase.STOPPING, Phase.ENDED):
            return []
        execution.history.append(f"stop: {reason.value}")
        execution.phase, execution.stop_reason = Phase.STOPPING, reason
        return [StopSandbox(call_id)]

    def _started(self, execution: Execution, _: CallEvent, now_ms: int) -> list[Command]:
        head = execution.head
        execution.phase, execution.started_ms = Phase.RUNNING, now_ms
        timeout = SetAlarm(head.call_id, Alarm.TIMEOUT, head.timeout_ms)
        if head.mode == "async":
            return [timeout, SendRecord(self._running_record(execution))]
        return [timeout, SetAlarm(head.call_id, Alarm.ANNOUNCE, ANNOUNCE_AFTER_MS)]

    def _started_late(self, execution: Execution, _: CallEvent, now_ms: int) -> list[Command]:
        """Note that the process started although we had asked for its end: it may have run."""
        execution.started_ms = now_ms
        return []

    def _rang(self, execution: Execution, event: CallEvent, _: int) -> list[Command]:
        assert isinstance(event, AlarmRang)  # noqa: S101 (the table says so)
        if event.alarm is not Alarm.ANNOUNCE:
            return self._stop(event.call_id, StopReason(event.alarm.value))
        return [SendRecord(self._running_record(execution))]

    def _ignored(self, execution: Execution, event: CallEvent, now_ms: int) -> list[Command]:
        del execution, event, now_ms
        return []

    def _ended(self, execution: Execution, event: CallEvent, now_ms: int) -> list[Command]:
        assert isinstance(event, Ended)  # noqa: S101 (the table says so)
        execution.phase = Phase.ENDED
        execution.hand_back = self._why_again(execution, event.result)
        if execution.hand_back:
            return []
        reached = outcome.judge(event.result, execution.head.image, execution.stop_reason)
        record = self._end_record(execution, event.result, reached, now_ms)
        reply = None
        if execution.head.reply_to:
            result = event.result
            reply = messages.Reply(record.call_id, reached, result.start_ms, result.run_ms)
        return [EndCall(execution.entry_id, record, reply, execution.head)]

    def _why_again(self, execution: Execution, result: runs.Result) -> str:
        """Return why a call is to be run once more, elsewhere or later; "" if it is not.

        What was never started goes back freely. An async call whose process was started goes back
        as its next attempt, if it has one left; a sync call never.
        """
        failed = isinstance(result.ending, runs.EngineFailed)
        stopped = failed or isinstance(result.ending, runs.Stopped)
        drained = stopped and execution.stop_reason is StopReason.DRAIN
        if not drained and (execution.stop_reason or not failed):
            return ""
        if drained and execution.started_ms is None:
            return "the runner is draining"
        if execution.head.mode == "sync" or execution.head.attempt >= self.async_attempts:
            return ""
        execution.head = msgspec.structs.replace(execution.head, attempt=execution.head.attempt + 1)
        return "the runner is draining" if drained else "the container engine failed"

    def _removed(self, execution: Execution, _: CallEvent, now_ms: int) -> list[Command]:
        del now_ms, self.calls[execution.head.call_id]
        if execution.hand_back:
            back = HandBack(execution.entry_id, execution.head, execution.hand_back)
            return [back, *self._leave()]
        return [FreeCapacity(execution.head.call_id), *self._leave()]

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
        record = msgspec.structs.replace(
            self._running_record(execution),
            status=outcome.status_of(reached),
            started_ms=result.started_ms,
            finished_ms=now_ms,
            digest=result.digest,
            peak_memory_bytes=result.peak_memory_bytes,
            log=result.log,
        )
        if isinstance(reached, messages.Failed):
            word = CODES[reached.code].word
            return msgspec.structs.replace(
                record, code=word, message=reached.message, exit_code=reached.exit_code
            )
        if execution.head.mode == "sync":
            return msgspec.structs.replace(record, exit_code=0)
        kept = reached.body[: self.result_max_bytes]
        cut = len(kept) < len(reached.body)
        return msgspec.structs.replace(record, exit_code=0, result=kept, result_truncated=cut)

    #: What may happen in which phase, and what it leads to. All else is `Impossible`.
    _transitions: ClassVar[dict[tuple[Phase, type], _Step]] = {
        (Phase.STARTING, Started): _started,
        (Phase.STARTING, Ended): _ended,
        (Phase.STARTING, AlarmRang): _rang,
        (Phase.RUNNING, Ended): _ended,
        (Phase.RUNNING, AlarmRang): _rang,
        (Phase.STOPPING, Started): _started_late,
        (Phase.STOPPING, Ended): _ended,
        (Phase.STOPPING, AlarmRang): _ignored,
        (Phase.ENDED, Removed): _removed,
        (Phase.ENDED, AlarmRang): _ignored,
    }
