"""Calls go to where a sandbox is: by what runners say, and by what was given to them since."""

from typing import Any

import pytest

from services.scheduler import events
from services.scheduler.events import Waiting
from services.scheduler.ledger import Group, Size
from services.scheduler.sandboxes import Lines, Sandboxes
from shared import messages
from tests.unit.scheduler.build import Driver, arrive, assigned, call, heartbeat, rebuilt


@pytest.fixture
def given() -> Driver:
    return Driver()


def count(key: str = "k", *, idle: int = 0, busy: int = 0, starting: int = 0) -> Any:
    return messages.SandboxCount("app", "/p", key, idle, busy, starting)


def keyed(call_id: str, key: str = "k", **other: Any) -> Waiting:
    return call(call_id, sandbox_key=key, **other)


def finished(call_id: str, runner_id: str = "r1") -> messages.ExecutionFinished:
    return messages.ExecutionFinished(runner_id, call_id)


def test_a_free_sandbox_goes_before_images_and_free_memory(given: Driver) -> None:
    given(heartbeat("r1", images=("image",), memory_mb=8000))
    given(heartbeat("r2", sandboxes=(count(idle=1),)))
    assert assigned(given(arrive(keyed("a")))) == [("a", "r2")]
    assert assigned(given(arrive(keyed("b", "other")))) == [("b", "r1")]


def test_an_image_pinned_to_a_digest_is_where_that_digest_is(given: Driver) -> None:
    pinned = "127.0.0.1:5000/me/x:2@sha256:0a"
    given(
        heartbeat("r1", memory_mb=8000), heartbeat("r2", images=("127.0.0.1:5000/me/x@sha256:0a",))
    )
    assert assigned(given(arrive(call("a", image=pinned)))) == [("a", "r2")]


def test_a_sandbox_is_free_only_for_calls_of_its_key(given: Driver) -> None:
    given(heartbeat("r1"), heartbeat("r2", sandboxes=(count("", idle=5),)))
    assert assigned(given(arrive(call("a")))) == [("a", "r1")]


def test_busy_sandboxes_are_not_free(given: Driver) -> None:
    given(heartbeat("r1", cpus=1.0), heartbeat("r2", cpus=1.0, sandboxes=(count(busy=1),)))
    given(arrive(keyed("a")))
    assert assigned(given(arrive(keyed("b")))) == [("b", "r1")]


def test_a_sandbox_is_given_out_once_between_two_heartbeats(given: Driver) -> None:
    given(heartbeat("r1", cpus=2.0), heartbeat("r2", cpus=2.0, sandboxes=(count(idle=1),)))
    given(heartbeat("r3", cpus=2.0, sandboxes=(count(idle=1),)))
    commands = given(arrive(keyed("a"), keyed("b")))
    assert assigned(commands) == [("a", "r2"), ("b", "r3")]


def test_a_call_that_has_ended_leaves_its_sandbox_before_any_heartbeat_says_so(
    given: Driver,
) -> None:
    given(heartbeat("r1"), arrive(keyed("a")), heartbeat("r0", memory_mb=8000))
    given(finished("a"))
    assert assigned(given(arrive(keyed("b")))) == [("b", "r1")]


def test_a_heartbeat_that_may_be_older_than_a_call_does_not_take_its_sandbox_away(
    given: Driver,
) -> None:
    given(heartbeat("r1"), arrive(keyed("a")), finished("a"))
    given(heartbeat("r1"), heartbeat("r0", memory_mb=8000))
    assert assigned(given(arrive(keyed("b")))) == [("b", "r1")]


def test_two_heartbeats_later_what_they_say_counts(given: Driver) -> None:
    given(heartbeat("r1"), arrive(keyed("a")), finished("a"))
    given(heartbeat("r1"), heartbeat("r1"), heartbeat("r0", memory_mb=8000))
    assert assigned(given(arrive(keyed("b")))) == [("b", "r0")]


def test_a_burst_on_a_cold_route_fills_half_of_a_runner_before_it_touches_another(
    given: Driver,
) -> None:
    given(*(heartbeat(f"r{n}", memory_mb=10_000, cpus=8.0) for n in range(5)))
    commands = given(arrive(*(keyed(f"c{n}") for n in range(8))))
    assert [runner for _, runner in assigned(commands)] == ["r0"] * 5 + ["r1"] * 3


def test_a_runner_that_is_gone_has_no_sandboxes(given: Driver) -> None:
    given(heartbeat("r1", sandboxes=(count(idle=9),)), arrive(keyed("a")))
    given(messages.RunnerGone("r1"))
    given(events.RunnerReclaimed("r1"))
    given(heartbeat("r2"), heartbeat("r3", memory_mb=8000))
    assert assigned(given(arrive(keyed("b")))) == [("b", "r3")]


def replicas(given: Driver, *warm: str) -> None:
    for runner in ("r1", "r2", "r3"):
        sandboxes = (count(idle=20),) if runner in warm else ()
        given(heartbeat(runner, engine_id="e", memory_mb=10_000, cpus=100.0, sandboxes=sandboxes))


