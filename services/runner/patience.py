"""Is a queue that does not end worth one more sandbox? Pure: prices of waiting, gains of starts.

Waiting is added up, and when it has cost `PATIENCE` starts, times the square of how many sandboxes
there are, one more is started: each further one helps less, and its start takes CPUs from all. If
calls do not end clearly faster with it (what they lack is a CPU, not a sandbox), then the next one
has to be waited for four times as long.

Example: a start takes 100 ms, one sandbox ends 500 calls a second, five calls wait all the time.
After 160 ms a second one is started. With it 520 calls end in a second; had it brought a fifth of
what it could, it were 600. So the third comes not after 640 ms (as it would have), but, when these
are over, after another 2,560 ms.
"""

PATIENCE = 8.0
#: The part of what one more could bring at most that it must have brought.
_WORTH = 0.2
#: How much longer one waits after each that was in vain, and after how many of them no longer so.
_LONGER, _VAIN_MAX = 4, 4


class Patience:
    """What is known of the queue of one kind. Times are in milliseconds.

    A spell is a time in which calls wait without a break and no sandbox comes.
    """

    __slots__ = ("_before", "_counted_ms", "_debt_ms", "_ended", "_since_ms", "_vain")

    def __init__(self) -> None:
        """Nobody waits yet."""
        #: What waiting has cost since the last start, in call milliseconds, and up to when.
        self._debt_ms, self._counted_ms = 0.0, 0
        #: When this spell began, and how many calls have ended in it.
        self._since_ms, self._ended = 0, 0
        #: Calls that ended in a millisecond before the last one was started; None: of no account.
        self._before: float | None = None
        #: How many in a row were in vain.
        self._vain = 0

    def count(self, waiting: int, now_ms: int) -> None:
        """Note that so many calls have waited since the last count; 0 ends the spell."""
        if waiting:
            self._debt_ms += waiting * (now_ms - self._counted_ms)
        else:
            self._debt_ms = 0.0
            self._begin(now_ms)
        self._counted_ms = now_ms

    def call_ended(self) -> None:
        """Note that a call has ended."""
        self._ended += 1

    def started(self, now_ms: int) -> None:
        """Note that one more is on its way."""
        self._debt_ms = 0.0
        self._begin(now_ms)

    def came(self, now_ms: int) -> None:
        """Note that one more is there."""
        self._begin(now_ms)

    def over(self, start_ms: float, serving: int, now_ms: int) -> bool:
        """Say whether one more is to be started beside those there are; asked after `count`."""
        price_ms = PATIENCE * start_ms * max(1, serving) ** 2 * _LONGER**self._vain
        if self._debt_ms < price_ms:
            return False
        rate = self._ended / max(1, now_ms - self._since_ms)
        if self._before is not None:
            if rate < self._before * (1 + _WORTH / max(1, serving - 1)):
                self._vain = min(self._vain + 1, _VAIN_MAX)
                self._before = None
                self.started(now_ms)
                return False
            self._vain = 0
        self._before = rate
        return True

    def _begin(self, now_ms: int) -> None:
        self._since_ms, self._ended = now_ms, 0
