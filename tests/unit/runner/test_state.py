"""What does the runner decide? Given events, expect commands."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from services.runner import runs
from services.runner.outcome import StopReason
from services.runner.state import (
    REFUSALS_MAX,
    Alarm,
    AlarmRang,
    Assigned,
    AssignedTogether,
    Beat,
    CallerLeft,
    Command,
    ContactChanged,
    DrainAsked,
    DrainWished,
    DropEntry,
    EndCall,
    EngineChanged,
    Event,
    FetchParcel,
    FreeCapacity,
    GraceOver,
    HandBack,
    ImageMoved,
    Impossible,
    Leave,
    ParcelFetched,
    ReadinessWanted,
    RemoveSandbox,
    RunCall,
    RunEnded,
    RunRefused,
    SandboxFailed,
    SandboxGone,
    SandboxLost,
    SandboxReady,
    SendRecord,
    SetAlarm,
    StartSandbox,
    State,
    StopSandbox,
    Ticked,
    TryAgain,
    kind_of,
    wanted_kind,
)
from shared import messages
from tests.unit.runner.builders import HEAD, NOW_MS, async_head, exited, head, kind

PARCEL = messages.Parcel({}, {"A": "1"}, b"in")
KIND = kind_of(HEAD, PARCEL)
E1, E2, E3, E9 = b"1-1", b"2-1", b"3-1", b"9-1"
FAILED = runs.Result(runs.EngineFailed("gone"))
DEADLINE = SetAlarm("c1", Alarm.DEADLINE, 60_000)
STOPPED = runs.Result(runs.Stopped())


@dataclass
class Harness:
    """A state; its invariants are checked after each event."""

    state: State = field(default_factory=lambda: State("r1", memory_mb=1024, result_max_bytes=10))

    def given(self, *events: Event, at_ms: int = NOW_MS) -> list[Command]:
        """Take events; return the commands of the last."""
        commands: list[Command] = []
        for event in events:
            commands = self.state.handle(event, at_ms)
            self.state.check()
        return commands

    def running(self, call: messages.CallHead = HEAD, sandbox_id: str = "1") -> None:
        """Have a call run in a sandbox that was started for it."""
        self.given(assigned(call))
        commands = self.given(ready(sandbox_id))
        assert RunCall(sandbox_id, call, PARCEL) in commands


@pytest.fixture
def h() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.state.check()


def assigned(call: messages.CallHead = HEAD, entry_id: bytes = E1, epoch: int = 1) -> Assigned:
    return Assigned(entry_id, call, messages.Assignment(epoch, NOW_MS), PARCEL)


def unfetched(call: messages.CallHead = HEAD) -> Assigned:
    return Assigned(E1, call, messages.Assignment(1, NOW_MS))


def ready(sandbox_id: str = "1", digest: str = "sha256:1") -> SandboxReady:
    return SandboxReady(sandbox_id, digest, 100.0)


def ended(result: runs.Result | None = None, *, reusable: bool = True) -> RunEnded:
    return RunEnded("c1", result or exited(), reusable)


def only(commands: list[Command], wanted: type) -> Any:
    (command,) = [c for c in commands if isinstance(c, wanted)]
    return command


def ending(commands: list[Command]) -> EndCall:
    command: EndCall = only(commands, EndCall)
    return command


# A call comes and gets a sandbox.


def test_a_call_has_a_sandbox_started_and_its_deadline_set(h: Harness) -> None:
    assert h.given(assigned()) == [StartSandbox("1", KIND, "sync"), DEADLINE]


def test_an_async_call_has_no_deadline_and_its_sandbox_is_started_later(h: Harness) -> None:
    assert h.given(assigned(async_head())) == [StartSandbox("1", KIND, "async")]


def test_a_sandbox_wanted_without_a_call_is_started_later_too(h: Harness) -> None:
    wanted = messages.Wanted(
        app="a", path="/p", image="img:1", memory_mb=128, cpus=1.0, format="http",
        isolation="sandbox", max_concurrency=4, sandbox_key="k", revision=3, config_env={"A": "1"},
        idle_timeout_s=5, min_sandboxes=1,
    )  # fmt: skip
    made = wanted_kind(wanted)
    assert (made.most, made.least, made.idle_timeout_ms) == (4, 1, 5_000)
    assert h.given(ReadinessWanted((made,))) == [StartSandbox("1", made, "async")]


def test_a_call_says_what_its_sandbox_is_made_of() -> None:
    call = head(format="json", isolation="call", max_concurrency=4, revision=7)
    made = kind_of(call, messages.Parcel({}, {"A": "1"}, b"", idle_timeout_s=9))
    assert (made.key, made.app, made.path, made.image) == ("k", "a", "/p", "img:1")
    assert (made.memory_mb, made.cpus, made.format, made.isolation) == (128, 1.0, "json", "call")
    assert (made.most, made.idle_timeout_ms, made.revision) == (4, 9_000, 7)
    assert made.config_env == {"A": "1"}
    # A call of yesterday must not keep sandboxes of a route that is deleted by now.
    assert made.least == 0


def test_calls_that_do_not_say_share_within_their_route_only() -> None:
    assert kind_of(head(sandbox_key=""), PARCEL).key == "a/p"


def test_a_call_that_runs_at_once_needs_one_alarm(h: Harness) -> None:
    h.running()
    h.given(ended())
    alarms = [c for c in h.given(assigned(entry_id=E2)) if isinstance(c, SetAlarm)]
    assert alarms == [SetAlarm("c1", Alarm.ANNOUNCE, 200)]


def test_a_ready_sandbox_runs_the_call_that_waits(h: Harness) -> None:
    h.given(assigned())
    assert h.given(ready()) == [
        SetAlarm("c1", Alarm.ANNOUNCE, 200),
        RunCall("1", HEAD, PARCEL),
    ]


def test_of_calls_that_come_together_it_is_decided_as_of_one_after_the_other(h: Harness) -> None:
    h.running()
    h.given(ended())
    first, second = head(call_id="c2"), head(call_id="c3")
    assert h.given(AssignedTogether((assigned(first, E2), assigned(second, E3)))) == [
        SetAlarm("c2", Alarm.ANNOUNCE, 200),
        RunCall("1", first, PARCEL),
        SetAlarm("c3", Alarm.DEADLINE, 60_000),
    ]


def test_calls_that_come_together_to_a_runner_that_leaves_all_go_back(h: Harness) -> None:
    h.given(DrainAsked())
    back = h.given(AssignedTogether((assigned(), assigned(head(call_id="c2"), E2))))
    assert [c.entry_id for c in back if isinstance(c, HandBack)] == [E1, E2]
    assert back[-1] == Leave()


def test_an_idle_sandbox_runs_the_next_call_at_once(h: Harness) -> None:
    h.running()
    h.given(ended())
    again = head(call_id="c2")
    assert RunCall("1", again, PARCEL) in h.given(assigned(again, E2))


def test_a_large_parcel_is_fetched_first(h: Harness) -> None:
    assert h.given(unfetched()) == [FetchParcel("c1"), DEADLINE]
    assert h.given(ParcelFetched("c1", PARCEL)) == [StartSandbox("1", KIND, "sync")]


def test_a_lost_parcel_ends_the_call(h: Harness) -> None:
    h.given(unfetched())
    command = ending(h.given(ParcelFetched("c1", None)))
    assert (command.record.code, command.freed) == ("internal", True)


def test_a_call_whose_deadline_has_passed_is_never_started(h: Harness) -> None:
    (command,) = h.given(assigned(head(deadline_ms=NOW_MS)))
    assert isinstance(command, EndCall)
    assert (command.record.code, command.record.started_ms) == ("deadline", None)
    assert command.freed
    assert not h.state.calls


def test_a_call_of_a_changed_route_gets_another_sandbox(h: Harness) -> None:
    h.running()
    h.given(ended())
    changed = head(call_id="c2", sandbox_key="k2", revision=2)
    remove, start, _ = h.given(assigned(changed, E2))
    assert remove == RemoveSandbox("1")
    assert isinstance(start, StartSandbox)
    assert start.kind.key == "k2"


# It runs.


def test_the_run_clock_begins_with_the_run(h: Harness) -> None:
    h.given(assigned())
    h.given(ready(), at_ms=NOW_MS + 5_000)
    assert only(
        h.given(AlarmRang("c1", Alarm.ANNOUNCE), at_ms=NOW_MS + 5_200), SetAlarm
    ) == SetAlarm("c1", Alarm.TIMEOUT, 29_800)


def test_a_deadline_sooner_than_the_timeout_rings_first(h: Harness) -> None:
    h.running(head(deadline_ms=NOW_MS + 1_000))
    assert SetAlarm("c1", Alarm.DEADLINE, 1_000) in h.given(AlarmRang("c1", Alarm.ANNOUNCE))


def test_an_async_call_is_recorded_as_running_at_once(h: Harness) -> None:
    h.given(assigned(async_head()))
    alarm, sent, run = h.given(ready())
    assert alarm == SetAlarm("c1", Alarm.TIMEOUT, 30_000)
    assert isinstance(sent, SendRecord)
    assert (sent.record.status, sent.record.started_ms) == ("running", NOW_MS)
    assert isinstance(run, RunCall)


def test_a_sync_call_is_recorded_as_running_only_if_it_lasts(h: Harness) -> None:
    h.running()
    sent = only(h.given(AlarmRang("c1", Alarm.ANNOUNCE)), SendRecord)
    assert (sent.record.status, sent.record.started_ms) == ("running", NOW_MS)
    h.given(ended())
    assert h.given(AlarmRang("c1", Alarm.ANNOUNCE)) == []


# It ends.


def test_an_answer_is_replied_and_recorded_and_its_capacity_is_free_at_once(h: Harness) -> None:
    result = exited(
        stdout=b"out", log=b"err", digest="sha256:1", peak_memory_bytes=9, start_ms=1.0, run_ms=2.0
    )
    h.running()
    (command,) = h.given(ended(result))
    assert isinstance(command, EndCall)
    assert (command.entry_id, command.freed) == (E1, True)
    assert command.reply == messages.Reply("c1", messages.Answered(b"out"), 1.0, 2.0)
    record = command.record
    assert (record.status, record.code, record.exit_code) == ("success", "", 0)
    assert (record.log, record.digest, record.peak_memory_bytes) == (b"err", "sha256:1", 9)
    assert (record.queued_ms, record.finished_ms, record.runner_id) == (
        HEAD.accepted_ms, NOW_MS, "r1",
    )  # fmt: skip
    assert record.result is None
    assert not h.state.calls


def test_an_async_result_is_kept_up_to_its_size(h: Harness) -> None:
    h.running(async_head())
    command = ending(h.given(ended(exited(stdout=b"0123456789ab"))))
    assert command.reply is None
    assert (command.record.result, command.record.result_truncated) == (b"0123456789", True)


def test_an_async_result_of_just_that_size_is_all_of_it(h: Harness) -> None:
    h.running(async_head())
    record = ending(h.given(ended(exited(stdout=b"0123456789")))).record
    assert (record.result, record.result_truncated) == (b"0123456789", False)


@pytest.mark.parametrize(
    ("route", "function", "told"),
    [
        ("", (), ""),
        ("", (("Content-Type", "a/b"),), "a/b"),
        ("c/d", (("Content-Type", "a/b"),), "c/d"),
    ],
)
def test_who_is_to_be_called_back_is_in_the_record(
    h: Harness, route: str, function: runs.Headers, told: str
) -> None:
    h.running(async_head(callback=messages.Callback("http://h/", route)))
    answered = runs.Result(runs.Answered(200, function), b"x", started_ms=1)
    record = ending(h.given(ended(answered))).record
    assert record.callback == messages.Callback("http://h/", told)


def test_also_of_a_call_that_failed(h: Harness) -> None:
    callback = messages.Callback("http://h/")
    h.running(async_head(callback=callback))
    assert ending(h.given(ended(exited(3)))).record.callback == callback


def test_a_record_has_the_documented_word(h: Harness) -> None:
    h.running()
    overflowed = runs.Result(runs.Overflowed(8))
    assert ending(h.given(ended(overflowed, reusable=False))).record.code == "too_large"


@pytest.mark.parametrize("call", [HEAD, head(isolation="call")])
def test_capacity_is_free_only_when_the_sandbox_is_idle_or_gone(
    h: Harness, call: messages.CallHead
) -> None:
    h.running(call)
    commands = h.given(ended(reusable=call.isolation == "call"))
    assert RemoveSandbox("1") in commands
    assert not ending(commands).freed
    assert h.given(SandboxGone("1")) == [FreeCapacity("c1")]


def test_a_timeout_stops_the_run_and_ends_it_as_such(h: Harness) -> None:
    h.running()
    assert h.given(AlarmRang("c1", Alarm.TIMEOUT)) == [StopSandbox("1")]
    assert h.given(AlarmRang("c1", Alarm.DEADLINE)) == []
    commands = h.given(ended(STOPPED, reusable=False))
    assert ending(commands).record.code == "timeout"
    assert RemoveSandbox("1") in commands


def test_a_sandbox_that_was_to_stop_is_not_used_again_whatever_it_says(h: Harness) -> None:
    h.running()
    h.given(AlarmRang("c1", Alarm.TIMEOUT))
    commands = h.given(ended(exited(stdout=b"just in time"), reusable=True))
    assert ending(commands).record.status == "success"
    assert RemoveSandbox("1") in commands


def test_a_deadline_ends_what_waits(h: Harness) -> None:
    h.given(assigned())
    (command,) = h.given(AlarmRang("c1", Alarm.DEADLINE))
    assert isinstance(command, EndCall)
    assert (command.record.code, command.record.started_ms) == ("deadline", None)
    assert h.given(ready()) == []


@pytest.mark.parametrize("before", [[assigned()], [unfetched()]])
def test_a_caller_who_leaves_ends_a_call_that_waits(h: Harness, before: list[Event]) -> None:
    h.given(*before)
    dropped, command = h.given(CallerLeft(E9, "c1"))
    assert dropped == DropEntry(E9)
    assert isinstance(command, EndCall)
    assert (command.record.status, command.freed) == ("cancelled", True)


def test_a_caller_who_leaves_stops_a_call_that_runs(h: Harness) -> None:
    h.running()
    assert h.given(CallerLeft(E9, "c1")) == [DropEntry(E9), StopSandbox("1")]
    assert h.given(CallerLeft(E9, "c1")) == [DropEntry(E9)]
    assert ending(h.given(ended(STOPPED, reusable=False))).record.status == "cancelled"
    assert h.given(CallerLeft(E9, "c1")) == [DropEntry(E9)]


def test_a_caller_who_leaves_an_unknown_call_changes_nothing(h: Harness) -> None:
    assert h.given(CallerLeft(E9, "unknown")) == [DropEntry(E9)]


# A sandbox is of no use.


def test_a_call_that_was_refused_runs_in_another_sandbox(h: Harness) -> None:
    h.running()
    assert h.given(RunRefused("c1")) == [
        DEADLINE,
        RemoveSandbox("1"),
        StartSandbox("2", KIND, "sync"),
    ]
    assert RunCall("2", HEAD, PARCEL) in h.given(ready("2"))
    assert ending(h.given(ended())).freed


def test_a_call_that_was_refused_goes_before_those_that_wait(h: Harness) -> None:
    h.running()
    h.given(assigned(head(call_id="c2"), E2), RunRefused("c1"))
    assert RunCall("2", HEAD, PARCEL) in h.given(ready("2"))


def test_the_alarms_of_a_refused_run_do_not_end_a_call_that_waits(h: Harness) -> None:
    h.running()
    h.given(RunRefused("c1"))
    assert h.given(AlarmRang("c1", Alarm.TIMEOUT), AlarmRang("c1", Alarm.ANNOUNCE)) == []
    assert h.state.calls
    assert ending(h.given(AlarmRang("c1", Alarm.DEADLINE))).record.code == "deadline"


def test_a_call_that_was_refused_while_it_was_to_stop_ends(h: Harness) -> None:
    h.running()
    h.given(CallerLeft(E9, "c1"))
    commands = h.given(RunRefused("c1"))
    assert ending(commands).record.status == "cancelled"
    assert RemoveSandbox("1") in commands
    assert not h.state.calls


def test_a_call_is_not_refused_for_ever(h: Harness) -> None:
    h.given(assigned())
    for number in range(1, REFUSALS_MAX):
        assert only(h.given(ready(f"{number}"), RunRefused("c1")), StartSandbox)
    commands = h.given(ready(f"{REFUSALS_MAX}"), RunRefused("c1"))
    assert ending(commands).record.code == "unavailable"
    assert not h.state.calls


def test_a_sandbox_that_cannot_be_opened_ends_the_calls_that_wait_for_it(h: Harness) -> None:
    h.given(assigned(), assigned(head(call_id="c2"), E2))
    one, two, remove = h.given(SandboxFailed("1", runs.PullFailed("img:1", "no"), b"log"))
    assert remove == RemoveSandbox("1")
    assert isinstance(one, EndCall)
    assert isinstance(two, EndCall)
    assert [one.entry_id, two.entry_id] == [E1, E2]
    assert (one.record.code, one.record.log, one.freed) == ("image_pull", b"log", True)
    assert h.given(SandboxGone("1")) == []


def test_while_others_are_there_a_failed_one_ends_no_call(h: Harness) -> None:
    h.running()
    waiting = head(call_id="c2")
    h.given(assigned(waiting, E2))
    assert h.given(Ticked(), at_ms=NOW_MS + 1_000) == [StartSandbox("2", KIND, "sync")]
    assert h.given(SandboxFailed("2", runs.EngineFailed("x"))) == [RemoveSandbox("2")]
    assert RunCall("1", waiting, PARCEL) in h.given(ended())


def test_an_idle_sandbox_that_is_lost_is_removed(h: Harness) -> None:
    h.running()
    h.given(ended())
    assert h.given(SandboxLost("1")) == [RemoveSandbox("1")]
    assert h.given(SandboxLost("1")) == []
    assert h.given(SandboxGone("1"), SandboxLost("1")) == []


@pytest.mark.parametrize("then", [RunRefused("c1"), ended(), ended(reusable=False)])
def test_a_sandbox_that_is_lost_while_it_has_a_call_goes_after_it(h: Harness, then: Event) -> None:
    h.running()
    assert h.given(SandboxLost("1")) == []
    assert RemoveSandbox("1") in h.given(then)


@pytest.mark.parametrize("gone_first", [False, True])
def test_a_process_that_ends_while_its_sandbox_is_opened_ends_the_call(
    h: Harness, *, gone_first: bool
) -> None:
    """Its end was taken for the sandbox's, so that the failure came to nobody."""
    h.given(assigned())
    if gone_first:
        assert h.given(SandboxLost("1")) == []
    ended_early = SandboxFailed("1", runs.Exited(3), b"Traceback")
    end, remove = h.given(ended_early)
    assert isinstance(end, EndCall)
    assert (end.record.code, end.record.exit_code) == ("exit", 3)
    assert remove == RemoveSandbox("1")
    assert h.given(SandboxLost("1")) == []


