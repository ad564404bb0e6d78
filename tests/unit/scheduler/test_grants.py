"""The place of a call that ended is left to the next one, past the scheduler; and taken back."""

from typing import Any

import pytest

from services.scheduler import events
from services.scheduler.events import Command
from services.scheduler.grants import OFTEN_S, SWEEPS_MAX
from shared import messages
from tests.unit.scheduler.build import Driver, arrive, assigned, call, heartbeat, of


@pytest.fixture
def given() -> Driver:
    return Driver(7)


def finished(call_id: str, grant: str = "", runner_id: str = "r1") -> messages.ExecutionFinished:
    return messages.ExecutionFinished(runner_id, call_id, grant)


def quick(given: Driver, *call_ids: str, after_s: float = 0.001, **other: Any) -> list[Command]:
    """Let calls of one kind come and end, one after the other; return what that led to."""
    commands: list[Command] = []
    for call_id in call_ids:
        commands += given(arrive(call(call_id, sandbox_key="k", **other)))
        commands += given(finished(call_id), after_s=after_s)
    return commands


def reserved_mb(given: Driver) -> int:
    return sum(given_out.memory_mb for _, given_out in given.state.ledger.engines().values())


def test_the_second_of_two_quick_calls_leaves_its_place(given: Driver) -> None:
    given(heartbeat("r1"))
    assert not of(events.GrantPlace, quick(given, "a"))
    assert of(events.GrantPlace, quick(given, "b")) == [events.GrantPlace("7.1", "k", "r1")]
    assert reserved_mb(given) == 100
    assert len(given.state.grants) == 1


def test_the_grant_has_as_many_places_as_calls_were_under_way(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*(call(name, sandbox_key="k") for name in "abcd")))
    commands = given(*(finished(name) for name in "abcd"), after_s=0.001)
    assert of(events.GrantPlace, commands) == [events.GrantPlace("7.1", "k", "r1")] * 3
    assert reserved_mb(given) == 300


@pytest.mark.parametrize(
    "other",
    [{"after_s": OFTEN_S * 2}, {"mode": "async"}],
    ids=["that come now and then", "that are async"],
)
def test_calls_leave_no_place(given: Driver, other: dict[str, Any]) -> None:
    given(heartbeat("r1"))
    assert not of(events.GrantPlace, quick(given, "a", "b", "c", **other))
    assert reserved_mb(given) == 0


def test_calls_without_a_kind_leave_no_place(given: Driver) -> None:
    given(heartbeat("r1"), arrive(call("a"), call("b")))
    assert not of(events.GrantPlace, given(finished("a"), finished("b")))


def test_one_kind_is_granted_at_one_runner(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=200), heartbeat("r2", memory_mb=200))
    given(arrive(*(call(name, sandbox_key="k") for name in "abcd")))
    at = {name: given.state.ledger.get(name) for name in "abcd"}
    ends = [finished(name, runner_id=held.runner_id) for name, held in at.items() if held]
    commands = given(*ends)
    assert len({grant.runner_id for grant in of(events.GrantPlace, commands)}) == 1


def test_a_place_that_was_told_of_twice_is_left_once(given: Driver) -> None:
    given(heartbeat("r1"))
    quick(given, "a", "b")
    assert not given(finished("b"))
    assert reserved_mb(given) == 100


def test_places_are_taken_back_when_somebody_waits(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=300))
    quick(given, "a", "b")
    commands = given(arrive(call("big", memory_mb=300)))
    assert of(events.RecallGrant, commands) == [events.RecallGrant("7.1", "k", close=True)]
    assert not assigned(commands)
    assert assigned(given(events.GrantRecalled("7.1", 1))) == [("big", "r1")]
    assert not given.state.grants


def test_no_place_is_left_while_somebody_waits(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=300))
    given(arrive(*(call(name, sandbox_key="k") for name in "ab"), call("big", memory_mb=300)))
    assert assigned(given(finished("a"), finished("b"))) == [("big", "r1")]