def test_of_replicas_on_one_engine_the_one_with_the_sandbox_gets_the_call(given: Driver) -> None:
    replicas(given, "r2")
    assert assigned(given(arrive(keyed("a"), keyed("b")))) == [("a", "r2"), ("b", "r2")]


def test_a_replica_that_is_clearly_busier_is_passed_over(given: Driver) -> None:
    replicas(given, "r2")
    commands = given(arrive(*(keyed(f"c{n}") for n in range(12))))
    runners = [runner for _, runner in assigned(commands)]
    assert runners[:5] == ["r2"] * 5
    assert runners[5] == "r1"
    assert {runners.count(runner) for runner in ("r1", "r2", "r3")} <= {2, 3, 4, 5, 6, 7}


def test_of_warm_replicas_the_least_loaded_goes_first(given: Driver) -> None:
    replicas(given, "r2", "r3")
    commands = given(arrive(*(keyed(f"c{n}") for n in range(4))))
    assert [runner for _, runner in assigned(commands)] == ["r2", "r3", "r2", "r3"]


def test_a_new_reign_knows_sandboxes_from_the_last_heartbeats() -> None:
    given = Driver()
    beats = (heartbeat("r1", memory_mb=8000), heartbeat("r2", sandboxes=(count(idle=1),)))
    given(rebuilt(*beats))
    assert assigned(given(arrive(keyed("a")))) == [("a", "r2")]


def test_the_worked_example_of_sandboxes() -> None:
    sandboxes, bit = Sandboxes(), 0b1
    said = (count(idle=2, busy=1),)

    def free() -> int:
        """How many more calls find one free."""
        given = 0
        while sandboxes.at("k").ready:
            sandboxes.give("r1", bit, "k")
            given += 1
        for _ in range(given):
            sandboxes.take("r1", "k")
        return given

    sandboxes.beat("r1", bit, said)
    sandboxes.give("r1", bit, "k")
    assert free() == 2
    for _ in range(4):
        sandboxes.give("r1", bit, "k")
    assert not sandboxes.at("k").ready
    for _ in range(3):
        sandboxes.take("r1", "k")
    sandboxes.check()
    assert free() == 3
    sandboxes.beat("r1", bit, said)
    assert free() == 3
    sandboxes.beat("r1", bit, said)
    sandboxes.beat("r1", bit, said)
    assert free() == 1
    sandboxes.check()


def test_what_is_known_of_a_key_ends_with_it() -> None:
    sandboxes = Sandboxes()
    for bit, runner in ((0b01, "r1"), (0b10, "r2")):
        sandboxes.beat(runner, bit, (count(idle=1), count(starting=1)))
    sandboxes.give("r1", 0b01, "k")
    assert (sandboxes.at("k").ready, sandboxes.at("k").home) == (0b11, 0b11)
    sandboxes.take("r1", "k")
    for _ in range(3):
        sandboxes.beat("r1", 0b01, ())
        sandboxes.check()
    assert (sandboxes.at("k").ready, sandboxes.at("k").home) == (0b10, 0b10)
    sandboxes.forget("r2")
    sandboxes.check()
    assert not sandboxes.at("k").home


def test_a_long_calls_sandbox_is_not_believed_in_for_ever() -> None:
    sandboxes = Sandboxes()
    sandboxes.give("r1", 0b1, "k")
    for _ in range(3):
        sandboxes.beat("r1", 0b1, ())
    sandboxes.take("r1", "k")
    assert sandboxes.at("k").ready == 0b1
    for _ in range(2):
        sandboxes.beat("r1", 0b1, ())
    sandboxes.check()
    assert not sandboxes.at("k").home


def test_a_hot_routes_calls_in_line_are_not_taken_for_sandboxes() -> None:
    sandboxes = Sandboxes()
    for _ in range(5):
        sandboxes.give("r1", 0b1, "k", most=2)
    sandboxes.beat("r1", 0b1, ())
    for _ in range(3):
        sandboxes.take("r1", "k")
    assert not sandboxes.at("k").ready
    sandboxes.take("r1", "k")
    assert sandboxes.at("k").ready == 0b1


def test_the_shortest_line_among_some_runners() -> None:
    lines, pair = Lines(), Group("k", "app", Size(1, 1), 2)
    for bit, length in ((0b001, 4), (0b010, 3), (0b100, 2)):
        for now in range(1, length + 1):
            lines.change(bit, pair, now - 1, now)
    assert lines.full(pair) == 0b111
    assert lines.shortest(pair, among=0b111) == 0b100
    assert lines.shortest(pair, among=0b011) == 0b010
    assert lines.shortest(pair, among=0) == 0
    lines.change(0b100, pair, 2, 1)
    assert lines.full(pair) == 0b011
    for now in range(5, pair.longest + 1):
        lines.change(0b001, pair, now - 1, now)
    assert lines.shortest(pair, among=0b001) == 0
    for bit, length in ((0b001, pair.longest), (0b010, 3)):
        for now in range(length - 1, 0, -1):
            lines.change(bit, pair, now + 1, now)
    assert lines.full(pair) == 0
    assert lines.shortest(pair, among=0b111) == 0