def test_a_moved_image_lets_idle_sandboxes_go(h: Harness) -> None:
    h.running()
    h.given(ended())
    assert h.given(ImageMoved("img:1", "sha256:1")) == []
    assert h.given(ImageMoved("img:1", "sha256:2")) == [RemoveSandbox("1")]


# Entries that come again, or from an earlier reign.


def test_an_older_reign_is_refused(h: Harness) -> None:
    h.given(assigned(epoch=2))
    other = head(call_id="c2")
    (back,) = h.given(assigned(other, E2, epoch=1))
    assert isinstance(back, HandBack)
    assert (back.entry_id, back.head) == (E2, other)


def test_the_same_entry_twice_is_one_call(h: Harness) -> None:
    assert h.given(assigned(), assigned()) == [DEADLINE]


@pytest.mark.parametrize("now", [[], [DrainAsked()], [EngineChanged(able=False)]])
def test_a_call_that_was_reclaimed_and_comes_again_ends_by_its_new_entry(
    h: Harness, now: list[Event]
) -> None:
    h.running(async_head())
    h.given(*now)
    assert h.given(assigned(async_head(attempt=2), E2)) == []
    command = ending(h.given(ended()))
    assert (command.entry_id, command.record.attempt) == (E2, 2)


def test_a_call_that_comes_again_while_it_waits_runs_once(h: Harness) -> None:
    again = head(attempt=2)
    assert h.given(assigned(), assigned(again, E2)) == [DEADLINE]
    assert RunCall("1", again, PARCEL) in h.given(ready())


