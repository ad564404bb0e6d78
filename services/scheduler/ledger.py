"""How much capacity is left? Per engine, what is offered and what is given out to which call.

Knows nothing of runners' health, of order or of time. Amounts are whole megabytes and thousandths
of a cpu, so that sums balance exactly.
"""

import math
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from shared import messages
from shared.errors import MillraceError

#: Calls of a hot route that may wait inside a runner for each sandbox they share.
QUEUED_MAX = 32


class Overdrawn(MillraceError):
    """More would be given out than is offered."""


class Size(NamedTuple):
    """An amount of capacity: what a call needs, or what an engine has."""

    memory_mb: int
    millicpus: int

    def covers(self, need: "Size") -> bool:
        """Say whether `need` fits into this."""
        return need.memory_mb <= self.memory_mb and need.millicpus <= self.millicpus

    def __str__(self) -> str:
        cpus = self.millicpus / 1000
        return f"{self.memory_mb} MB and {cpus:g} {'cpu' if cpus == 1 else 'cpus'}"


NOTHING = Size(0, 0)


class Group(NamedTuple):
    """Calls of a hot route that, on one runner, share at most `most` sandboxes of one size."""

    sandbox_key: str
    app: str
    size: Size
    most: int

    @property
    def longest(self) -> int:
        """How many of its calls one runner may have: those in sandboxes, and those in line."""
        return self.most * (1 + QUEUED_MAX)


def need(head: messages.CallHead) -> Size:
    """Return what a call needs, rounded up to a thousandth of a cpu; never nothing at all."""
    return _need(head.memory_mb, head.cpus)


@lru_cache(maxsize=4096)
def _need(memory_mb: int, cpus: float) -> Size:
    return Size(max(memory_mb, 1), max(math.ceil(round(cpus * 1000, 3)), 1))


def group(head: messages.CallHead, size: Size) -> Group | None:
    """Return the calls that a call shares sandboxes with; None if it has one to itself."""
    if head.max_concurrency < 1 or not head.sandbox_key:
        return None
    return Group(head.sandbox_key, head.app, size, head.max_concurrency)


def offer(heartbeat: messages.Heartbeat) -> Size:
    """Return what an engine offers, rounded down."""
    return Size(max(heartbeat.memory_mb, 0), max(math.floor(round(heartbeat.cpus * 1000, 3)), 0))


class Reservation(msgspec.Struct, frozen=True):
    """Capacity of one engine, given to one call that one runner has."""

    call_id: str
    app: str
    runner_id: str
    engine_id: str
    size: Size
    #: The entry it was assigned from; empty if an earlier reign did that.
    entry_id: bytes = b""
    sandbox_key: str = ""
    group: Group | None = None
    #: Of a sync call, what telling its caller needs.
    head: messages.CallHead | None = None
    #: Whether its place may be left to the next call like it.
    sync: bool = False


class _Account:
    """One engine: what it offers, and the sum of what is given out."""

    __slots__ = ("calls", "free", "given_mb", "given_millicpus", "members", "offered")

    def __init__(self) -> None:
        self.offered = NOTHING
        self.given_mb = 0
        self.given_millicpus = 0
        #: What can still be given, never below nothing.
        self.free = NOTHING
        #: Calls that hold something here, be it a place in line.
        self.calls = 0
        #: Runner and group -> how many calls of the group the runner has.
        self.members: dict[tuple[str, Group], int] = {}

    def offer(self, offered: Size) -> None:
        self.offered = offered
        self._give(0, 0)

    def enter(self, reservation: Reservation) -> Size:
        """Count a call in; returns what it is charged."""
        self.calls += 1
        size, group = reservation.size, reservation.group
        if group is not None:
            at = (reservation.runner_id, group)
            before = self.members.get(at, 0)
            self.members[at] = before + 1
            if before >= group.most:
                return NOTHING
        self._give(size.memory_mb, size.millicpus)
        return size

    def leave(self, reservation: Reservation) -> Size:
        """Count a call out; returns what is not charged any more."""
        self.calls -= 1
        size, group = reservation.size, reservation.group
        if group is not None:
            at = (reservation.runner_id, group)
            left = self.members[at] = self.members[at] - 1
            if left >= group.most:
                return NOTHING
            if not left:
                del self.members[at]
        self._give(-size.memory_mb, -size.millicpus)
        return size

    def _give(self, memory_mb: int, millicpus: int) -> None:
        self.given_mb += memory_mb
        self.given_millicpus += millicpus
        left_mb = self.offered.memory_mb - self.given_mb
        left_millicpus = self.offered.millicpus - self.given_millicpus
        self.free = Size(max(left_mb, 0), max(left_millicpus, 0))


