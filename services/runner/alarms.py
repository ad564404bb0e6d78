"""For which call is it time? Pure: at most one alarm for each call, and one timer for all of them.

A timer of the loop for each call would cost more than deciding about the call does.
"""

import heapq
from collections.abc import Iterator

from services.runner.state import Alarm

#: So many entries of alarms that were dropped are of no account.
_SLACK = 1_000


class Alarms:
    """What is to ring when. Times are monotonic seconds.

    Invariant: each call's alarm is in the heap once; what else is in the heap has been dropped or
    replaced, and is passed over.
    """

    def __init__(self) -> None:
        self._by_call: dict[str, tuple[float, Alarm]] = {}
        self._heap: list[tuple[float, str, Alarm]] = []

    def __len__(self) -> int:
        return len(self._by_call)

    def set(self, call_id: str, alarm: Alarm, due_s: float) -> None:
        """Ring for a call at a time, and not at what was set before."""
        self._by_call[call_id] = (due_s, alarm)
        heapq.heappush(self._heap, (due_s, call_id, alarm))
        if len(self._heap) > 2 * len(self._by_call) + _SLACK:
            self._heap = [(due, call, what) for call, (due, what) in self._by_call.items()]
            heapq.heapify(self._heap)

    def drop(self, call_id: str) -> None:
        """Ring for a call no more."""
        self._by_call.pop(call_id, None)

    def due(self, now_s: float) -> Iterator[tuple[str, Alarm]]:
        """Yield the calls whose time has come, earliest first; each is dropped with that."""
        while self._heap and self._heap[0][0] <= now_s:
            due_s, call_id, alarm = heapq.heappop(self._heap)
            if self._by_call.get(call_id) == (due_s, alarm):
                del self._by_call[call_id]
                yield call_id, alarm