def test_a_call_that_comes_again_after_its_end_goes_back_when_its_capacity_is_free(
    h: Harness,
) -> None:
    """It was freed twice, and the second time was another reservation's."""
    h.running(async_head())
    assert not ending(h.given(ended(reusable=False))).freed
    again = async_head(attempt=2)
    assert h.given(assigned(again, E2)) == []
    (back,) = h.given(SandboxGone("1"))
    assert isinstance(back, HandBack)
    assert (back.entry_id, back.head) == (E2, again)


def test_a_parcel_that_was_asked_for_twice_counts_once(h: Harness) -> None:
    """Its call was cancelled while Redis was away, and assigned again."""
    h.given(unfetched(), CallerLeft(E9, "c1"), unfetched())
    assert h.given(ParcelFetched("c1", PARCEL)) == [StartSandbox("1", KIND, "sync")]
    assert h.given(ParcelFetched("c1", PARCEL)) == []
    h.given(ready())
    assert h.given(ParcelFetched("c1", PARCEL)) == []
    h.given(ended(reusable=False))
    assert h.given(ParcelFetched("c1", None)) == []


def test_what_comes_after_a_call_has_ended_is_ignored(h: Harness) -> None:
    h.given(unfetched(), CallerLeft(E9, "c1"))
    assert h.given(ParcelFetched("c1", PARCEL)) == []
    assert h.given(AlarmRang("c1", Alarm.DEADLINE)) == []


