"""Which runners have a sandbox for a call, free or in use, and how long is the line before it?

Knows what runners say of themselves and which calls they have been given since; nothing of
capacity. Runners are bits (`Fleet`), so that whole sets of them are compared at once.
"""

from dataclasses import dataclass, field

from services.scheduler.ledger import Group
from services.scheduler.levels import Levels
from shared import messages


@dataclass(slots=True)
class _Stock:
    """One runner's sandboxes of one key."""

    #: How many it has said it has: idle, busy or on their way.
    said: int = 0
    #: Calls it has now, and the most sandboxes it may have for them; 0: as many as fit.
    calls: int = 0
    most: int = 0
    #: The most it needed at once since its last heartbeat, and in the time before that.
    peak: int = 0
    peak_before: int = 0
    ready: bool = False
    home: bool = False

    @property
    def known(self) -> int:
        """How many it has, as far as can be known."""
        return max(self.said, self.peak, self.peak_before)

    def settle(self) -> None:
        """Take note that a heartbeat has come."""
        in_use = min(self.calls, self.most) if self.most else self.calls
        self.peak, self.peak_before = in_use, self.peak


@dataclass(slots=True)
class _Shelf:
    """All sandboxes of one runner, by key."""

    bit: int
    stocks: dict[str, _Stock] = field(default_factory=dict)
    #: What the last heartbeat said, and what it made of that.
    sandboxes: tuple[messages.SandboxCount, ...] = ()
    said: dict[str, int] = field(default_factory=dict)
    #: Keys of calls that came or ended since the last heartbeat, and in the time before that.
    touched: set[str] = field(default_factory=set)
    touched_before: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Where:
    """Where sandboxes of one key are, as sets of runners."""

    #: Those that have one free for a call.
    ready: int = 0
    #: Those that have one, or are about to.
    home: int = 0


_NO_SANDBOX = Where()


class Sandboxes:
    """Where the sandboxes of each key are.

    A heartbeat is up to a second old, and a runner starts sandboxes for the calls it is given. So
    a runner has as many as it has said, or as it had calls at once since the last heartbeat but
    one: the last may have been sent before those calls arrived. One is free if it has fewer calls.

    Example: a runner says it has 3 sandboxes of a key, and has 1 call of it: 2 are free. It gets
    4 more calls: 5 are counted, none is free. 3 calls end: 3 are free, of which it may just have
    started 2. Two heartbeats later, what they say counts: 3 are there, 1 is free.
    """

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._where: dict[str, Where] = {}

    def at(self, key: str) -> Where:
        """Return where sandboxes of a key are."""
        return self._where.get(key, _NO_SANDBOX)

    def give(self, runner_id: str, bit: int, key: str, most: int = 0) -> None:
        """Note that a runner has got a call; it has at most so many sandboxes of the key (0: any).

        `bit` is the runner's.
        """
        shelf = self._shelves.get(runner_id) or self._new_shelf(runner_id, bit)
        stock = shelf.stocks.get(key)
        if stock is None:
            stock = shelf.stocks[key] = _Stock()
        stock.calls += 1
        stock.most = most
        if stock.calls > stock.peak and (not most or stock.calls <= most):
            stock.peak = stock.calls
        shelf.touched.add(key)
        self._show(shelf, key, stock)

    def take(self, runner_id: str, key: str) -> None:
        """Note that a runner is rid of a call."""
        shelf = self._shelves[runner_id]
        stock = shelf.stocks[key]
        stock.calls -= 1
        shelf.touched.add(key)
        self._show(shelf, key, stock)

    def beat(self, runner_id: str, bit: int, sandboxes: tuple[messages.SandboxCount, ...]) -> None:
        """Take in what a runner says it has; costs for what has changed since it last said so."""
        shelf = self._shelves.get(runner_id) or self._new_shelf(runner_id, bit)
        changed = shelf.touched | shelf.touched_before
        for key in changed:
            shelf.stocks[key].settle()
        shelf.touched, shelf.touched_before = set(), shelf.touched
        if sandboxes != shelf.sandboxes:
            changed |= _update(shelf, sandboxes)
        for key in changed:
            stock = shelf.stocks.get(key)
            if stock is None:
                stock = shelf.stocks[key] = _Stock()
            stock.said = shelf.said.get(key, 0)
            self._show(shelf, key, stock)
            if not (stock.known or key in shelf.touched_before):
                del shelf.stocks[key]

    def forget(self, runner_id: str) -> None:
        """Forget a runner, which has no calls any more."""
        shelf = self._shelves.pop(runner_id, None)
        if shelf is None:
            return
        for key, stock in shelf.stocks.items():
            self._mark(shelf.bit, key, stock, ready=False, home=False)

    def check(self) -> None:
        """Raise AssertionError unless the sets are what the stocks say. For tests."""
        where: dict[str, Where] = {}
        for shelf in self._shelves.values():
            for key, stock in shelf.stocks.items():
                route = where.setdefault(key, Where())
                route.ready |= shelf.bit if stock.known > stock.calls else 0
                route.home |= shelf.bit if stock.known else 0
        where = {key: route for key, route in where.items() if route.home}
        if where != self._where:
            raise AssertionError(f"{self._where} should be {where}")

    def _new_shelf(self, runner_id: str, bit: int) -> _Shelf:
        shelf = self._shelves[runner_id] = _Shelf(bit)
        return shelf

    def _show(self, shelf: _Shelf, key: str, stock: _Stock) -> None:
        """Bring the sets up to a stock."""
        known = stock.known
        ready, home = known > stock.calls, known > 0
        if ready != stock.ready or home != stock.home:
            self._mark(shelf.bit, key, stock, ready=ready, home=home)

    def _mark(self, bit: int, key: str, stock: _Stock, *, ready: bool, home: bool) -> None:
        route = self._where.get(key)
        if route is None:
            route = self._where[key] = Where()
        if ready != stock.ready:
            route.ready ^= bit
            stock.ready = ready
        if home != stock.home:
            route.home ^= bit
            stock.home = home
        if not route.home:
            del self._where[key]


