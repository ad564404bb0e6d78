"""What does the runner decide? Given events, expect commands."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runner import runs
from services.runner.outcome import StopReason
from services.runner.state import (
    Alarm,
    AlarmRang,
    Assigned,
    Beat,
    CallerLeft,
    Command,
    DrainAsked,
    DropEntry,
    EndCall,
    Ended,
    EngineChanged,
    Event,
    FreeCapacity,
    GraceOver,
    HandBack,
    Impossible,
    Leave,
    Phase,
    Removed,
    SendRecord,
    SetAlarm,
    Started,
    StartSandbox,
    State,
    StopSandbox,
)
from shared import messages
from tests.unit.runner.builders import HEAD, NOW_MS, async_head, exited, head

PARCEL = messages.Parcel({}, {}, b"in")
E1, E2, E9 = b"1-1", b"2-1", b"9-1"


@dataclass
class Harness:
    """A state, with a count of what became of each entry."""

    state: State = field(default_factory=lambda: State("r1", 3, 10))
    taken: Counter[bytes] = field(default_factory=Counter)
    settled: Counter[bytes] = field(default_factory=Counter)

    def given(self, *events: Event, at_ms: int = NOW_MS) -> list[Command]:
        """Take events; return the commands of the last."""
        commands: list[Command] = []
        for event in events:
            commands = self.state.handle(event, at_ms)
            self.check(commands)
        return commands

    def check(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, EndCall | HandBack):
                self.settled[command.entry_id] += 1
        assert max(self.settled.values(), default=0) <= 1
        for execution in self.state.calls.values():
            stopped = execution.phase is Phase.STOPPING
            assert not stopped or execution.stop_reason is not None


@pytest.fixture
def h() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.check([])


def assigned(call: messages.CallHead = HEAD, entry_id: bytes = E1, epoch: int = 1) -> Assigned:
    return Assigned(entry_id, call, messages.Assignment(epoch, NOW_MS), PARCEL)


def stopped() -> runs.Result:
    return runs.Result(runs.Stopped())


def ending(commands: list[Command]) -> EndCall:
    (command,) = [c for c in commands if isinstance(c, EndCall)]
    return command


def test_a_call_is_started_with_its_deadline(h: Harness) -> None:
    assert h.given(assigned()) == [
        StartSandbox(HEAD, PARCEL),
        SetAlarm("c1", Alarm.DEADLINE, 60_000),
    ]


def test_an_async_call_has_no_deadline(h: Harness) -> None:
    call = async_head()
    assert h.given(assigned(call)) == [StartSandbox(call, PARCEL)]


def test_a_call_whose_deadline_has_passed_is_never_started(h: Harness) -> None:
    commands = h.given(assigned(head(deadline_ms=NOW_MS)))
    assert [type(c) for c in commands] == [EndCall, FreeCapacity]
    assert ending(commands).record.code == "deadline"
    assert ending(commands).record.started_ms is None
    assert not h.state.calls


def test_the_run_clock_begins_with_the_process(h: Harness) -> None:
    assert h.given(assigned(), Started("c1")) == [
        SetAlarm("c1", Alarm.TIMEOUT, 30_000),
        SetAlarm("c1", Alarm.ANNOUNCE, 200),
    ]


def test_an_async_call_is_recorded_as_running_at_once(h: Harness) -> None:
    timeout, sent = h.given(assigned(async_head()), Started("c1"))
    assert isinstance(timeout, SetAlarm)
    assert isinstance(sent, SendRecord)
    assert (sent.record.status, sent.record.started_ms) == ("running", NOW_MS)


def test_a_sync_call_is_recorded_as_running_only_if_it_lasts(h: Harness) -> None:
    (sent,) = h.given(assigned(), Started("c1"), AlarmRang("c1", Alarm.ANNOUNCE))
    assert isinstance(sent, SendRecord)
    assert h.given(Ended("c1", exited()), AlarmRang("c1", Alarm.ANNOUNCE)) == []


def test_an_answer_is_replied_and_recorded(h: Harness) -> None:
    result = exited(
        stdout=b"out", log=b"err", digest="sha256:1", peak_memory_bytes=9, start_ms=1.0, run_ms=2.0
    )
    command = ending(h.given(assigned(), Started("c1"), Ended("c1", result), at_ms=NOW_MS))
    assert command.entry_id == E1
    assert command.reply == messages.Reply("c1", messages.Answered(b"out"), 1.0, 2.0)
    record = command.record
    assert (record.status, record.code, record.exit_code) == ("success", "", 0)
    assert (record.log, record.digest, record.peak_memory_bytes) == (b"err", "sha256:1", 9)
    assert (record.queued_ms, record.finished_ms, record.runner_id) == (
        HEAD.accepted_ms, NOW_MS, "r1",
    )  # fmt: skip
    assert record.result is None


def test_an_async_result_is_kept_up_to_its_size(h: Harness) -> None:
    commands = h.given(
        assigned(async_head()), Started("c1"), Ended("c1", exited(stdout=b"0123456789ab"))
    )
    assert ending(commands).reply is None
    record = ending(commands).record
    assert (record.result, record.result_truncated) == (b"0123456789", True)


def test_capacity_is_free_only_when_the_container_is_gone(h: Harness) -> None:
    h.given(assigned(), Started("c1"), Ended("c1", exited()))
    assert h.given(Removed("c1")) == [FreeCapacity("c1")]


def test_a_timeout_stops_the_run_and_ends_it_as_such(h: Harness) -> None:
    h.given(assigned(), Started("c1"))
    assert h.given(AlarmRang("c1", Alarm.TIMEOUT)) == [StopSandbox("c1")]
    assert h.given(AlarmRang("c1", Alarm.DEADLINE)) == []
    assert ending(h.given(Ended("c1", stopped()))).record.code == "timeout"


@pytest.mark.parametrize("before", [[assigned()], [assigned(), Started("c1")]])
def test_a_caller_who_leaves_stops_the_call(h: Harness, before: list[Event]) -> None:
    h.given(*before)
    assert h.given(CallerLeft(E9, "c1")) == [DropEntry(E9), StopSandbox("c1")]
    assert ending(h.given(Ended("c1", stopped()))).record.status == "cancelled"


def test_a_caller_who_leaves_after_the_end_changes_nothing(h: Harness) -> None:
    h.given(assigned(), Started("c1"), Ended("c1", exited()))
    assert h.given(CallerLeft(E9, "c1")) == [DropEntry(E9)]
    assert h.given(CallerLeft(E9, "unknown")) == [DropEntry(E9)]


def test_an_older_reign_is_refused(h: Harness) -> None:
    h.given(assigned(epoch=2))
    other = head(call_id="c2")
    (back,) = h.given(assigned(other, E2, epoch=1))
    assert isinstance(back, HandBack)
    assert (back.entry_id, back.head) == (E2, other)


def test_nothing_is_taken_while_the_engine_is_away(h: Harness) -> None:
    assert h.given(EngineChanged(able=False)) == [Beat()]
    (back,) = h.given(assigned())
    assert isinstance(back, HandBack)
    h.given(EngineChanged(able=True))
    assert isinstance(h.given(assigned(entry_id=E2))[0], StartSandbox)


def test_the_same_entry_twice_is_one_call(h: Harness) -> None:
    assert h.given(assigned(), assigned()) == []


def test_a_call_that_was_reclaimed_and_comes_again_ends_by_its_new_entry(h: Harness) -> None:
    again = head(attempt=2)
    assert h.given(assigned(), Started("c1"), assigned(again, E2)) == []
    command = ending(h.given(Ended("c1", exited())))
    assert (command.entry_id, command.record.attempt) == (E2, 2)


def test_a_call_that_comes_again_while_being_removed_goes_back(h: Harness) -> None:
    h.given(assigned(), Started("c1"), Ended("c1", exited()))
    (back,) = h.given(assigned(head(attempt=2), E2))
    assert isinstance(back, HandBack)
    assert back.entry_id == E2


def engine_failed() -> runs.Result:
    return runs.Result(runs.EngineFailed("gone"))


def test_a_sync_call_fails_with_its_engine(h: Harness) -> None:
    commands = h.given(assigned(), Started("c1"), Ended("c1", engine_failed()))
    assert ending(commands).record.code == "unavailable"


def test_an_async_call_whose_engine_failed_is_tried_again_once_it_is_gone(h: Harness) -> None:
    call = async_head()
    assert h.given(assigned(call), Started("c1"), Ended("c1", engine_failed())) == []
    (back,) = h.given(Removed("c1"))
    assert isinstance(back, HandBack)
    assert back.head == async_head(attempt=2)


def test_an_async_call_is_not_tried_for_ever(h: Harness) -> None:
    commands = h.given(assigned(async_head(attempt=3)), Ended("c1", engine_failed()))
    assert ending(commands).record.code == "unavailable"


def test_draining_lets_go_on_what_is_just_starting(h: Harness) -> None:
    h.given(assigned())
    assert h.given(DrainAsked()) == [Beat()]
    h.given(Started("c1"))
    assert ending(h.given(Ended("c1", exited()))).record.status == "success"


def test_draining_hands_back_what_has_not_started_when_the_grace_is_over(h: Harness) -> None:
    h.given(assigned(), DrainAsked())
    assert h.given(GraceOver()) == [StopSandbox("c1")]
    assert h.given(Ended("c1", stopped())) == []
    back, left = h.given(Removed("c1"))
    assert isinstance(back, HandBack)
    assert back.head == HEAD
    assert left == Leave()


def test_draining_lets_run_what_runs_until_the_grace_is_over(h: Harness) -> None:
    h.given(assigned(), Started("c1"))
    assert h.given(DrainAsked()) == [Beat()]
    assert h.given(GraceOver()) == [StopSandbox("c1")]
    assert ending(h.given(Ended("c1", stopped()))).record.code == "runner_lost"
    assert h.given(Removed("c1")) == [FreeCapacity("c1"), Leave()]


def test_an_async_call_stopped_by_draining_is_another_attempts(h: Harness) -> None:
    h.given(assigned(async_head()), Started("c1"), DrainAsked(), GraceOver())
    h.given(Ended("c1", stopped()))
    back, _ = h.given(Removed("c1"))
    assert isinstance(back, HandBack)
    assert back.head.attempt == 2


def test_a_call_that_ended_by_itself_while_being_drained_keeps_its_answer(h: Harness) -> None:
    h.given(assigned(), Started("c1"), DrainAsked(), GraceOver())
    assert ending(h.given(Ended("c1", exited()))).record.status == "success"


def test_a_record_has_the_documented_word(h: Harness) -> None:
    h.given(assigned(), Started("c1"))
    ended = ending(h.given(Ended("c1", runs.Result(runs.Overflowed(8)))))
    assert ended.record.code == "too_large"


def test_draining_refuses_what_comes(h: Harness) -> None:
    assert h.given(DrainAsked()) == [Beat(), Leave()]
    (back,) = h.given(assigned())
    assert isinstance(back, HandBack)


def test_a_process_that_started_although_we_stopped_it_counts_as_started(h: Harness) -> None:
    h.given(assigned(), DrainAsked(), GraceOver(), Started("c1"))
    assert ending(h.given(Ended("c1", stopped()))).record.code == "runner_lost"


def test_what_cannot_be_tells_the_calls_history(h: Harness) -> None:
    h.given(assigned(), Started("c1"))
    with pytest.raises(Impossible, match="Started"):
        h.given(Started("c1"))
    assert h.given(Removed("unknown")) == []


RESULTS = st.sampled_from([exited(), exited(1), engine_failed(), stopped()])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_each_assigned_call_ends_exactly_once(data: st.DataObject) -> None:
    """Whatever happens in whatever order: each entry has one end, and all is gone at last."""
    h = Harness()
    entries: dict[bytes, str] = {}
    for step in range(data.draw(st.integers(1, 40))):
        event = data.draw(st.sampled_from(possible(h, step, data)))
        if isinstance(event, Assigned):
            entries[event.entry_id] = event.head.call_id
        h.given(event)
    h.given(DrainAsked())
    for call_id, execution in list(h.state.calls.items()):
        if execution.phase is not Phase.ENDED:
            h.given(Ended(call_id, stopped()))
        h.given(Removed(call_id))
    assert not h.state.calls
    # An entry that was followed by another one of its call had lost its meaning in Redis.
    latest = {call_id: entry_id for entry_id, call_id in entries.items()}
    assert all(h.settled[entry_id] == 1 for entry_id in latest.values())


def possible(h: Harness, step: int, data: st.DataObject) -> list[Event]:
    """Return some of the events that can come next."""
    call_id = f"c{data.draw(st.integers(0, 3))}"
    make = data.draw(st.sampled_from([head, async_head]))
    call = make(call_id=call_id, attempt=data.draw(st.integers(1, 3)))
    events: list[Event] = [
        assigned(call, b"%d-0" % step, epoch=data.draw(st.integers(1, 2))),
        CallerLeft(b"x", call_id),
        EngineChanged(able=data.draw(st.booleans())),
        AlarmRang(call_id, data.draw(st.sampled_from(Alarm))),
        GraceOver(),
    ]
    execution = h.state.calls.get(call_id)
    if execution is not None and execution.phase is not Phase.ENDED:
        events.append(Ended(call_id, data.draw(RESULTS)))
        if execution.started_ms is None:
            events += [Started(call_id)] * 2
    elif execution is not None:
        events += [Removed(call_id)] * 2
    return events


def test_a_stop_reason_is_an_alarms_name() -> None:
    assert {StopReason(alarm.value) for alarm in Alarm if alarm is not Alarm.ANNOUNCE} == {
        StopReason.TIMEOUT,
        StopReason.DEADLINE,
    }