# The engine.


def test_nothing_is_taken_while_the_engine_is_away(h: Harness) -> None:
    assert h.given(EngineChanged(able=False)) == [Beat()]
    (back,) = h.given(assigned())
    assert isinstance(back, HandBack)
    assert h.given(EngineChanged(able=True)) == [Beat()]
    assert only(h.given(assigned(entry_id=E2)), StartSandbox)


def test_nothing_is_started_while_the_engine_is_away(h: Harness) -> None:
    h.given(EngineChanged(able=False))
    wanted = kind(least=1)
    assert h.given(ReadinessWanted((wanted,))) == []
    assert h.given(Ticked(), at_ms=NOW_MS + 60_000) == []
    assert only(h.given(EngineChanged(able=True)), StartSandbox).kind == wanted


def test_what_waits_goes_back_when_the_engine_goes(h: Harness) -> None:
    h.running()
    h.given(assigned(head(call_id="c2"), E2), unfetched(head(call_id="c3")))
    beat, *back = h.given(EngineChanged(able=False))
    assert beat == Beat()
    assert [b.head.call_id for b in back if isinstance(b, HandBack)] == ["c2", "c3"]
    assert ending(h.given(ended())).record.status == "success"


def test_calls_whose_sandbox_finds_the_engine_away_go_back_before_that_is_noticed_otherwise(
    h: Harness,
) -> None:
    h.given(assigned(async_head(call_id="c1")), assigned(head(call_id="c2"), E2))
    beat, one, two, removed = h.given(SandboxFailed("1", runs.EngineAway("refused")))
    assert beat == Beat()
    assert isinstance(one, HandBack)
    assert isinstance(two, HandBack)
    assert [(b.head.call_id, b.head.attempt) for b in (one, two)] == [("c1", 1), ("c2", 1)]
    assert one.why == two.why == "the container engine is away"
    assert removed == RemoveSandbox("1")
    assert not h.state.able
    assert only(h.given(assigned(entry_id=b"9-9")), HandBack).entry_id == b"9-9"


