"""May this runner be thought lost by now? Pure: it is, if Redis has not heard it for long.

The scheduler gives the calls of a runner to others when its heartbeats have stayed away for
`RUNNER_LOST_S`. By then nothing of them may run here. So the runner reckons from when the last
heartbeat that Redis has answered was sent, which is before anybody heard it, and stops its calls a
fifth of the time earlier: that is for the stopping.

Example: with 5 s, and a heartbeat sent at 10.0 and answered, calls are stopped at 14.0; the
scheduler gives them away at 15.0 at the earliest.

A Redis that refuses connections is away for all, the scheduler included, who gives all runners
time anew when it is back. So a refusal is as good as an answer, and calls go on; silence is not.
"""

_PART = 0.8


class Contact:
    """When this runner was last heard for sure, in monotonic seconds."""

    def __init__(self, lost_after_s: float, now_s: float) -> None:
        """`lost_after_s` is the scheduler's `RUNNER_LOST_S`."""
        self._stop_after_s = _PART * lost_after_s
        self._heard_s = now_s

    @property
    def due_s(self) -> float:
        """When it may be thought lost, unless it is heard before."""
        return self._heard_s + self._stop_after_s

    def heard(self, sent_s: float) -> None:
        """Note that what was sent then has been answered. Answers may come in any order."""
        self._heard_s = max(self._heard_s, sent_s)

    def is_lost(self, now_s: float) -> bool:
        """Say whether it may be thought lost."""
        return now_s >= self.due_s
