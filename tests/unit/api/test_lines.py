"""Who is let into a line? Bursts and steady callers are, floods are not."""

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from services.api.lines import KEPT_MAX, Line, Lines

WAIT_S = 0.25


@dataclass
class Station:
    """A route with so many sandboxes, each call of which takes as long, and the line before it."""

    servers: int
    takes_s: float
    line: Line = field(default_factory=lambda: Line(WAIT_S))
    now_s: float = 1000.0
    took_s: list[float] = field(default_factory=list)
    refused: int = 0
    #: When each sandbox is free, and when each answer comes; with who asked when.
    _free_s: list[float] = field(default_factory=list)
    _answers: list[tuple[float, float]] = field(default_factory=list)

    def come(self) -> bool:
        """Let one more come now; returns whether it was let in."""
        if wait_s := self.line.enter(self.now_s):
            assert wait_s > 0
            self.refused += 1
            return False
        self._free_s = self._free_s or [0.0] * self.servers
        ends_s = max(heapq.heappop(self._free_s), self.now_s) + self.takes_s
        heapq.heappush(self._free_s, ends_s)
        heapq.heappush(self._answers, (ends_s, self.now_s))
        return True

    def until(self, to_s: float) -> Iterator[float]:
        """Go on to a time; yields whenever an answer comes."""
        while self._answers and self._answers[0][0] <= to_s:
            self.now_s, asked_s = heapq.heappop(self._answers)
            self.line.served(self.takes_s, self.now_s)
            self.line.leave()
            self.took_s.append(self.now_s - asked_s)
            yield self.now_s
        self.now_s = to_s

    def offered(self, per_s: float, lasting_s: float) -> None:
        """Let so many come a second, whatever becomes of them."""
        end_s = self.now_s + lasting_s
        for number in itertools.count(1):
            next_s = end_s - lasting_s + number / per_s
            if next_s > end_s:
                return
            list(self.until(next_s))
            self.come()

    def callers(self, count: int, lasting_s: float) -> None:
        """Let so many call without end, each again when it is answered."""
        end_s = self.now_s + lasting_s
        for _ in range(count):
            self.come()
        for _ in self.until(end_s):
            self.come()

    def rest(self) -> None:
        list(self.until(self.now_s + 1000))

    @property
    def capacity_per_s(self) -> float:
        return self.servers / self.takes_s


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


@pytest.mark.parametrize(("servers", "takes_s"), [(16, 0.4), (4, 0.25), (64, 0.3), (8, 0.02)])
def test_in_a_flood_who_is_let_in_is_served_soon(servers: int, takes_s: float) -> None:
    station = Station(servers, takes_s)
    station.offered(station.capacity_per_s / 2, 10)
    station.took_s.clear()
    station.offered(10 * station.capacity_per_s, 120)
    station.rest()
    served = len(station.took_s)
    assert served > 0.97 * 120 * station.capacity_per_s
    assert station.refused > 8 * served
    assert percentile(station.took_s, 0.95) < takes_s + max(WAIT_S, takes_s) + 0.1
    assert percentile(station.took_s, 0.98) < 4 * max(takes_s, WAIT_S)


def test_sandboxes_that_end_together_do_not_let_a_flood_in() -> None:
    """Where 16 end at one instant, that instant used to look as if the flood were over."""
    station = Station(16, 0.4)
    station.callers(16, 10)
    station.offered(400, 120)
    station.rest()
    assert percentile(station.took_s, 0.98) < 1.6


def test_six_times_as_many_for_whom_there_are_sandboxes_are_nearly_all_let_in() -> None:
    station = Station(64, 0.4)
    station.offered(10, 10)
    station.offered(60, 10)
    assert station.refused < 0.05 * 600


def test_very_many_more_are_let_in_as_it_shows_that_they_can_be_served() -> None:
    station = Station(200, 0.4)
    station.offered(20, 10)
    station.offered(400, 10)
    before = station.refused
    assert before < 0.6 * 4000
    station.offered(400, 10)
    assert station.refused == before


def test_after_a_flood_all_are_let_in_again() -> None:
    station = Station(16, 0.4)
    station.offered(20, 5)
    station.offered(400, 20)
    before = station.refused
    station.offered(30, 10)
    assert station.refused - before <= 5


@pytest.mark.parametrize("per_s", [10, 30, 38])
def test_below_what_can_be_served_nobody_is_refused(per_s: float) -> None:
    station = Station(16, 0.4)
    station.offered(per_s, 60)
    assert station.refused == 0


@pytest.mark.parametrize("callers", [16, 64, 300])
@pytest.mark.parametrize(("servers", "takes_s"), [(16, 0.4), (1, 0.01), (4, 1.0)])
def test_callers_who_wait_for_their_answers_are_no_flood(
    callers: int, servers: int, takes_s: float
) -> None:
    station = Station(servers, takes_s)
    station.callers(callers, 60)
    assert station.refused == 0


def test_a_burst_is_let_in_whole() -> None:
    station = Station(4, 0.25)
    station.offered(8, 20)
    assert [station.come() for _ in range(200)] == [True] * 200
    station.rest()
    assert len(station.took_s) == 8 * 20 + 200


def test_a_little_too_many_are_noticed_after_a_while() -> None:
    station = Station(16, 0.4)
    station.offered(1.3 * 40, 60)
    station.rest()
    assert station.refused > 0.15 * 1.3 * 40 * 60
    assert max(station.took_s) < 5


def test_a_platform_that_stands_still_is_no_flood() -> None:
    """All who come while the scheduler or a runner is replaced are served when it goes on."""
    station = Station(8, 0.005)
    station.offered(200, 10)
    station._free_s = [station.now_s + 4.0] * 8
    station.offered(200, 10)
    assert station.refused == 0


def test_a_line_that_begins_is_not_judged() -> None:
    station = Station(1, 0.2)
    station.offered(50, 2.0)
    assert station.refused == 0


def test_empty_lines_are_forgotten_when_there_are_many() -> None:
    lines = Lines(WAIT_S)
    kept = lines.of("kept")
    kept.enter(1.0)
    for number in range(KEPT_MAX + 5):
        lines.of(number)
    assert lines.of("kept") is kept
    assert len(lines._lines) <= 10
