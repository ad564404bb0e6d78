"""Which callers wait for a reply on this replica? Knows no Redis, no HTTP and no clock."""

import asyncio
from typing import Self

from shared import messages
from shared.errors import MillraceError


class Overloaded(MillraceError):
    """More calls wait than this platform keeps; try again."""

    code = "overloaded"


class Waiter:
    """One caller who waits: a call's id and the place where its reply will be.

    Used as a context manager: leaving it, by whatever way, forgets the caller.
    """

    __slots__ = ("_waiters", "call_id", "reply")

    def __init__(self, waiters: "Waiters", call_id: str) -> None:
        self._waiters = waiters
        self.call_id = call_id
        self.reply: asyncio.Future[messages.Reply] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiters.forget(self)


class Waiters:
    """All callers who wait on this replica, by call id; at most `max_waiting` of them.

    Invariant: a call id is here from `register` until its waiter is left, and its reply is set at
    most once. The gateway owns it: callers register, the one task that reads replies resolves.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._by_id: dict[str, Waiter] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def register(self, call_id: str) -> Waiter:
        """Return a new waiter for a call; raises `Overloaded` if too many wait already."""
        if len(self._by_id) >= self._max_waiting:
            raise Overloaded(
                f"{len(self._by_id)} callers wait here already, the most that may (MAX_WAITING)"
            )
        waiter = self._by_id[call_id] = Waiter(self, call_id)
        return waiter

    def resolve(self, reply: messages.Reply) -> bool:
        """Hand a reply to who waits; False if nobody does (any more): it is late or repeated."""
        waiter = self._by_id.get(reply.call_id)
        if waiter is None or waiter.reply.done():
            return False
        waiter.reply.set_result(reply)
        return True

    def forget(self, waiter: Waiter) -> None:
        """Let go of a waiter, answered or not; harmless if it is gone already."""
        self._by_id.pop(waiter.call_id, None)