def test_a_place_in_use_comes_back_when_its_call_ends(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=300))
    quick(given, "a", "b")
    given(arrive(call("big", memory_mb=300)), events.GrantRecalled("7.1", 0))
    assert assigned(given(finished("direct", "7.1"))) == [("big", "r1")]


def test_a_place_of_a_closed_grant_is_left_anew(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=300))
    quick(given, "a", "b")
    given(arrive(call("big", memory_mb=300)), events.GrantRecalled("7.1", 0))
    given(messages.CancelCall("big"))
    quick(given, "c")
    again = given(finished("direct", "7.1"))
    assert again == [events.GrantPlace("7.2", "k", "r1")]


def test_a_call_whose_sandbox_is_removed_keeps_its_place_under_its_own_id(given: Driver) -> None:
    given(heartbeat("r1"))
    quick(given, "a", "b")
    given(messages.PlaceKept("r1", "direct", "7.1"))
    assert given.state.ledger.held_by("r1") == ("direct",)
    given(messages.PlaceKept("r1", "direct", "7.1"))
    assert reserved_mb(given) == 100
    given(finished("direct"), after_s=1)
    assert reserved_mb(given) == 0


def test_what_is_free_is_taken_back_each_second_and_an_empty_grant_ends(given: Driver) -> None:
    given(heartbeat("r1"))
    quick(given, "a", "b")
    beat = heartbeat("r1")
    recalls = of(events.RecallGrant, given.tick_for(1, beat))
    assert recalls == [events.RecallGrant("7.1", "k", close=False)]
    given(events.GrantRecalled("7.1", 1))
    assert reserved_mb(given) == 0
    recalls = of(events.RecallGrant, given.tick_for(1, beat))
    assert recalls == [events.RecallGrant("7.1", "k", close=True)]
    assert not of(events.RecallGrant, given.tick_for(3, beat))


def test_a_grant_in_use_makes_way_for_a_new_one_after_a_while(given: Driver) -> None:
    given(heartbeat("r1"))
    quick(given, "a", "b")
    recalls = of(events.RecallGrant, given.tick_for(SWEEPS_MAX + 2, heartbeat("r1")))
    assert [recall.close for recall in recalls] == [False] * SWEEPS_MAX + [True]


def test_a_runner_that_drains_has_its_grants_closed(given: Driver) -> None:
    given(heartbeat("r1"))
    quick(given, "a", "b")
    recalls = of(events.RecallGrant, given.tick_for(1, heartbeat("r1", draining=True)))
    assert recalls == [events.RecallGrant("7.1", "k", close=True)]


def test_a_lost_runners_places_are_nobodys(given: Driver) -> None:
    given(heartbeat("r1"))
    quick(given, "a", "b")
    commands = given(messages.RunnerGone("r1"))
    assert commands == [
        events.RecallGrant("7.1", "k", close=True),
        events.ReclaimRunner("r1"),
    ]
    given(events.RunnerReclaimed("r1"), events.GrantRecalled("7.1", 1))
    assert not given.state.grants
    assert len(given.state.ledger) == 0


def test_who_leaves_is_forwarded_to_where_the_call_went(given: Driver) -> None:
    given(heartbeat("r1"), heartbeat("r2"))
    quick(given, "a", "b")
    [grant] = given.state.grants.open()
    said = given(messages.CancelCall("direct", "r2"))
    assert said == [events.ForwardCancel("r2", "direct")]
    unknown = given(messages.CancelCall("another"))
    assert unknown == [events.ForwardCancel(grant.runner_id, "another")]


def test_a_place_whose_end_was_never_told_is_found_by_two_audits(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=300))
    quick(given, "a", "b")
    given(arrive(call("big", memory_mb=300)), events.GrantRecalled("7.1", 0))
    silent = heartbeat("r1", memory_mb=300, running=0)
    found = of(events.AuditRunner, given.tick_for(22, silent))
    assert found[0] == events.AuditRunner("r1", ())
    given(events.RunnerAudited("r1", frozenset(), {"7.1": 1}))
    given(events.RunnerAudited("r1", frozenset()))
    assert reserved_mb(given) == 100
    assert assigned(given(events.RunnerAudited("r1", frozenset()))) == [("big", "r1")]
