"""What does each program here need while it runs? To say how far it is, and connections."""

import sys

import aiohttp

from shared import clock

_started_s = clock.monotonic_s()
#: Longer than any promise of the platform, in seconds.
_PATIENCE_S = 120


def seconds() -> float:
    """Return the seconds since the start."""
    return clock.monotonic_s() - _started_s


def tell(what: str) -> None:
    """Show progress, with the seconds since the start."""
    sys.stderr.write(f"[{seconds():5.0f}s] {what}\n")


def session() -> aiohttp.ClientSession:
    """Return as many connections as are wanted, with patience longer than any promise."""
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
