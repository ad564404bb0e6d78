"""How long is waited before the next try? Longer each time, and never all at one moment."""

import asyncio
import random


class Backoff:
    """Waiting times that grow after each failure, with jitter, and start anew after a success."""

    def __init__(self, first_s: float = 0.1, longest_s: float = 2.0) -> None:
        """Wait about `first_s` seconds at first, doubling up to `longest_s`."""
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def reset(self) -> None:
        """Start anew: it worked."""
        self._next_s = self._first_s

    def next_s(self) -> float:
        """Return how long to wait before the next try, in seconds: half of it is chance."""
        now_s = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)
        self._next_s = min(self._next_s * 2, self._longest_s)
        return now_s

    async def wait(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self.next_s())