class Ledger:
    """Accounts of all engines.

    Invariants: what an account has given is the sum of its charges, and `reserve` never makes it
    exceed the offer. A call is charged its size. Of a group, as many calls are charged as there
    are, up to `most`; the others wait in line inside the runner. An offer that shrinks below what
    is given takes nothing back: the account is overdrawn and gives nothing until enough has
    returned.

    Example: an engine offers 1000 MB. Calls of 400 and 500 MB are given; 100 are free. It now
    offers 800 MB: free is 0, not -100. The 400 MB return: 500 of 800 are given, free is 300.

    Example: a group shares at most 2 sandboxes of 100 MB. Its first two calls on a runner are
    charged 200 MB together, the next three nothing. Three end: the charges have passed on to the
    two that were in line, and 200 MB are still given. One more ends: 100 MB return.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._reservations: dict[str, Reservation] = {}
        self._by_runner: dict[str, dict[str, None]] = {}
        #: The sum of all offers.
        self.total = NOTHING

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._reservations

    def __len__(self) -> int:
        return len(self._reservations)

    def get(self, call_id: str) -> Reservation | None:
        """Return what a call holds, if it holds anything."""
        return self._reservations.get(call_id)

    def held_by(self, runner_id: str) -> tuple[str, ...]:
        """Return the ids of the calls a runner has."""
        return tuple(self._by_runner.get(runner_id, ()))

    def count_of(self, runner_id: str) -> int:
        """Return how many calls a runner has."""
        return len(self._by_runner.get(runner_id, ()))

    def members(self, engine_id: str, runner_id: str, group: Group) -> int:
        """Return how many calls of a group a runner on that engine has."""
        account = self._accounts.get(engine_id)
        return account.members.get((runner_id, group), 0) if account else 0

    def offer(self, engine_id: str, offered: Size) -> None:
        """Set what an engine offers from now on; nothing, when its last runner is gone."""
        account = self._accounts.setdefault(engine_id, _Account())
        self.total = Size(
            self.total.memory_mb + offered.memory_mb - account.offered.memory_mb,
            self.total.millicpus + offered.millicpus - account.offered.millicpus,
        )
        account.offer(offered)
        self._drop_if_empty(engine_id, account)

    def free(self, engine_id: str) -> Size:
        """Return what an engine can still give, never below nothing."""
        account = self._accounts.get(engine_id)
        return account.free if account else NOTHING

    def reserve(self, reservation: Reservation) -> Size:
        """Give capacity out; returns how much: nothing, for a place in line.

        Raises `Overdrawn` if it does not fit, the line is full, or the call holds some.
        """
        if reservation.call_id in self._reservations:
            raise Overdrawn(f"call {reservation.call_id} holds capacity already")
        if self._waits_in_line(reservation):
            return self._book(reservation)
        free = self.free(reservation.engine_id)
        if not free.covers(reservation.size):
            raise Overdrawn(
                f"call {reservation.call_id} needs {reservation.size}, "
                f"engine {reservation.engine_id} has {free}"
            )
        return self._book(reservation)

    def recover(self, reservation: Reservation) -> Size:
        """Enter what an earlier reign gave out, whether or not it still fits; returns how much."""
        self.release(reservation.call_id)
        return self._book(reservation)

    def move(self, runner_id: str, engine_id: str) -> None:
        """Book what a runner's calls hold at another engine, whether or not it fits there."""
        for call_id in self.held_by(runner_id):
            held = self._reservations[call_id]
            self.recover(msgspec.structs.replace(held, engine_id=engine_id))

    def release(self, call_id: str) -> Size:
        """Take back what a call holds, if it holds anything; returns how much became free.

        That is nothing while others of its group are in line.
        """
        reservation = self._reservations.pop(call_id, None)
        if reservation is None:
            return NOTHING
        account = self._accounts[reservation.engine_id]
        freed = account.leave(reservation)
        self._drop_if_empty(reservation.engine_id, account)
        held = self._by_runner[reservation.runner_id]
        del held[call_id]
        if not held:
            del self._by_runner[reservation.runner_id]
        return freed

    def engines(self) -> dict[str, tuple[Size, Size]]:
        """Return what each engine offers and what of it is given out."""
        return {
            engine_id: (account.offered, Size(account.given_mb, account.given_millicpus))
            for engine_id, account in self._accounts.items()
        }

    def groups(self) -> Iterator[tuple[str, Group, int]]:
        """Yield runners, groups and how many calls of the group the runner has."""
        for account in self._accounts.values():
            for (runner_id, group), members in account.members.items():
                yield runner_id, group, members

    def check(self) -> None:
        """Raise AssertionError unless all sums balance. For tests, after every event."""
        sums = self._charges()
        given = {engine_id: both[1] for engine_id, both in self.engines().items() if any(both[1])}
        offered = [both[0] for both in self.engines().values()]
        total = Size(sum(o.memory_mb for o in offered), sum(o.millicpus for o in offered))
        held = {call_id for calls in self._by_runner.values() for call_id in calls}
        if given != {k: v for k, v in sums.items() if any(v)}:
            raise AssertionError(f"given {given}, charged {sums}")
        if total != self.total or held != set(self._reservations):
            raise AssertionError(f"total {self.total} is {total}; {held} held")

    def _charges(self) -> dict[str, Size]:
        """Return what each engine has given, counted anew."""
        sums: dict[str, Size] = {}
        members: Counter[tuple[str, str, Group]] = Counter()
        for held in self._reservations.values():
            if held.group is not None:
                members[held.engine_id, held.runner_id, held.group] += 1
                if members[held.engine_id, held.runner_id, held.group] > held.group.most:
                    continue
            mb, millicpus = sums.get(held.engine_id, NOTHING)
            sums[held.engine_id] = Size(mb + held.size.memory_mb, millicpus + held.size.millicpus)
        kept = {
            (engine_id, *at): count
            for engine_id, account in self._accounts.items()
            for at, count in account.members.items()
        }
        if kept != members:
            raise AssertionError(f"groups {kept} are {members}")
        return sums

    def _waits_in_line(self, reservation: Reservation) -> bool:
        group = reservation.group
        if group is None:
            return False
        members = self.members(reservation.engine_id, reservation.runner_id, group)
        if members >= group.longest:
            raise Overdrawn(f"runner {reservation.runner_id} has {members} calls of {group}")
        return members >= group.most

    def _book(self, reservation: Reservation) -> Size:
        account = self._accounts.get(reservation.engine_id)
        if account is None:
            account = self._accounts[reservation.engine_id] = _Account()
        held = self._by_runner.get(reservation.runner_id)
        if held is None:
            held = self._by_runner[reservation.runner_id] = {}
        held[reservation.call_id] = None
        self._reservations[reservation.call_id] = reservation
        return account.enter(reservation)

    def _drop_if_empty(self, engine_id: str, account: _Account) -> None:
        if not account.calls and account.offered == NOTHING:
            del self._accounts[engine_id]
