"""Who has waited for so long? Tells it of many at the price of one timer."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
#: How long the timer sleeps at least, in seconds: what is due meanwhile is told of together.
TICK_S = 0.05


class Delay(Generic[T]):
    """Calls `due` with each item, a fixed time after it was added and at most `TICK_S` later.

    For things that nearly always are over before: adding one costs next to nothing, and there is
    nothing to cancel. Whether an item is over is for `due` to see.
    """

    def __init__(self, delay_s: float, due: Callable[[T], None]) -> None:
        self._delay_s, self._due = delay_s, due
        #: Items with the loop's time at which they are due. As the delay is fixed, in order.
        self._waiting: deque[tuple[float, T]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        """Call `due` with an item when the time comes."""
        loop = asyncio.get_running_loop()
        self._waiting.append((loop.time() + self._delay_s, item))
        if self._timer is None:
            self._timer = loop.call_later(self._delay_s, self._tell, loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        while self._waiting and self._waiting[0][0] <= now_s:
            self._due(self._waiting.popleft()[1])
        self._timer = None
        if self._waiting:
            rest_s = max(TICK_S, self._waiting[0][0] - now_s)
            self._timer = loop.call_later(rest_s, self._tell, loop)
