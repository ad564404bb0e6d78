"""What time is it? The only module that asks, so that everything else takes time as an argument.

The services must agree on the time, or a call's deadline is past for one while it is far for
another. So epoch time here is Redis' time, which all of them follow (`follow`), carried on by the
monotonic clock: a machine's own clock may be wrong, and jump, and none of them notices.
"""

import time
from dataclasses import dataclass

#: Answers that took longer say too little about the time, in seconds.
ROUND_TRIP_MAX_S = 0.1
#: Differences up to here are left alone, in seconds.
NEAR_S = 0.02


@dataclass(slots=True)
class _Common:
    #: Epoch nanoseconds at which the monotonic clock was zero; by this machine's clock at first.
    zero_ns: int


_common = _Common(time.time_ns() - time.monotonic_ns())


def epoch_ms() -> int:
    """Return the common time in epoch milliseconds: for the wire and for records."""
    return (time.monotonic_ns() + _common.zero_ns) // 1_000_000


def wall_ms() -> int:
    """Return this machine's time in epoch milliseconds: for what only this machine compares.

    Functions, tokens, files and the engine know no other.
    """
    return time.time_ns() // 1_000_000


def as_wall_ms(common_ms: int) -> int:
    """Return what this machine's clock says at a common time."""
    return common_ms - epoch_ms() + wall_ms()


def monotonic_s() -> float:
    """Return monotonic seconds: for durations and timers inside one process."""
    return time.monotonic()


def follow(server_s: float, asked_s: float, answered_s: float) -> float:
    """Take over a server's epoch time; return by how much ours was changed, in seconds.

    The server was asked and answered at these monotonic seconds.
    """
    changed_s = difference_s(server_s, asked_s, answered_s, _common.zero_ns / 1e9)
    _common.zero_ns += round(changed_s * 1e9)
    return changed_s


def difference_s(server_s: float, asked_s: float, answered_s: float, zero_s: float) -> float:
    """Return by how much to change `zero_s`, our epoch time at monotonic 0; 0 if it is near.

    >>> difference_s(1060.0, asked_s=9.99, answered_s=10.01, zero_s=1000.0)
    50.0
    >>> difference_s(1060.0, asked_s=9.0, answered_s=11.0, zero_s=1000.0)
    0.0
    """
    if answered_s - asked_s > ROUND_TRIP_MAX_S:
        return 0.0
    changed_s = server_s - (asked_s + answered_s) / 2 - zero_s
    return changed_s if abs(changed_s) > NEAR_S + answered_s - asked_s else 0.0
