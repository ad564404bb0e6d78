"""Which callers wait for an answer on this replica? Knows no Redis, no HTTP and no clock."""

import asyncio
from collections import deque

from shared import messages, streaming
from shared.errors import MillraceError


class Overloaded(MillraceError):
    """More calls wait than this platform keeps; try again."""

    code = "overloaded"


class Overrun(MillraceError):
    """A runner sent more of a streamed answer than it may before the caller has taken it."""


class AnswerStream:
    """A streamed answer on its way: from the task that reads replies to the one that writes.

    Invariant: what waits here is at most `streaming.UNTAKEN_MAX_BYTES`, with what was taken out
    but not yet confirmed by `taken`. One task calls `next` and `taken`.
    """

    __slots__ = ("_chunks", "_come_bytes", "_end", "_taken_bytes", "_told_bytes", "_wake", "head")

    def __init__(self, head: messages.StreamHead) -> None:
        self.head = head
        self._chunks: deque[bytes] = deque()
        self._come_bytes = self._taken_bytes = self._told_bytes = 0
        self._end: messages.Reply | MillraceError | None = None
        self._wake: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._end is not None

    @property
    def replied(self) -> bool:
        """Whether its call has ended, too."""
        return isinstance(self._end, messages.Reply)

    def feed(self, data: bytes) -> None:
        """Keep the next bytes. Raises `Overrun`, which is then the stream's end."""
        self._come_bytes += len(data)
        if self._come_bytes - self._taken_bytes > streaming.UNTAKEN_MAX_BYTES:
            self._chunks.clear()
            overrun = Overrun()
            self.end(overrun)
            raise overrun
        self._chunks.append(data)
        self._rouse()

    def end(self, end: messages.Reply | MillraceError) -> None:
        """Say how it ended, behind what has come: by its reply, or broken off by an error."""
        self._end = end
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def next(self) -> bytes | messages.Reply:
        """Return the bytes that have come since; after all of them, the reply that ended them.

        Raises the error that broke the stream off.
        """
        while not self._chunks:
            if isinstance(self._end, MillraceError):
                raise self._end
            if self._end is not None:
                return self._end
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data

    def taken(self, count: int) -> messages.More | None:
        """Note that the caller has taken `count` bytes more; return what to tell the runner now."""
        self._taken_bytes += count
        if self._taken_bytes - self._told_bytes < streaming.MORE_EVERY_BYTES:
            return None
        self._told_bytes = self._taken_bytes
        return messages.More(self.head.call_id, self._taken_bytes)


class Waiter:
    """One caller who waits: a call's id and the place where its answer will be.

    Its answer is whole (a `Reply`), or a stream that the same waiter then feeds.
    """

    __slots__ = ("answer", "call", "call_id", "runner_id", "stream", "timer")

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        #: Its call, once it has been sent.
        self.call: messages.CallHead | None = None
        #: The runner that its call went to by a grant; "": to the scheduler, or not known yet.
        self.runner_id = ""
        self.answer: asyncio.Future[messages.Reply | AnswerStream]
        self.answer = asyncio.get_running_loop().create_future()
        self.stream: AnswerStream | None = None
        #: What happens next if no answer comes; whoever ends the wait cancels it.
        self.timer: asyncio.TimerHandle | None = None

    def refuse(self, error: BaseException) -> None:
        """End the wait by an error, unless it is over."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Waiters:
    """All callers who wait on this replica, by call id; at most `max_waiting` of them.

    Invariant: a call id is here from `register` until its whole reply has come or its waiter is
    forgotten, and its answer is set at most once. One whose answer streams is here until it is
    forgotten. The gateway owns it: callers register and forget, the one task that reads replies
    hands over what has come.
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
        waiter = self._by_id[call_id] = Waiter(call_id)
        return waiter

    def waiting(self, call_id: str) -> Waiter | None:
        """Return who waits for a call and has no answer yet, not even the beginning of one."""
        waiter = self._by_id.get(call_id)
        return None if waiter is None or waiter.answer.done() else waiter

    def hand_over(self, part: messages.ReplyPart) -> bool:
        """Hand a part of an answer to who waits; False if nobody does (any more).

        Then it is late, repeated, or out of order. Raises `Overrun` if it is too much.
        """
        if isinstance(part, messages.Reply):
            return self._end(part)
        waiter = self._by_id.get(part.call_id)
        if waiter is None:
            return False
        if isinstance(part, messages.StreamHead):
            return _begin(waiter, part)
        if waiter.stream is None or waiter.stream.ended:
            return False
        waiter.stream.feed(part.data)
        return True

    def _end(self, reply: messages.Reply) -> bool:
        waiter = self._by_id.get(reply.call_id)
        if waiter is None:
            return False
        if waiter.stream is not None:
            return _end_stream(waiter.stream, reply)
        del self._by_id[reply.call_id]
        if waiter.answer.done():
            return False
        waiter.answer.set_result(reply)
        return True

    def break_streams(self, error: MillraceError) -> int:
        """End all streams under way, because some of their parts may be lost; return how many."""
        streams = [w.stream for w in self._by_id.values() if w.stream and not w.stream.ended]
        for stream in streams:
            stream.end(error)
        return len(streams)

    def runner_of(self, call_id: str) -> str:
        """Return the runner that a call is known to have gone to; "" if none is."""
        waiter = self._by_id.get(call_id)
        return waiter.runner_id if waiter else ""

    def forget(self, call_id: str) -> None:
        """Let go of a waiter, answered or not; harmless if it is gone already."""
        self._by_id.pop(call_id, None)


def _end_stream(stream: AnswerStream, reply: messages.Reply) -> bool:
    if stream.ended:
        return False
    stream.end(reply)
    return True


def _begin(waiter: Waiter, head: messages.StreamHead) -> bool:
    if waiter.answer.done():
        return False
    waiter.stream = AnswerStream(head)
    waiter.answer.set_result(waiter.stream)
    return True