def test_a_sandbox_that_fails_while_the_engine_is_known_to_be_away_tells_nothing_new(
    h: Harness,
) -> None:
    h.given(ReadinessWanted((kind(least=1),)), EngineChanged(able=False))
    assert h.given(SandboxFailed("1", runs.EngineAway("refused"))) == [RemoveSandbox("1")]


def test_a_call_that_is_refused_while_the_engine_is_away_goes_back(h: Harness) -> None:
    h.running()
    h.given(EngineChanged(able=False))
    back, removed = h.given(RunRefused("c1"))
    assert back == HandBack(E1, HEAD, "the container engine is away")
    assert removed == RemoveSandbox("1")


def test_a_sync_call_fails_with_its_engine(h: Harness) -> None:
    h.running()
    commands = h.given(ended(FAILED, reusable=False))
    assert ending(commands).record.code == "unavailable"


def test_an_async_call_whose_engine_failed_is_tried_again_once_it_is_gone(h: Harness) -> None:
    h.running(async_head())
    assert h.given(ended(FAILED, reusable=False)) == [RemoveSandbox("1")]
    (again,) = h.given(SandboxGone("1"))
    assert isinstance(again, TryAgain)
    assert (again.entry_id, again.head.attempt, again.delayed) == (E1, 2, True)
    assert (again.record.status, again.record.attempt, again.record.code) == ("queued", 2, "")
    (failure,) = again.record.failures
    assert (failure.number, failure.code, failure.runner_id) == (1, "unavailable", "r1")


