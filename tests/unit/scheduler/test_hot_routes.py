"""Calls of hot routes: what they are charged, where they wait, and that none is forgotten."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.scheduler import events, ledger
from services.scheduler.events import Waiting
from services.scheduler.ledger import Size
from shared import messages
from tests.unit.scheduler.build import (
    Driver,
    arrive,
    assigned,
    call,
    head,
    heartbeat,
    of,
    refused,
)

#: How many calls may be in line for each sandbox, in these tests.
IN_LINE = 3


@pytest.fixture(autouse=True)
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "QUEUED_MAX", IN_LINE)


@pytest.fixture
def given() -> Driver:
    return Driver()


def hot(call_id: str, *, most: int = 1, key: str = "k", **other: Any) -> Waiting:
    return call(call_id, sandbox_key=key, max_concurrency=most, **other)


def several(count: int, start: int = 0, **other: Any) -> list[Waiting]:
    return [hot(f"c{n}", **other) for n in range(start, start + count)]


def finished(call_id: str, runner_id: str = "r1") -> messages.ExecutionFinished:
    return messages.ExecutionFinished(runner_id, call_id)


def given_out(given: Driver) -> dict[str, int]:
    """Memory given out, by engine, in MB."""
    return {engine: size[1].memory_mb for engine, size in given.state.ledger.engines().items()}


def test_calls_beyond_the_sandboxes_they_share_cost_nothing(given: Driver) -> None:
    commands = given(heartbeat("r1", memory_mb=200), arrive(*several(6, most=2)))
    assert [runner for _, runner in assigned(commands)] == ["r1"] * 6
    assert given_out(given) == {"engine-of-r1": 200}


def test_a_charge_passes_on_to_a_call_in_line_and_returns_with_the_last(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*several(4, most=2)))
    for call_id in ("c0", "c1"):
        given(finished(call_id), after_s=1)
    assert given_out(given) == {"engine-of-r1": 200}
    given(finished("c2"), after_s=1)
    assert given_out(given) == {"engine-of-r1": 100}
    given(finished("c3"), after_s=1)
    assert given_out(given) == {"engine-of-r1": 0}


def test_a_line_has_an_end_and_what_is_beyond_waits_until_it_is_shorter(given: Driver) -> None:
    commands = given(heartbeat("r1"), arrive(*several(6)))
    assert len(assigned(commands)) == 1 + IN_LINE
    assert given.state.waiting_by_reason() == {"concurrency": 2}
    assert assigned(given(finished("c3"))) == [("c4", "r1")]
    assert assigned(given(finished("c0"))) == [("c5", "r1")]


def test_it_is_placed_when_the_line_is_shorter_though_no_capacity_is_free(given: Driver) -> None:
    """A blocked size is not tried again before capacity appears; but a place in line is."""
    given(heartbeat("r1", memory_mb=200), arrive(hot("c0"), call("fills")))
    given(arrive(*several(4, start=1), call("plain")))
    assert given.state.waiting_by_reason() == {"memory": 2}
    assert assigned(given(finished("c1"))) == [("c4", "r1")]
    assert given.state.waiting_by_reason() == {"memory": 1}


def test_a_route_whose_lines_are_full_does_not_stand_in_the_way_of_others(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*several(6)))
    commands = given(arrive(call("plain"), hot("other", key="l")))
    assert assigned(commands) == [("plain", "r1"), ("other", "r1")]


def test_a_new_runner_takes_what_waits_for_a_place_in_line(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*several(6)))
    assert assigned(given(heartbeat("r2"))) == [("c4", "r2"), ("c5", "r2")]


def test_capacity_that_appears_at_another_runner_is_used(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=500), arrive(hot("first")))
    given(heartbeat("r2", memory_mb=900), arrive(call("full", memory_mb=900)))
    given(arrive(*several(IN_LINE + 1)))
    assert given.state.waiting_by_reason() == {"concurrency": 1}
    assert assigned(given(finished("full", "r2"))) == [(f"c{IN_LINE}", "r2")]


def test_where_a_last_sandbox_is_given_out_a_line_begins(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=100), arrive(call("fills"), *several(3)))
    assert assigned(given(finished("fills"))) == [("c0", "r1"), ("c1", "r1"), ("c2", "r1")]


def test_a_runner_that_is_able_again_has_its_places_in_line_again(given: Driver) -> None:
    given(heartbeat("r1", memory_mb=100), arrive(hot("a")))
    given(heartbeat("r1", memory_mb=100, able=False), arrive(hot("b")))
    assert assigned(given(heartbeat("r1", memory_mb=100))) == [("b", "r1")]


def test_a_runner_whose_sandboxes_are_not_all_taken_goes_before_a_line(given: Driver) -> None:
    given(heartbeat("r1", cpus=2.0), heartbeat("r2", cpus=2.0))
    commands = given(arrive(*several(5)))
    assert [runner for _, runner in assigned(commands)] == ["r1", "r2", "r1", "r2", "r1"]


def test_of_two_lines_the_shorter_one_is_chosen(given: Driver) -> None:
    given(heartbeat("r1"), heartbeat("r2"), arrive(*several(6)))
    runner_of = dict(assigned(given(arrive(hot("x")))))
    assert runner_of == {"x": "r1"}
    given(finished(given.state.ledger.held_by("r2")[0], "r2"))
    assert assigned(given(arrive(hot("y"), hot("z")))) == [("y", "r2"), ("z", "r2")]


def test_a_runner_that_takes_no_calls_has_no_line(given: Driver) -> None:
    given(heartbeat("r1"), arrive(hot("a")), heartbeat("r2"), arrive(hot("b"), hot("c"), hot("d")))
    given(heartbeat("r1", draining=True))
    assert assigned(given(arrive(hot("e"), hot("f")))) == [("e", "r2"), ("f", "r2")]


def test_without_capacity_for_a_sandbox_it_waits_like_any_other(given: Driver) -> None:
    commands = given(heartbeat("r1", memory_mb=150), arrive(*several(3, most=2)))
    assert assigned(commands) == [("c0", "r1")]
    assert given.state.waiting_by_reason() == {"memory": 2}
    assert assigned(given(finished("c0"))) == [("c1", "r1")]


def test_an_app_is_reckoned_what_its_calls_are_charged(given: Driver) -> None:
    """App a has ten calls on one sandbox, app b two sandboxes: a has used less."""
    given(heartbeat("r1", cpus=5.0))
    given(arrive(*several(4, app="a"), *several(2, start=4, most=2, key="l", app="b")))
    given(arrive(call("fills", app="c", cpus=2.0, memory_mb=50)))
    given(arrive(call("b", app="b"), call("a", app="a")))
    assert assigned(given(finished("fills"))) == [("a", "r1"), ("b", "r1")]


def test_a_place_in_line_is_no_service_that_others_have_to_wait_for(given: Driver) -> None:
    given(heartbeat("r1", cpus=2.0), arrive(hot("k", app="a"), call("fills", app="c")))
    given(arrive(call("a", app="a"), call("b", app="b")))
    assert assigned(given(arrive(hot("l", app="a")))) == [("l", "r1")]
    assert assigned(given(finished("fills"))) == [("b", "r1")]


def test_a_caller_who_leaves_while_in_the_backlog_takes_nothing_along(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*several(6)))
    gone = given(messages.CancelCall("c4"))
    assert of(events.CancelWaiting, gone)
    assert assigned(given(finished("c0"))) == [("c5", "r1")]
    assert not given.state.backlog


def test_a_wait_that_ends_says_that_the_lines_were_full(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*several(5)))
    commands = given.tick_for(31, heartbeat("r1"))
    assert refused(commands) == [("c4", "capacity")]
    message = of(events.RefuseCall, commands)[0].message
    assert message == (
        "waits for its route's own sandboxes; wherever there is room, 1 sandbox is in use and "
        "3 calls in line, the most that may be"
    )
    assert {r.reason for r in of(events.ReportWait, commands)} == {"concurrency"}


def test_a_lost_assignment_gives_its_place_back(given: Driver) -> None:
    calls = several(3)
    given(heartbeat("r1"), heartbeat("r2", able=False), arrive(*calls))
    given(events.AssignFailed(calls[1], "r1", b"gone"))
    assert given.state.ledger.held_by("r1") == ("c0", "c2")
    assert not given(events.AssignFailed(calls[2], "r1", b"lost"))
    assert assigned(given(heartbeat("r2"))) == [("c2", "r2")]


def test_an_engine_kept_free_for_a_large_call_takes_no_calls_in_line_either(given: Driver) -> None:
    given(heartbeat("r1"), arrive(hot("a"), call("big", memory_mb=950)))
    given.tick_for(6, heartbeat("r1"))
    assert given.state.placement.earmark is not None
    assert not assigned(given(arrive(hot("b"))))
    assert assigned(given(finished("a"))) == [("big", "r1")]
    assert assigned(given(finished("big"), events.Tick(caught_up=True))) == [("b", "r1")]


def test_a_lifted_earmark_opens_the_lines(given: Driver) -> None:
    given(heartbeat("r1"), arrive(hot("a"), call("big", memory_mb=950)))
    given.tick_for(6, heartbeat("r1"))
    given(arrive(call("fills", memory_mb=900)), arrive(hot("b")))
    given(messages.CancelCall("big"))
    commands = given.tick_for(0.25)
    assert dict(assigned(commands)) == {"b": "r1", "fills": "r1"}


def test_no_engine_is_kept_free_for_calls_that_capacity_would_not_help(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*several(6)))
    given.tick_for(20, heartbeat("r1"))
    assert given.state.placement.earmark is None


def test_what_has_waited_for_capacity_before_does_not_keep_an_engine_free_later(
    given: Driver,
) -> None:
    given(heartbeat("r1", memory_mb=200), arrive(hot("c0"), call("fills")))
    given(arrive(*several(4, start=1)), finished("fills"))
    assert given.state.waiting_by_reason() == {"concurrency": 1}
    given.tick_for(6, heartbeat("r1", memory_mb=200))
    assert given.state.placement.earmark is None
    assert assigned(given(arrive(call("plain", memory_mb=50)))) == [("plain", "r1")]


def test_a_new_reign_finds_the_same_charges_and_lines(given: Driver) -> None:
    held = tuple(
        events.Held("r1", head(f"c{n}", sandbox_key="k", max_concurrency=2)) for n in range(5)
    )
    given(events.Rebuilt((heartbeat("r1", memory_mb=300),), held))
    assert given_out(given) == {"engine-of-r1": 200}
    commands = given(arrive(*several(4, start=5, most=2)))
    assert len(assigned(commands)) == 3
    given(*(finished(f"c{n}") for n in range(7)))
    assert given_out(given) == {"engine-of-r1": 200}


def test_another_limit_makes_another_group(given: Driver) -> None:
    """Until its old calls have ended, a route whose limit was changed is charged for both."""
    given(heartbeat("r1"), arrive(*several(2, most=1), *several(2, start=2, most=2)))
    assert given_out(given) == {"engine-of-r1": 300}


def test_a_runner_that_moves_to_another_engine_takes_its_calls_along(given: Driver) -> None:
    given(heartbeat("r1"), arrive(*several(3), call("plain")))
    given(heartbeat("r1", engine_id="new"))
    assert given_out(given) == {"new": 200}
    assert given.state.fleet["r1"].load == 4
    for call_id in ("c0", "c1", "c2", "plain"):
        given(finished(call_id), after_s=1)
    assert given_out(given) == {"new": 0}


@pytest.fixture
def crowd(given: Driver) -> Iterator[Driver]:
    given(heartbeat("r1"), arrive(*several(2)))
    yield given
    for call_id in given.state.ledger.held_by("r1"):
        given(finished(call_id), after_s=1)
    assert Size(0, 0) in {both[1] for both in given.state.ledger.engines().values()}


@pytest.mark.parametrize("isolation", ["sandbox", "call"])
def test_plain_routes_share_nothing(crowd: Driver, isolation: messages.Isolation) -> None:
    plain = [call(f"p{n}", sandbox_key="p", isolation=isolation) for n in range(3)]
    assert len(assigned(crowd(arrive(*plain)))) == 3
    assert given_out(crowd) == {"engine-of-r1": 400}
