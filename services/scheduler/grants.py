"""Which places do ended calls leave to the next ones? Pure: time is an argument.

A quick function ends a call a moment before the next one comes, and the next one would be given
what this one held: the same capacity, at the same runner. So the scheduler grants it beforehand.
The place of an ended call is left in Redis, where the api takes it for the next call of the same
kind of sandbox, and the runner leaves it there again when that has ended. The scheduler is asked by
neither. It keeps the place reserved in the ledger, and takes it back when it stays unused for a
second, when somebody else waits for capacity, or when the runner takes no more calls.

Example: a call comes through the scheduler each 3 ms. When the second one ends, its place is
granted: the third one comes past the scheduler, and all that follow, one after the other. Three
callers at once: two of their calls find no place free and come through the scheduler; as they end,
the grant has three.

A place of a grant is one reservation, by the id of the call that left it. Which of them are in use
only Redis knows; the scheduler knows how many there are, and hears of each that comes back.
"""

from collections.abc import Iterator, Mapping

import msgspec

from services.scheduler.ledger import Reservation

#: A kind of sandbox whose calls end more often than this has a grant, in seconds.
OFTEN_S = 0.05
#: After so many sweeps a grant makes way for a new one.
SWEEPS_MAX = 30


class Grant(msgspec.Struct):
    """Places at one runner that are left to calls of one kind of sandbox."""

    grant_id: str
    kind: str
    runner_id: str
    #: Ids of the calls whose reservations they are.
    places: list[str] = []
    #: Whether the next call may take a place that is free. One that is not is waited out.
    is_open: bool = True
    #: How often its free places have been taken back.
    sweeps: int = 0

    @property
    def is_old(self) -> bool:
        """Whether it is to be closed, so that places in use by nobody are found."""
        return self.sweeps > SWEEPS_MAX


class Grants:
    """All grants of one reign.

    Invariants: a kind has at most one that is open. A call id is a place of at most one.
    """

    def __init__(self, epoch: int) -> None:
        """`epoch` is the reign's: what an earlier one has granted is never taken for ours."""
        self._epoch = epoch
        self._count = 0
        self._by_id: dict[str, Grant] = {}
        #: Those at each runner that has any, by id.
        self._at: dict[str, dict[str, Grant]] = {}
        self._open: dict[str, Grant] = {}
        self._of_place: dict[str, Grant] = {}
        #: When the last call of each kind ended, of those that ended since the last sweep.
        self._ended_s: dict[str, float] = {}

    def __len__(self) -> int:
        """Return how many places there are."""
        return len(self._of_place)

    def __contains__(self, call_id: str) -> bool:
        """Say whether this ended call's reservation is a place by now."""
        return call_id in self._of_place

    def get(self, grant_id: str) -> Grant | None:
        """Return a grant, if it is known."""
        return self._by_id.get(grant_id)

    def open(self) -> list[Grant]:
        """Return the grants whose places may be taken by the next call."""
        return list(self._open.values())

    def grant(self, held: Reservation, now_s: float) -> Grant | None:
        """Leave the place of a call that ends now to the next one; None if that does not pay."""
        kind = held.sandbox_key
        before_s = self._ended_s.get(kind)
        self._ended_s[kind] = now_s
        if before_s is None or now_s - before_s > OFTEN_S:
            return None
        grant = self._open.get(kind) or self._begin(kind, held.runner_id)
        if grant.runner_id != held.runner_id:
            return None
        grant.places.append(held.call_id)
        self._of_place[held.call_id] = grant
        return grant

    def _begin(self, kind: str, runner_id: str) -> Grant:
        self._count += 1
        grant = Grant(f"{self._epoch}.{self._count}", kind, runner_id)
        self._by_id[grant.grant_id] = self._open[kind] = grant
        self._at.setdefault(runner_id, {})[grant.grant_id] = grant
        return grant

    def back(self, grant: Grant, count: int = 1) -> list[str]:
        """Take so many places back. Returns whose reservations they were."""
        first = max(len(grant.places) - count, 0)
        back, grant.places[first:] = grant.places[first:], []
        for call_id in back:
            del self._of_place[call_id]
        self._drop_if_over(grant)
        return back

    def leave_out(self, call_id: str) -> None:
        """Note that a reservation is no place any more, if it was one."""
        grant = self._of_place.pop(call_id, None)
        if grant is not None:
            grant.places.remove(call_id)
            self._drop_if_over(grant)

    def close(self, grant: Grant) -> None:
        """Leave no place to the next call; those in use come back one by one."""
        grant.is_open = False
        del self._open[grant.kind]
        self._drop_if_over(grant)

    def _drop_if_over(self, grant: Grant) -> None:
        if grant.is_open or grant.places or self._by_id.pop(grant.grant_id, None) is None:
            return
        there = self._at[grant.runner_id]
        del there[grant.grant_id]
        if not there:
            del self._at[grant.runner_id]

    def sweep(self) -> list[Grant]:
        """Forget when calls ended; return what is open. To be called about each second."""
        self._ended_s.clear()
        for grant in self._open.values():
            grant.sweeps += 1
        return self.open()

    def out_of_sight(self, runner_id: str) -> int:
        """Return how many places at a runner may be free, or in use by a call not known here."""
        there = self._at.get(runner_id)
        return sum(len(each.places) for each in there.values() if each.is_open) if there else 0

    def absent(self, runner_id: str, present: Mapping[str, int]) -> Iterator[str]:
        """Yield the places of grants closed at a runner that no call there has, by these counts."""
        for grant in self._at.get(runner_id, {}).values():
            if not grant.is_open:
                yield from grant.places[present.get(grant.grant_id, 0) :]

    def runners(self) -> list[str]:
        """Return the runners that have places."""
        return list(self._at)

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        places = {c: grant.grant_id for grant in self._by_id.values() for c in grant.places}
        if places != {c: grant.grant_id for c, grant in self._of_place.items()}:
            raise AssertionError(f"{places} are not the places")
        if self._by_id != {i: grant for there in self._at.values() for i, grant in there.items()}:
            raise AssertionError(f"{self._at} are not the grants")
        for kind, grant in self._open.items():
            if not grant.is_open or self._by_id.get(grant.grant_id) is not grant:
                raise AssertionError(f"{grant} is not open for {kind}")