def test_an_async_call_whose_sandbox_the_engine_failed_is_tried_again_at_once(h: Harness) -> None:
    h.given(assigned(async_head()))
    again, _ = h.given(SandboxFailed("1", runs.EngineFailed("x")))
    assert isinstance(again, TryAgain)
    assert again.head.attempt == 2


def test_an_async_call_is_not_tried_for_ever(h: Harness) -> None:
    h.running(async_head(attempt=3))
    commands = h.given(ended(FAILED, reusable=False))
    assert ending(commands).record.code == "unavailable"
    assert ending(commands).dead


def test_a_function_that_fails_by_itself_is_tried_again_if_its_route_says_so(h: Harness) -> None:
    h.running(async_head(tries=messages.Tries(retries=1)))
    (again,) = h.given(ended(exited(3, log=b"why"), reusable=True))
    assert isinstance(again, TryAgain)
    assert again.head == async_head(attempt=2, tries=messages.Tries(retries=1, own_failures=1))
    assert again.delayed
    (failure,) = again.record.failures
    assert (failure.code, failure.exit_code, failure.log) == ("exit", 3, b"why")


def test_a_function_that_has_used_up_its_retries_is_a_dead_letter(h: Harness) -> None:
    h.running(async_head(attempt=2, tries=messages.Tries(retries=1, own_failures=1)))
    end = ending(h.given(ended(exited(3))))
    assert (end.record.code, end.record.attempt, end.dead) == ("exit", 2, True)


