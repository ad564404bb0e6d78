"""Is the line before a route too long for one more? Pure: time is an argument.

A burst is let in whole, and waits. A flood is not: who cannot be served soon is told so at the
entrance, before the body is read, and those who were let in do not wait for long. What
tells the two apart is whether more come than are served, time and again.

Example: a route serves 40 calls a second, each of which takes 0.4 s, so 16 are served at a time.
When 400 come a second, three looks in 0.15 s show that, and 60 are let in meanwhile. Of those the
last waits 60 / 40 - 0.4 = 1.1 s: too long. When 32 are left, it is 0.4 s, no more than a call takes
itself, and from then on one is let in for each that is served. If more sandboxes can serve than
were needed before, those who are let in show it, and then more are.
"""

from collections.abc import Hashable

#: So many are let in whatever is known of a line.
FREE = 8
#: And so many while a flood begins: perhaps more sandboxes can serve than were needed until now.
START = 32
#: How fast a line is served, is the most of the last one to two of these spans, in seconds.
SPAN_S = 5.0
#: A line whose first call was served less than this ago is not judged: sandboxes are opened.
YOUNG_S = 2.0
#: After so long without anybody a line begins anew.
IDLE_S = 30.0
#: Windows in a row in which too many have come, until it counts. Where a platform stands still for
#: a moment there are two: one in which it stops, and one in which it goes on.
_ENOUGH = 3
#: A flood is over when no more come than so many times as are served.
_CALM = 1.1
#: How often a line is looked at, in seconds.
LOOK_S = 0.025
#: The part that the newest call has in how long a call is served.
_NEWEST = 0.1
#: Lines remembered at most, empty ones included.
KEPT_MAX = 10_000


class _Window:
    """Do more come than are served, or could be? Looked at over windows of a least length."""

    __slots__ = ("_came", "_least_s", "_more", "_often", "_ratio", "_served", "_since_s")

    def __init__(self, least_s: float, ratio: float, more: int) -> None:
        """Too many are `ratio` times as many as are served, and `more`."""
        self._least_s, self._ratio, self._more = least_s, ratio, more
        self.begin(0, 0, 0.0)

    def begin(self, came: int, served: int, now_s: float) -> None:
        """Begin a window, and know nothing of earlier ones."""
        self._came, self._served, self._since_s = came, served, now_s
        self._often = 0

    @property
    def overrun(self) -> bool:
        """Whether too many have come in the last windows."""
        return self._often >= _ENOUGH

    def look(self, came: int, served: int, now_s: float, per_s: float = 0.0) -> None:
        """Look at all who came and were served until now; `per_s`: so many could be, lately."""
        passed_s = now_s - self._since_s
        here, done = came - self._came, served - self._served
        if passed_s < self._least_s or not (done or per_s) or here + done < FREE:
            return
        too_many = here > self._ratio * max(done, per_s * passed_s) + self._more
        often = self._often + 1 if too_many else 0
        self.begin(came, served, now_s)
        self._often = often


class Line:
    """Those who wait for a route and those who are served, on one replica."""

    __slots__ = (
        "_came",
        "_counted",
        "_counted_came",
        "_counted_s",
        "_fast",
        "_flooded_s",
        "_look_s",
        "_most_per_s",
        "_seen_s",
        "_served",
        "_slow",
        "_span_s",
        "_takes_s",
        "_wait_s",
        "_young_until_s",
        "inside",
    )

    def __init__(self, wait_s: float) -> None:
        """Let nobody in, in a flood, who waits longer than `wait_s` and than a call takes."""
        self._wait_s = wait_s
        self.inside = 0
        self._came = self._served = 0
        #: A flood is noticed at once, and a trickle too much after a while.
        self._fast, self._slow = _Window(0.05, 1.25, 4), _Window(2.0, 1.05, 8)
        #: Calls served a second, at most, in this span and in the one before; counted from then on.
        self._most_per_s = (0.0, 0.0)
        self._span_s = self._counted_s = 0.0
        self._counted = self._counted_came = 0
        #: When a flood began; 0 when none is: as many are served as come, over more than a moment.
        self._flooded_s = 0.0
        self._takes_s = 0.0
        self._seen_s = self._look_s = 0.0
        self._young_until_s = float("inf")

    def enter(self, now_s: float) -> float:
        """Let one more in and return 0; or refuse, and return in how many seconds to come again."""
        self._came += 1
        self.inside += 1
        if self.inside == 1 and now_s - self._seen_s > IDLE_S:
            self._young_until_s = float("inf")
        self._seen_s = now_s
        if self.inside <= FREE or now_s < self._young_until_s:
            return 0.0
        if now_s >= self._look_s:
            self._look(now_s)
        per_s = max(self._most_per_s)
        if not (per_s and self._flooded_s):
            return 0.0
        if self.inside <= START and now_s < self._flooded_s + max(1.0, 2 * self._takes_s):
            return 0.0
        wait_s = self.inside / per_s - self._takes_s
        if wait_s <= max(self._wait_s, self._takes_s):
            return 0.0
        self.inside -= 1
        return wait_s

    def leave(self) -> None:
        """Note that one is not inside any more."""
        self.inside -= 1

    def served(self, took_s: float, now_s: float) -> None:
        """Note that one was answered whose function ran for so long."""
        self._served += 1
        if self._young_until_s == float("inf"):
            self._begin(took_s, now_s)
        self._takes_s += (took_s - self._takes_s) * _NEWEST
        if now_s >= self._look_s:
            self._look(now_s)

    def _begin(self, took_s: float, now_s: float) -> None:
        self._young_until_s = now_s + YOUNG_S
        self._takes_s = took_s
        self._most_per_s, self._span_s = (0.0, 0.0), now_s
        self._counted, self._counted_came, self._counted_s = self._served, self._came, now_s
        self._flooded_s = 0.0
        self._fast.begin(self._came, self._served, now_s)
        self._slow.begin(self._came, self._served, self._young_until_s)

    def _look(self, now_s: float) -> None:
        self._look_s = now_s + LOOK_S
        # While a runner is replaced, fewer are served than could be a moment ago. That is no flood.
        self._fast.look(self._came, self._served, now_s, max(self._most_per_s))
        self._slow.look(self._came, self._served, now_s)
        self._count(now_s)
        if not self._flooded_s and (self._fast.overrun or self._slow.overrun):
            self._flooded_s = now_s

    def _count(self, now_s: float) -> None:
        """Count how many are served, over so long that it does not matter if they are together."""
        passed_s, done = now_s - self._counted_s, self._served - self._counted
        if passed_s < max(0.5, 4 * self._takes_s) or not done:
            return
        if self._came - self._counted_came <= _CALM * done + 1:
            self._flooded_s = 0.0
        self._counted, self._counted_came, self._counted_s = self._served, self._came, now_s
        per_s = done / passed_s
        latest, before = self._most_per_s
        if now_s - self._span_s > SPAN_S:
            self._span_s, self._most_per_s = now_s, (per_s, latest)
        else:
            self._most_per_s = (max(latest, per_s), before)


class Lines:
    """The lines of a replica, by what stands in them."""

    def __init__(self, wait_s: float) -> None:
        """See `Line`."""
        self._wait_s = wait_s
        self._lines: dict[Hashable, Line] = {}

    def of(self, what: Hashable) -> Line:
        """Return the line for something."""
        return self._lines.get(what) or self._new(what)

    def _new(self, what: Hashable) -> Line:
        if len(self._lines) >= KEPT_MAX:
            self._lines = {key: line for key, line in self._lines.items() if line.inside}
        line = self._lines[what] = Line(self._wait_s)
        return line