def _update(shelf: _Shelf, sandboxes: tuple[messages.SandboxCount, ...]) -> set[str]:
    """Note what a heartbeat says; returns the keys that it says something new of."""
    said: dict[str, int] = {}
    for count in sandboxes:
        key = count.sandbox_key
        if key:
            said[key] = said.get(key, 0) + count.idle + count.busy + count.starting
    before, shelf.said, shelf.sandboxes = shelf.said, said, sandboxes
    changed = {key for key, number in said.items() if before.get(key) != number}
    changed.update(before.keys() - said.keys())
    return changed


class Lines:
    """How long the lines are before hot routes' sandboxes, at the runners that have no other room.

    A runner is listed for a group while it has as many calls of it as sandboxes, or more.
    """

    def __init__(self) -> None:
        self._full: dict[Group, int] = {}
        self._lengths: dict[Group, Levels] = {}

    def full(self, group: Group) -> int:
        """Return the runners whose sandboxes of a group are all taken."""
        return self._full.get(group, 0)

    def change(self, bit: int, group: Group, before: int, now: int) -> None:
        """Note that a runner has another number of a group's calls."""
        lengths = self._lengths.get(group)
        if before >= group.most and lengths is not None:
            lengths.discard(bit, before)
            self._full[group] ^= bit
        if now >= group.most:
            if lengths is None:
                lengths = self._lengths[group] = Levels()
            lengths.add(bit, now)
            self._full[group] = self._full.get(group, 0) | bit
        elif lengths is not None and not self._full[group]:
            del self._full[group], self._lengths[group]

    def shortest(self, group: Group, among: int) -> int:
        """Return one of these runners, with the shortest line that has a place; or the empty set.

        Of several, the one that joined first.
        """
        lengths = self._lengths.get(group)
        found = lengths.lowest(among) if lengths else None
        if found is None or found[0] >= group.longest:
            return 0
        return found[1] & -found[1]

    def check(self, members: dict[tuple[int, Group], int]) -> None:
        """Raise AssertionError unless the lines are as long as these numbers of calls say."""
        full: dict[Group, int] = {}
        for (bit, group), count in members.items():
            if count >= group.most:
                full[group] = full.get(group, 0) | bit
                if self._lengths[group].lowest(bit) != (count, bit):
                    raise AssertionError(f"line of {group} at {bit}: {count}")
        if self._full != full:
            raise AssertionError(f"{self._full} should be {full}")