def test_a_function_without_retries_fails_as_a_result(h: Harness) -> None:
    h.running(async_head())
    end = ending(h.given(ended(exited(3))))
    assert (end.record.code, end.dead) == ("exit", False)


def test_a_sync_call_is_never_tried_again(h: Harness) -> None:
    h.running(head(tries=messages.Tries(retries=5)))
    end = ending(h.given(ended(exited(3))))
    assert (end.record.code, end.dead) == ("exit", False)


def test_a_call_whose_input_is_lost_is_neither_tried_again_nor_kept(h: Harness) -> None:
    h.given(unfetched(async_head()))
    end = ending(h.given(ParcelFetched("c1", None)))
    assert (end.record.code, end.dead) == ("internal", False)


def test_an_attempt_that_was_reclaimed_is_not_tried_again_twice(h: Harness) -> None:
    """Its entry is somebody else's: only what came for it counts."""
    h.running(async_head())
    h.given(ended(FAILED, reusable=False))
    again = async_head(attempt=2)
    assert h.given(assigned(again, E2)) == []
    assert h.given(SandboxGone("1")) == [
        HandBack(E2, again, "an earlier attempt was being removed")
    ]


# The runner leaves.


def test_draining_refuses_what_comes(h: Harness) -> None:
    assert h.given(DrainAsked()) == [Beat(), Leave()]
    back, left = h.given(assigned())
    assert isinstance(back, HandBack)
    assert left == Leave()


def test_draining_hands_back_what_waits(h: Harness) -> None:
    h.given(assigned(), unfetched(head(call_id="c2")))
    beat, one, two, left = h.given(DrainAsked())
    assert (beat, left) == (Beat(), Leave())
    assert one == HandBack(E1, HEAD, "the runner is draining")
    assert isinstance(two, HandBack)


def test_a_sandbox_that_is_ready_after_draining_has_begun_is_removed(h: Harness) -> None:
    h.given(assigned(), DrainAsked())
    assert h.given(ready()) == [RemoveSandbox("1"), Leave()]


def test_draining_lets_run_what_runs_until_the_grace_is_over(h: Harness) -> None:
    h.running()
    assert h.given(DrainAsked()) == [Beat()]
    assert h.given(GraceOver()) == [StopSandbox("1")]
    commands = h.given(ended(STOPPED, reusable=False))
    assert ending(commands).record.code == "runner_lost"
    assert h.given(SandboxGone("1")) == [FreeCapacity("c1"), Leave()]


def test_a_sandbox_is_not_kept_for_another_call_while_draining(h: Harness) -> None:
    h.running()
    h.given(DrainAsked())
    commands = h.given(ended())
    assert RemoveSandbox("1") in commands
    assert h.given(SandboxGone("1")) == [FreeCapacity("c1"), Leave()]


def test_an_async_call_stopped_by_draining_is_another_attempts(h: Harness) -> None:
    h.running(async_head())
    h.given(DrainAsked(), GraceOver(), ended(STOPPED, reusable=False))
    again, left = h.given(SandboxGone("1"))
    assert isinstance(again, TryAgain)
    assert (again.head.attempt, again.delayed) == (2, False)
    assert again.record.failures[0].code == "runner_lost"
    assert left == Leave()


def test_a_call_that_is_refused_while_draining_goes_back_at_once(h: Harness) -> None:
    h.running()
    h.given(DrainAsked())
    back, removed, left = h.given(RunRefused("c1"))
    assert back == HandBack(E1, HEAD, "the runner is draining")
    assert (removed, left) == (RemoveSandbox("1"), Leave())


