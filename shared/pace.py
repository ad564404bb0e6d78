"""Does so much come that waiting a moment for more pays? Pure: time is an argument.

Each write and each read has its price, in Redis and here, however little it carries. But a caller
who is alone must not wait for others who do not come. So it takes both: many commands or entries a
second (slow calls bring few), and many calls under way at one time (a quick caller has but one).
And the wait is a small part of what calls take now, which is what is under way, divided by what
comes a second.

Example: 64 callers bring 2,000 calls a second, so a call takes 32 ms. A wait of 4 ms gathers eight
of them. At 4,000 calls a second one takes 16 ms: 2 ms, again eight. One caller is served at once.
"""

from collections.abc import Callable

#: Longest wait for more, in seconds.
GATHER_MAX_S = 0.004
#: The part of what calls take now that is waited for more.
_PART = 1 / 8
#: From so many a second on, and with so many calls under way.
BUSY_PER_S = 500.0
CROWD_MIN = 8
#: What comes is counted over so long, in seconds.
WINDOW_S = 0.05

#: Says how many calls are under way.
Crowd = Callable[[], int]


def nobody() -> int:
    """Say that no calls are under way: then nothing is ever waited for."""
    return 0


class Pace:
    """Counts what comes; one task owns it."""

    def __init__(self, crowd: Crowd = nobody) -> None:
        """`crowd` is asked whenever it matters."""
        self.crowd = crowd
        self._count = 0
        self._since_s = 0.0
        self._per_s = 0.0

    def count(self, came: int, now_s: float) -> None:
        """Note that so many have come, by `now_s`."""
        self._count += came
        passed_s = now_s - self._since_s
        if passed_s >= WINDOW_S:
            self._per_s = self._count / passed_s
            self._count, self._since_s = 0, now_s

    def gather_s(self) -> float:
        """Return how long to wait for more, in seconds; 0: not at all."""
        if self._per_s < BUSY_PER_S:
            return 0.0
        under_way = self.crowd()
        if under_way < CROWD_MIN:
            return 0.0
        return min(GATHER_MAX_S, under_way / self._per_s * _PART)
