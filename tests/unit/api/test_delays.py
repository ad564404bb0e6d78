"""Who is told of, when, and at the price of how many timers."""

import asyncio
from typing import Any

import pytest

from services.api.delays import TICK_S, Delay


class Clock:
    """Stands in for the loop: time passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.timers: list[tuple[float, Any, tuple[Any, ...]]] = []
        self.made = 0

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Any, *arguments: Any) -> object:
        self.made += 1
        self.timers.append((self.now_s + delay_s, call, arguments))
        return object()

    def pass_until(self, now_s: float) -> None:
        """Let time pass, timer by timer."""
        while self.timers and min(self.timers, key=lambda t: t[0])[0] <= now_s:
            timer = min(self.timers, key=lambda t: t[0])
            self.timers.remove(timer)
            self.now_s = timer[0]
            timer[1](*timer[2])
        self.now_s = now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    standing_in = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: standing_in)
    return standing_in


def test_each_is_told_of_once_when_its_time_has_come(clock: Clock) -> None:
    told: list[str] = []
    delay = Delay(1.0, told.append)
    delay.add("a")
    clock.pass_until(100.5)
    delay.add("b")
    clock.pass_until(100.9)
    assert told == []
    clock.pass_until(101.2)
    assert told == ["a"]
    clock.pass_until(101.5)
    assert told == ["a", "b"]
    clock.pass_until(200.0)
    assert told == ["a", "b"]


def test_after_a_silence_it_goes_on(clock: Clock) -> None:
    told: list[str] = []
    delay = Delay(1.0, told.append)
    for item in "ab":
        delay.add(item)
        clock.pass_until(clock.now_s + 10)
    assert told == ["a", "b"]
    assert clock.timers == []


def test_many_cost_few_timers_and_none_is_late_by_more_than_a_tick(clock: Clock) -> None:
    late_s: list[float] = []

    def told(due_s: float) -> None:
        late_s.append(clock.now_s - due_s)

    delay = Delay(1.0, told)
    for step in range(1000):
        delay.add(clock.now_s + 1.0)
        clock.pass_until(100.0 + step * 0.002)
    clock.pass_until(110.0)
    assert len(late_s) == 1000
    assert min(late_s) >= 0
    assert max(late_s) <= TICK_S + 1e-9
    assert clock.made <= 2.0 / TICK_S + 1
