"""Given events, expect commands."""

from typing import Any

import pytest

from services.scheduler import events
from services.scheduler.state import EARMARK_MAX_S
from shared import messages
from tests.unit.scheduler.build import (
    START_MS,
    Driver,
    arrive,
    assigned,
    call,
    head,
    heartbeat,
    of,
    refused,
)


@pytest.fixture
def given() -> Driver:
    return Driver()


def finished(call_id: str, runner_id: str = "r1") -> messages.ExecutionFinished:
    return messages.ExecutionFinished(runner_id, call_id)


def test_a_call_goes_to_a_runner_with_room(given: Driver) -> None:
    commands = given(heartbeat("r1"), arrive(call("a")))
    assert assigned(commands) == [("a", "r1")]


def test_calls_wait_for_the_first_runner_and_keep_their_order(given: Driver) -> None:
    assert not given(arrive(call("a"), call("b")))
    assert assigned(given(heartbeat("r1"))) == [("a", "r1"), ("b", "r1")]


def test_capacity_returns_when_the_execution_is_finished(given: Driver) -> None:
    calls = [call(name, memory_mb=600) for name in "ab"]
    assert assigned(given(heartbeat("r1"), arrive(*calls))) == [("a", "r1")]
    assert not given(finished("a", "another-runner"))
    assert assigned(given(finished("a"))) == [("b", "r1")]


def test_cpus_are_capacity_too(given: Driver) -> None:
    calls = [call(name, cpus=0.6) for name in "abc"]
    commands = given(heartbeat("r1", cpus=1.3), arrive(*calls))
    assert assigned(commands) == [("a", "r1"), ("b", "r1")]
    assert given.state.waiting_by_reason() == {"cpus": 1}


def test_replicas_on_one_engine_share_its_capacity_and_its_calls(given: Driver) -> None:
    given(heartbeat("r1", engine_id="e"), heartbeat("r2", engine_id="e"))
    commands = given(arrive(*(call(name, memory_mb=400) for name in "abc")))
    assert assigned(commands) == [("a", "r1"), ("b", "r2")]
    assert given.state.waiting_by_reason() == {"memory": 1}


def test_an_offer_that_shrinks_gives_nothing_until_it_fits(given: Driver) -> None:
    calls = [call(name, memory_mb=400) for name in "abcd"]
    assert len(assigned(given(heartbeat("r1"), arrive(*calls)))) == 2
    assert not given(heartbeat("r1", memory_mb=700))
    assert not given(finished("a", "r1"))
    assert assigned(given(finished("b", "r1"))) == [("c", "r1")]


@pytest.mark.parametrize("said", [{"draining": True}, {"able": False}])
def test_a_runner_that_takes_nothing_gets_nothing(given: Driver, said: dict[str, bool]) -> None:
    assert not given(heartbeat("r1", **said), arrive(call("a")))
    assert assigned(given(heartbeat("r1"))) == [("a", "r1")]


def test_a_sync_call_that_could_never_fit_is_refused_at_once_and_told_why(given: Driver) -> None:
    commands = given(heartbeat("r1"), arrive(call("a", memory_mb=4000)))
    assert refused(commands) == [("a", "capacity")]
    message = of(events.RefuseCall, commands)[0].message
    assert message == (
        "needs 4000 MB and 1 cpu; the largest runner offers 1000 MB and 10 cpus in all"
    )


def test_without_any_runner_a_sync_call_waits_until_its_time_is_up(given: Driver) -> None:
    given(arrive(call("a")))
    assert not refused(given.tick_for(29.5))
    commands = given.tick_for(1)
    assert refused(commands) == [("a", "capacity")]
    assert "no runner is there" in of(events.RefuseCall, commands)[0].message


