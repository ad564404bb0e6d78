"""What environment does a call's process get? Pure: the route's, the call's, the deadline.

The names are made by `shared.environment` in the api; here they are only put together.
"""

from collections.abc import Mapping

DEADLINE = "DEADLINE"


def assemble(
    config_env: Mapping[str, str], call_env: Mapping[str, str], deadline_ms: int
) -> dict[str, str]:
    """Return the variables of a call; a request's win over config's.

    `deadline_ms` is when the run clock ends, in epoch milliseconds. The clock starts when the
    process does, a little later than this is known: a process that keeps to its `DEADLINE` is
    never late.

    >>> assemble({"X": "1", "METHOD": "no"}, {"METHOD": "GET"}, 1733289443328)
    {'X': '1', 'METHOD': 'GET', 'DEADLINE': '1733289443328'}
    """
    return {**config_env, **call_env, DEADLINE: str(deadline_ms)}


def ends_at_ms(now_ms: int, timeout_ms: int, deadline_ms: int) -> int:
    """Return when a run starting now must end: its timeout, or its caller's deadline if sooner.

    `deadline_ms` 0 is no deadline.

    >>> ends_at_ms(1_000, 30_000, 0), ends_at_ms(1_000, 30_000, 5_000)
    (31000, 5000)
    """
    timeout_at_ms = now_ms + timeout_ms
    return min(timeout_at_ms, deadline_ms) if deadline_ms else timeout_at_ms
