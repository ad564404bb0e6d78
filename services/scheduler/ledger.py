"""How much capacity is left? Per engine, what is offered and what is given out to which call.

Knows nothing of runners' health, of order or of time. Amounts are whole megabytes and thousandths
of a cpu, so that sums balance exactly.
"""

import math
from typing import NamedTuple

from shared import messages
from shared.errors import MillraceError


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


def need(head: messages.CallHead) -> Size:
    """Return what a call needs, rounded up to a thousandth of a cpu; never nothing at all."""
    return Size(max(head.memory_mb, 1), max(math.ceil(round(head.cpus * 1000, 3)), 1))


def offer(heartbeat: messages.Heartbeat) -> Size:
    """Return what an engine offers, rounded down."""
    return Size(max(heartbeat.memory_mb, 0), max(math.floor(round(heartbeat.cpus * 1000, 3)), 0))


class Reservation(NamedTuple):
    """Capacity of one engine, given to one call that one runner has."""

    call_id: str
    app: str
    runner_id: str
    engine_id: str
    size: Size
    #: The entry it was assigned from; empty if an earlier reign did that.
    entry_id: bytes = b""


class _Account:
    """One engine: what it offers, and the sum of what is given out."""

    __slots__ = ("calls", "given_mb", "given_millicpus", "offered")

    def __init__(self) -> None:
        self.offered = NOTHING
        self.given_mb = 0
        self.given_millicpus = 0
        self.calls = 0

    def book(self, size: Size, sign: int) -> None:
        self.given_mb += sign * size.memory_mb
        self.given_millicpus += sign * size.millicpus
        self.calls += sign


class Ledger:
    """Accounts of all engines.

    Invariants: what an account has given is the sum of its reservations, and `reserve` never
    makes it exceed the offer. An offer that shrinks below what is given takes nothing back: the
    account is overdrawn and gives nothing until enough has returned.

    Example: an engine offers 1000 MB. Calls of 400 and 500 MB are given; 100 are free. It now
    offers 800 MB: free is 0, not -100. The 400 MB return: 500 of 800 are given, free is 300.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._reservations: dict[str, Reservation] = {}
        self._by_runner: dict[str, dict[str, None]] = {}
        #: The sum of all offers.
        self.total = NOTHING

    def __contains__(self, call_id: str) -> bool:
        return call_id in self._reservations

    def get(self, call_id: str) -> Reservation | None:
        """Return what a call holds, if it holds anything."""
        return self._reservations.get(call_id)

    def held_by(self, runner_id: str) -> tuple[str, ...]:
        """Return the ids of the calls a runner has."""
        return tuple(self._by_runner.get(runner_id, ()))

    def offer(self, engine_id: str, offered: Size) -> None:
        """Set what an engine offers from now on; nothing, when its last runner is gone."""
        account = self._accounts.setdefault(engine_id, _Account())
        self.total = Size(
            self.total.memory_mb + offered.memory_mb - account.offered.memory_mb,
            self.total.millicpus + offered.millicpus - account.offered.millicpus,
        )
        account.offered = offered
        self._drop_if_empty(engine_id, account)

    def free(self, engine_id: str) -> Size:
        """Return what an engine can still give, never below nothing."""
        account = self._accounts.get(engine_id)
        if account is None:
            return NOTHING
        memory_mb = account.offered.memory_mb - account.given_mb
        millicpus = account.offered.millicpus - account.given_millicpus
        return Size(max(memory_mb, 0), max(millicpus, 0))

    def reserve(self, reservation: Reservation) -> None:
        """Give capacity out. Raises `Overdrawn` if it does not fit or the call holds some."""
        if reservation.call_id in self._reservations:
            raise Overdrawn(f"call {reservation.call_id} holds capacity already")
        free = self.free(reservation.engine_id)
        if not free.covers(reservation.size):
            raise Overdrawn(
                f"call {reservation.call_id} needs {reservation.size}, "
                f"engine {reservation.engine_id} has {free}"
            )
        self._book(reservation)

    def recover(self, reservation: Reservation) -> None:
        """Enter capacity that an earlier reign gave out, whether or not it still fits."""
        self.release(reservation.call_id)
        self._book(reservation)

    def release(self, call_id: str) -> Reservation | None:
        """Take back what a call holds and return it; None if it holds nothing."""
        reservation = self._reservations.pop(call_id, None)
        if reservation is None:
            return None
        account = self._accounts[reservation.engine_id]
        account.book(reservation.size, -1)
        self._drop_if_empty(reservation.engine_id, account)
        held = self._by_runner[reservation.runner_id]
        del held[call_id]
        if not held:
            del self._by_runner[reservation.runner_id]
        return reservation

    def engines(self) -> dict[str, tuple[Size, Size]]:
        """Return what each engine offers and what of it is given out."""
        return {
            engine_id: (account.offered, Size(account.given_mb, account.given_millicpus))
            for engine_id, account in self._accounts.items()
        }

    def check(self) -> None:
        """Raise AssertionError unless all sums balance. For tests, after every event."""
        sums: dict[str, Size] = {}
        for reservation in self._reservations.values():
            mb, millicpus = sums.get(reservation.engine_id, NOTHING)
            size = reservation.size
            sums[reservation.engine_id] = Size(mb + size.memory_mb, millicpus + size.millicpus)
        given = {engine_id: both[1] for engine_id, both in self.engines().items() if any(both[1])}
        offered = [both[0] for both in self.engines().values()]
        total = Size(sum(o.memory_mb for o in offered), sum(o.millicpus for o in offered))
        held = {call_id for calls in self._by_runner.values() for call_id in calls}
        if given != {k: v for k, v in sums.items() if any(v)}:
            raise AssertionError(f"given {given}, reserved {sums}")
        if total != self.total or held != set(self._reservations):
            raise AssertionError(f"total {self.total} is {total}; {held} held")

    def _book(self, reservation: Reservation) -> None:
        account = self._accounts.setdefault(reservation.engine_id, _Account())
        account.book(reservation.size, +1)
        self._reservations[reservation.call_id] = reservation
        self._by_runner.setdefault(reservation.runner_id, {})[reservation.call_id] = None

    def _drop_if_empty(self, engine_id: str, account: _Account) -> None:
        if account.offered == NOTHING and not account.calls:
            del self._accounts[engine_id]