def test_a_wait_that_ends_says_what_is_missing(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", memory_mb=900), call("b", memory_mb=512)))
    commands = given.tick_for(31, heartbeat("r1"))
    assert refused(commands) == [("b", "capacity")]
    assert of(events.RefuseCall, commands)[0].message == (
        "needs 512 MB and 1 cpu; the largest free runner has 100 MB and 9 cpus"
    )


def test_an_async_call_waits_beyond_any_time(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", memory_mb=900), call("b", "async", memory_mb=512)))
    assert not refused(given.tick_for(600, heartbeat("r1")))
    assert assigned(given(finished("a"))) == [("b", "r1")]


def test_an_async_call_too_large_for_all_runners_fails_after_a_while(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", "async", memory_mb=4000)))
    assert not refused(given.tick_for(59, heartbeat("r1")))
    assert refused(given.tick_for(3, heartbeat("r1"))) == [("a", "capacity")]


def test_an_async_call_too_large_for_all_but_one_to_come_runs_there(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", "async", memory_mb=4000)))
    given.tick_for(30, heartbeat("r1"))
    assert assigned(given(heartbeat("r2", memory_mb=8000))) == [("a", "r2")]


def test_without_runners_async_calls_never_fail(given: Driver) -> None:
    given(arrive(call("a", "async")))
    assert not refused(given.tick_for(300))


def test_a_full_backlog_refuses() -> None:
    given = Driver(sync_backlog_max=2)
    commands = given(arrive(call("a"), call("b"), call("c")))
    assert refused(commands) == [("c", "overloaded")]


def test_the_app_that_fills_the_backlog_pays_for_it() -> None:
    given = Driver(sync_backlog_max=4)
    commands = given(arrive(*(call(f"flood{n}", app="flood") for n in range(6))))
    assert refused(commands) == [("flood4", "overloaded"), ("flood5", "overloaded")]
    commands = given(arrive(call("other", app="other")))
    assert refused(commands) == [("flood3", "overloaded")]
    assert given.state.backlog.get("other")


def test_a_call_that_displaces_another_waits_though_the_backlog_is_over_its_bound() -> None:
    """Calls that come back after failed assignments exceed the bound; none may be forgotten."""
    given = Driver(sync_backlog_max=2)
    lost = [call(f"lost{n}", app="flood") for n in range(3)]
    given(heartbeat("r1"), arrive(*lost))
    given(arrive(*(call(f"big{n}", app="flood", memory_mb=900) for n in range(2))))
    for each in lost:
        given(events.AssignFailed(each, "r1", b"lost"))
    assert len(given.state.backlog) == 5
    commands = given(arrive(call("other", app="other")))
    assert refused(commands) == [("big1", "overloaded")]
    assert given.state.backlog.get("other")


def test_async_calls_beyond_the_bound_are_left_in_redis_and_read_later() -> None:
    given = Driver(async_backlog_max=8)
    calls = [call(f"c{n}", "async", memory_mb=600) for n in range(5)]
    assert not given(arrive(*calls))
    assert len(given.state.backlog) == 2
    commands = given(heartbeat("r1"))
    assert assigned(commands) == [("c0", "r1")]
    assert of(events.ScanAsync, commands) == [events.ScanAsync("app", calls[2].entry_id)]
    given(events.AsyncScanned("app", tuple(calls[2:]), None))
    assert len(given.state.backlog) == 2
    order = []
    for n in range(5):
        done = given(finished(f"c{n}"))
        order += assigned(done)
        for scan in of(events.ScanAsync, done):
            left = [c for c in calls if c.order >= events.waiting(scan.from_id, c.head).order]
            order += assigned(given(events.AsyncScanned("app", tuple(left), None)))
    assert [call_id for call_id, _ in order] == ["c1", "c2", "c3", "c4"]


def test_an_app_with_many_async_calls_leaves_room_for_others() -> None:
    given = Driver(async_backlog_max=8)
    given(arrive(*(call(f"c{n}", "async", app="many") for n in range(100))))
    given(arrive(call("other", "async", app="other")))
    assert given.state.backlog.get("other")


def test_several_apps_whose_async_calls_wait_for_long_leave_room_for_others() -> None:
    given = Driver(async_backlog_max=40)
    given(heartbeat("r1", memory_mb=100_000, cpus=1000.0))
    for app in ("a", "b", "c", "d", "e", "f"):
        given(arrive(*(call(f"{app}{n}", "async", app=app, memory_mb=90_000) for n in range(100))))
    assert given.state.backlog.wants_async
    assert len(given.state.backlog) < 40
    assert assigned(given(arrive(call("other", "async", app="other"))))[-1:] == [("other", "r1")]


def test_one_size_that_does_not_fit_does_not_stop_another(given: Driver) -> None:
    calls = [call("a", memory_mb=700), call("big", memory_mb=700), call("small", memory_mb=100)]
    assert assigned(given(heartbeat("r1"), arrive(*calls))) == [("a", "r1"), ("small", "r1")]


def test_a_large_call_is_not_starved_by_small_ones(given: Driver) -> None:
    given(heartbeat("r1"))
    given(arrive(*(call(f"s{n}", memory_mb=200) for n in range(5))))
    given(arrive(call("big", memory_mb=800, wait_until_ms=START_MS + 60_000)))
    given(arrive(*(call(f"s{n}", memory_mb=200) for n in range(5, 400))))
    running, next_one = [f"s{n}" for n in range(5)], 400
    for _ in range(100):
        commands = given(finished(running.pop(0)), heartbeat("r1"))
        commands += given(
            arrive(call(f"s{next_one}", memory_mb=200, app="small")), events.Tick(caught_up=True)
        )
        running += [call_id for call_id, _ in assigned(commands)]
        next_one += 1
        given.now_s += 0.1
        if "big" in running:
            break
    assert "big" in running
    given(finished("big"), events.Tick(caught_up=True))
    assert given.state.placement.earmark is None


def test_an_earmark_ends_with_the_call_it_is_for(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", memory_mb=600), call("big", memory_mb=900)))
    given.tick_for(6, heartbeat("r1"))
    assert given.state.placement.earmark is not None
    given(arrive(call("small")))
    assert given.state.waiting_by_reason() == {"memory": 1, "earmarked": 1}
    given(messages.CancelCall("big"))
    assert assigned(given.tick_for(0.25)) == [("small", "r1")]


def test_a_large_call_behind_a_long_one_leaves_others_the_room_half_of_the_time(
    given: Driver,
) -> None:
    given(heartbeat("r1"), arrive(call("long")), arrive(call("big", "async", memory_mb=1000)))
    waited_s, since_s = 0.0, given.now_s
    for number in range(200):
        wait_until_ms = START_MS + round((given.now_s - 1000) * 1000) + 30_000
        commands = given(arrive(call(f"s{number}", app="other", wait_until_ms=wait_until_ms)))
        asked_s = given.now_s
        while not assigned(commands):
            commands = given.tick_for(0.25, heartbeat("r1"))
            assert not refused(commands)
        waited_s += given.now_s - asked_s
        given(finished(f"s{number}"))
        given.tick_for(1, heartbeat("r1"))
    assert EARMARK_MAX_S <= waited_s <= (given.now_s - since_s) / 2
    commands = given(finished("long")) + given.tick_for(EARMARK_MAX_S + 6, heartbeat("r1"))
    assert ("big", "r1") in assigned(commands)


def test_apps_take_turns(given: Driver) -> None:
    given(heartbeat("r1", cpus=1.0))
    given(arrive(*(call(f"a{n}", app="a") for n in range(3))))
    given(arrive(*(call(f"b{n}", app="b") for n in range(3))))
    order = ["a0"]
    for _ in range(5):
        order += [call_id for call_id, _ in assigned(given(finished(order[-1])))]
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_callers_leaving_ends_a_waiting_call(given: Driver) -> None:
    waits = call("a")
    given(arrive(waits))
    assert given(messages.CancelCall("a")) == [events.CancelWaiting(waits)]


def test_a_callers_leaving_is_forwarded_to_the_runner(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a")))
    assert given(messages.CancelCall("a")) == [events.ForwardCancel("r1", "a")]


def test_a_cancel_read_before_its_call_still_counts(given: Driver) -> None:
    given(heartbeat("r1"))
    assert not given(messages.CancelCall("a"))
    late = call("a")
    assert given(arrive(late)) == [events.CancelWaiting(late)]


def test_a_call_taken_by_somebody_else_is_forgotten(given: Driver) -> None:
    taken = call("a", memory_mb=900)
    given(heartbeat("r1"), arrive(taken, call("b", memory_mb=900)))
    assert assigned(given(events.AssignFailed(taken, "r1", b"gone"))) == [("b", "r1")]


def test_a_runner_whose_stream_is_missing_is_left_alone_for_a_moment(given: Driver) -> None:
    waits = call("a")
    given(heartbeat("r1"), arrive(waits))
    assert not given(events.AssignFailed(waits, "r1", b"lost"))
    assert not assigned(given.tick_for(0.75, heartbeat("r1")))
    assert assigned(given.tick_for(0.5, heartbeat("r1"))) == [("a", "r1")]


def test_a_call_that_nobody_waits_for_any_more_is_not_assigned_again(given: Driver) -> None:
    waits = call("a")
    given(heartbeat("r1"), arrive(waits), messages.CancelCall("a"))
    assert given(events.AssignFailed(waits, "r1", b"lost")) == [events.CancelWaiting(waits)]


def test_a_call_put_back_by_its_runner_is_assigned_anew(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a")))
    given(heartbeat("r1", draining=True), heartbeat("r2"))
    assert assigned(given(arrive(call("a")))) == [("a", "r2")]
    assert given.state.ledger.held_by("r1") == ()


def test_an_entry_read_twice_is_one_call(given: Driver) -> None:
    once = call("a")
    assert assigned(given(heartbeat("r1"), arrive(once), arrive(once))) == [("a", "r1")]


def test_a_silent_runner_is_reclaimed_and_its_capacity_goes(given: Driver) -> None:
    given(heartbeat("r1"), heartbeat("r2"), arrive(call("a")))
    commands = given.tick_for(6, heartbeat("r2"))
    assert of(events.ReclaimRunner, commands) == [events.ReclaimRunner("r1")]
    assert not given(heartbeat("r1"))
    given(events.RunnerReclaimed("r1"))
    assert list(given.state.ledger.engines()) == ["engine-of-r2"]
    assert "a" not in given.state.ledger


def test_a_runner_that_drained_is_reclaimed_at_once(given: Driver) -> None:
    given(heartbeat("r1"))
    gone = messages.RunnerGone("r1", unstarted=True)
    assert given(gone) == [events.ReclaimRunner("r1", unstarted=True)]


def test_a_scheduler_that_was_deaf_does_not_call_runners_lost(given: Driver) -> None:
    given(heartbeat("r1"), events.Tick(caught_up=True))
    assert not given(events.Tick(caught_up=True), after_s=60)
    given.tick_for(4)
    for _ in range(8):
        given(events.Tick(caught_up=False), after_s=1)
    assert not given.tick_for(4)
    assert of(events.ReclaimRunner, given.tick_for(2))


def test_a_new_reign_takes_over_what_runners_hold(given: Driver) -> None:
    held = (events.Held("r1", head("a", memory_mb=700)), events.Held("r1", head("b")))
    given(events.Rebuilt((heartbeat("r1"),), held))
    assert not given(arrive(call("c", memory_mb=300)))
    assert assigned(given(finished("b"))) == [("c", "r1")]


def test_a_new_reign_heeds_callers_who_left_before_it(given: Driver) -> None:
    held = (events.Held("r1", head("a")),)
    commands = given(events.Rebuilt((heartbeat("r1"),), held, ("a", "b")))
    assert commands == [events.ForwardCancel("r1", "a")]
    late = call("b")
    assert given(arrive(late)) == [events.CancelWaiting(late)]


def test_a_call_found_with_its_runner_and_then_waiting_waits(given: Driver) -> None:
    given(events.Rebuilt((heartbeat("r1"),), (events.Held("r1", head("a")),)))
    assert assigned(given(arrive(call("a")))) == [("a", "r1")]


def test_capacity_whose_return_was_never_reported_is_found_by_two_audits(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", memory_mb=900), call("b", memory_mb=900)))
    idle = heartbeat("r1", running=0)
    audits = 0
    for _ in range(50):
        commands = given.tick_for(1, idle)
        for audit in of(events.AuditRunner, commands):
            audits += 1
            commands += given(events.RunnerAudited("r1", frozenset(audit.call_ids)))
        if assigned(commands):
            break
    assert audits == 2
    assert "b" in given.state.ledger


def audited_until_told(given: Driver, idle: messages.Heartbeat) -> list[Any]:
    commands: list[Any] = []
    for _ in range(15):
        commands += given.tick_for(1, idle)
        for audit in of(events.AuditRunner, commands):
            commands.remove(audit)
            commands += given(events.RunnerAudited("r1", frozenset(audit.call_ids)))
    return of(events.TellLost, commands)


def test_the_caller_of_a_call_that_is_lost_is_told(given: Driver) -> None:
    lost = call("a", reply_to="api-1")
    given(heartbeat("r1"), arrive(lost))
    assert audited_until_told(given, heartbeat("r1", running=0)) == [events.TellLost(lost.head)]


def test_nobody_is_told_of_a_lost_call_whose_caller_has_left_or_never_waited(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", reply_to="api-1"), call("b", mode="async")))
    given(messages.CancelCall("a"))
    assert not audited_until_told(given, heartbeat("r1", running=0))
    assert len(given.state.ledger) == 0


def test_a_sync_call_that_was_in_its_stream_no_more_is_told_to_its_caller(given: Driver) -> None:
    lost, taken = call("a", reply_to="api-1"), call("b", mode="async")
    given(heartbeat("r1"), arrive(lost, taken))
    assert given(events.AssignFailed(lost, "r1", b"gone")) == [events.TellLost(lost.head)]
    assert not given(events.AssignFailed(taken, "r1", b"gone"))


def test_a_long_wait_is_reported_once_in_a_while(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a", memory_mb=900), call("b", memory_mb=512)))
    reports = of(events.ReportWait, given.tick_for(9, heartbeat("r1")))
    assert [(r.call.head.call_id, r.reason) for r in reports] == [("b", "memory")]
    assert len(of(events.ReportWait, given.tick_for(10, heartbeat("r1")))) == 1
