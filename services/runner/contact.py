"""May this runner be thought lost by now? Pure: it is, if Redis has not heard it for long.

The scheduler gives the calls of a runner to others when its heartbeats have stayed away for
`RUNNER_LOST_S`. By then nothing of them may run here. So the runner reckons from when the last
heartbeat that Redis has answered was sent, which is before anybody heard it, and stops its calls a
fifth of the time earlier: that is for the stopping.

Example: with 5 s, and a heartbeat sent at 10.0 and answered, calls are stopped at 14.0; the
scheduler gives them away at 15.0 at the earliest.

A Redis that is away is so for all, the scheduler included, who gives all runners time anew when it
is back. So calls go on while it says itself that it is away: it has ended a connection since it
last answered, or refuses new ones, which is believed for `RESTART_S` each time: its whole host may
be silent before it listens again. A network that is cut says nothing.

A Redis that was silent may answer an old heartbeat first. That one was heard, but leaves too little
time to begin anything in: a runner that was lost is so until a younger one has been answered.

Example: with 5 s, lost since 14.0; the answer to a heartbeat sent at 17.0 comes at 20.9, which
would be enough until 21.0. The next one, sent at 20.9 and answered at once, brings it back.
"""

import math

#: How long Redis may take to come back after it last said that it is away, in seconds.
RESTART_S = 30.0
_PART = 0.8
#: A runner that was lost is back when it has so much of that part left.
_FRESH = 0.5


class Contact:
    """When this runner was last heard for sure, in monotonic seconds."""

    def __init__(self, lost_after_s: float, now_s: float) -> None:
        """`lost_after_s` is the scheduler's `RUNNER_LOST_S`."""
        self._stop_after_s = _PART * lost_after_s
        self._heard_s = now_s
        #: When Redis last refused a connection.
        self._refused_s = -math.inf

    def heard(self, sent_s: float) -> None:
        """Note that what was sent then has been answered. Answers may come in any order."""
        self._heard_s = max(self._heard_s, sent_s)

    def refused(self, now_s: float) -> None:
        """Note that nobody listens where Redis should be."""
        self._refused_s = now_s

    def due_s(self, left_s: float | None) -> float:
        """Return when it may be thought lost, unless it is heard before.

        `left_s` is when Redis last ended a connection itself; None if it never did.
        """
        due_s = self._heard_s + self._stop_after_s
        away_s = self._refused_s if left_s is None else max(self._refused_s, left_s)
        if away_s <= self._heard_s:
            return due_s
        return max(due_s, away_s + RESTART_S)

    def is_lost(self, now_s: float, left_s: float | None = None, *, was_lost: bool = False) -> bool:
        """Say whether it may be thought lost; `was_lost`: it was, when this was last asked."""
        spare_s = _FRESH * self._stop_after_s if was_lost else 0.0
        return now_s >= self.due_s(left_s) - spare_s
