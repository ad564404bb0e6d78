"""What time is it? The only module that asks, so that everything else takes time as an argument."""

import time


def epoch_ms() -> int:
    """Return wall-clock time in epoch milliseconds: for the wire and for records."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Return monotonic seconds: for durations and timers inside one process."""
    return time.monotonic()