def test_a_call_that_ended_by_itself_while_being_drained_keeps_its_answer(h: Harness) -> None:
    h.running()
    h.given(DrainAsked(), GraceOver())
    assert ending(h.given(ended(reusable=False))).record.status == "success"


def test_what_is_wanted_is_of_no_interest_while_draining(h: Harness) -> None:
    h.given(DrainAsked())
    assert h.given(ReadinessWanted((KIND,))) == [Leave()]


# An operator wants it to be empty.


def test_a_drained_runner_hands_back_what_waits_and_what_comes_and_stays(h: Harness) -> None:
    h.given(assigned())
    assert h.given(DrainWished(wished=True)) == [
        Beat(),
        HandBack(E1, HEAD, "the runner is draining"),
    ]
    assert h.given(ready()) == [RemoveSandbox("1")]
    [back] = h.given(assigned(head(call_id="c2"), E2))
    assert isinstance(back, HandBack)
    assert h.given(DrainWished(wished=True)) == []


def test_a_drained_runner_finishes_its_calls_and_lets_all_sandboxes_go(h: Harness) -> None:
    h.running()
    h.given(DrainWished(wished=True))
    commands = h.given(ended())
    assert ending(commands).record.status == "success"
    assert RemoveSandbox("1") in commands
    assert h.given(SandboxGone("1")) == [FreeCapacity("c1")]
    assert len(h.state.pool) == 0


def test_a_drained_runner_keeps_none_ready_until_it_takes_calls_again(h: Harness) -> None:
    wanted = replace(KIND, least=2)
    h.given(ReadinessWanted((wanted,)), ready("1"), ready("2"))
    assert h.given(DrainWished(wished=True))[1:] == [RemoveSandbox("1"), RemoveSandbox("2")]
    h.given(SandboxGone("1"), SandboxGone("2"))
    assert h.given(ReadinessWanted((wanted,)), Ticked()) == []
    beat, *starts = h.given(DrainWished(wished=False))
    assert beat == Beat()
    assert starts == [StartSandbox("3", wanted, "async"), StartSandbox("4", wanted, "async")]


def test_a_runner_that_leaves_is_not_kept_by_the_end_of_a_wish(h: Harness) -> None:
    h.given(ReadinessWanted((replace(KIND, least=1),)), ready())
    h.given(DrainWished(wished=True), DrainAsked())
    assert h.given(DrainWished(wished=False)) == [Beat(), Leave()]


# Redis does not hear the runner.


def test_a_runner_that_is_cut_off_stops_what_runs_and_begins_nothing(h: Harness) -> None:
    h.running()
    h.given(assigned(head(call_id="c2"), E2))
    back, stop = h.given(ContactChanged(cut=True))
    assert isinstance(back, HandBack)
    assert stop == StopSandbox("1")
    reply = ending(h.given(ended(STOPPED, reusable=False))).reply
    assert reply is not None
    assert isinstance(reply.outcome, messages.Failed)
    assert reply.outcome.code == "runner_lost"
    assert h.given(assigned(head(call_id="c3"), E3)) == [
        HandBack(E3, head(call_id="c3"), "the runner is cut off from Redis")
    ]


def test_an_async_call_stopped_by_a_cut_is_another_attempts(h: Harness) -> None:
    h.running(async_head())
    h.given(ContactChanged(cut=True), ended(STOPPED, reusable=False))
    [again] = h.given(SandboxGone("1"))
    assert isinstance(again, TryAgain)
    assert (again.head.attempt, again.delayed) == (2, False)


def test_a_runner_that_is_heard_again_takes_calls(h: Harness) -> None:
    h.given(ContactChanged(cut=True), EngineChanged(able=False), ContactChanged(cut=False))
    assert isinstance(h.given(assigned())[0], HandBack)
    h.given(EngineChanged(able=True))
    assert isinstance(h.given(assigned(HEAD, E2))[0], StartSandbox)


# The table.


def test_what_cannot_be_tells_the_calls_history(h: Harness) -> None:
    h.given(unfetched(), ParcelFetched("c1", PARCEL))
    with pytest.raises(Impossible, match="'ParcelFetched'"):
        h.given(ended())


def test_a_stop_reason_is_an_alarms_name() -> None:
    assert {StopReason(alarm.value) for alarm in Alarm if alarm is not Alarm.ANNOUNCE} == {
        StopReason.TIMEOUT,
        StopReason.DEADLINE,
    }
