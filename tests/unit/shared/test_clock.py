"""Do all services have one time, whatever their machines' clocks say?"""

import doctest
import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from shared import clock, logs, streams


@pytest.fixture(autouse=True)
def _own_time() -> Iterator[None]:
    """Leave the time as it was."""
    before_ns = clock._common.zero_ns
    yield
    clock._common.zero_ns = before_ns


@pytest.mark.parametrize("module", [clock, streams])
def test_worked_examples_hold(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_jump_of_the_machines_clock_is_not_noticed(
    monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    before_ms, wall_ns = clock.epoch_ms(), time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns + jump_s * 10**9)
    assert abs(clock.epoch_ms() - before_ms) < 1000
    assert abs(clock.wall_ms() - before_ms - jump_s * 1000) < 1000
    at_ms = clock.epoch_ms() + 5_000
    assert abs(clock.as_wall_ms(at_ms) - at_ms - jump_s * 1000) < 1000


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0, 0.5])
def test_the_servers_time_is_taken_over(ahead_s: float) -> None:
    now_s = clock.monotonic_s()
    server_s = clock.epoch_ms() / 1000 + ahead_s
    assert clock.follow(server_s, now_s, now_s) == pytest.approx(ahead_s, abs=0.1)
    assert clock.epoch_ms() / 1000 == pytest.approx(server_s, abs=0.1)
    assert clock.follow(clock.epoch_ms() / 1000, now_s, clock.monotonic_s()) == 0.0


def test_small_differences_and_slow_answers_change_nothing() -> None:
    now_s = clock.monotonic_s()
    server_s = clock.epoch_ms() / 1000
    assert clock.follow(server_s + 0.01, now_s, now_s + 0.001) == 0.0
    assert clock.follow(server_s + 3600, now_s, now_s + 1.0) == 0.0


def test_a_warning_that_repeats_is_logged_seldom_with_how_often_it_was_due() -> None:
    now_s = [100.0]
    with capture_logs() as lines:
        seldom = logs.Seldom("message_lost", every_s=5.0, now_s=lambda: now_s[0])
        for _ in range(1000):
            seldom.warning(error="away")
        now_s[0] += 5.0
        seldom.warning(error="still away")
    assert [(line["error"], line["times"]) for line in lines] == [("away", 1), ("still away", 1000)]
