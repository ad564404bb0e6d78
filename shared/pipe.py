"""How do commands get to Redis and answers back, without waiting for each other?

One connection, made by the Redis client (which knows addresses, passwords and TLS), then used
as a pipe: a command goes at once if no answer is expected, else with all others that have come up
by the time all answers are here. So a quiet pipe is quick, and a busy one fills its writes. The
client's own pipelines cost several times as much for each call (docs/decisions/0006). What goes
together goes in batches (`batches`), and while many come, a moment is waited for more (`pace`).
After a failure it is connected again at the next command, but not at once: see `Backoff`.

Scripts go by their hash, and in full before their first use on a connection. A Redis that has
dropped them since (`SCRIPT FLUSH`) gets what it could not do once more, in full, ahead of all else.
Steps so keep their order; a plain command after a step in the same write may then overtake it: what
must follow a step is a step.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis
import redis.asyncio as redis_asyncio
from redis.exceptions import RedisError

from shared import batches, clock
from shared.backoff import Backoff
from shared.batches import Batch, Landed
from shared.errors import Refused, Unavailable
from shared.pace import Pace
from shared.scripts import Command, Script

#: Longest wait for an answer to a command that does not block, in seconds: then `Unavailable`.
ANSWER_S = 5.0
_CHECK_S = 1.0
#: Pauses between tries to connect, in seconds; commands wait so long, and then for the try.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
#: A connection that lasted so long was a good one, in seconds.
_GOOD_S = 5.0


class _Channel(asyncio.Protocol):
    """One connection: commands in, answers out, both in order."""

    def __init__(
        self,
        connection: redis_asyncio.Connection,
        idle: Callable[[], None],
        lost: Callable[[str], None],
        left: Callable[[], None],
    ) -> None:
        """`connection` is open. `idle` is called whenever the last answer expected has come.

        `lost` is called at its end, and before it `left` if it was Redis that ended it.
        """
        # The client's own objects would close the connection with themselves.
        self._writer, connection._writer = connection._writer, None  # noqa: SLF001 (no other way)
        assert self._writer is not None  # noqa: S101 (it is open)
        self.transport: Any = self._writer.transport
        self.transport.set_protocol(self)
        #: Says whether the server is the master no more; None if there is only one.
        self.deposed: Callable[[], bool] | None = getattr(connection, "deposed", None)
        self._idle, self._lost, self._left = idle, lost, left
        self._parser = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self._expected: deque[Batch] = deque()
        #: Scripts that Redis was sent on this connection.
        self._known: set[Script] = set()
        #: What Redis could not do because it had dropped the script; goes next.
        self._again: list[Batch] = []
        #: Whether we have given it up ourselves, or it is lost.
        self._given_up = False
        self.since_s = self._loop.time()
        #: When the last answer came or, if none was expected, the first command went.
        self.heard_s = self._loop.time()

    @property
    def waiting(self) -> bool:
        """Whether an answer is expected."""
        return bool(self._expected)

    @property
    def owing(self) -> bool:
        """Whether something is to be sent again."""
        return bool(self._again)

    def write(self, ready: list[Batch]) -> None:
        """Send batches, after those that are to be sent again."""
        again, self._again = self._again, []
        out = [batch.packed(whole=True) for batch in again]
        self._expected.extend(again)
        for batch in ready:
            if batch.script is not None and batch.script not in self._known:
                out.append(self._load(batch.script))
            out.append(batch.packed())
            self._expected.append(batch)
        self.heard_s = self._loop.time()
        self.transport.write(b"".join(out))

    def _load(self, script: Script) -> bytes:
        loading = batches.loading(script, partial(self._loaded, script))
        self._known.add(script)
        self._expected.append(loading)
        return loading.packed()

    def _loaded(self, script: Script, answer: Any) -> None:  # noqa: ANN401 (whatever Redis says)
        if isinstance(answer, Exception):
            self._known.discard(script)

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._loop.time()
        try:
            self._parser.feed(data)
            while (answer := self._parser.gets()) is not False:
                self._answered(answer)
        except hiredis.ProtocolError as error:
            self.fail(str(error))
        if not self._expected:
            self._idle()

    def _answered(self, answer: Any) -> None:  # noqa: ANN401 (whatever Redis says)
        if not self._expected:
            return  # what else came with the answer for which it was left
        batch = self._expected.popleft()
        if batch.script is not None and batches.lacks_script(answer):
            self._known.discard(batch.script)
            self._again.append(batch)
        else:
            batch.land(answer)
            if batch.left:
                self.fail(batch.left)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._given_up and (exc is None or isinstance(exc, ConnectionError)):
            self._left()
        self.fail(str(exc) if exc else "connection closed")

    def fail(self, why: str) -> None:
        """Give the connection up: nobody knows what became of commands without an answer."""
        if self._given_up:  # and now it is closed; there may be another by now
            return
        self._given_up = True
        self.transport.abort()
        unanswered = [*self._again, *self._expected]
        self._again.clear()
        self._expected.clear()
        for batch in unanswered:
            batch.fail(why)
        self._lost(why)


class Pipe:
    """Sends commands; connects when there is something to send, and again after a loss.

    A command is sent at most once: if its answer does not come, nobody knows whether it was
    performed, so who sent it gets `Unavailable` and decides.
    """

    def __init__(self, redis: "redis_asyncio.Redis", answer_s: float = ANSWER_S) -> None:
        """Connect as `redis` would; `answer_s`: how long Redis may be silent, in seconds."""
        self._redis, self._answer_s = redis, answer_s
        self._channel: _Channel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._check: asyncio.TimerHandle | None = None
        self._backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        #: Before the next try to connect, in seconds.
        self._pause_s = 0.0
        self._unsent: list[tuple[Command, Landed]] = []
        self._scheduled = False
        self.pace = Pace()
        #: When the last write was.
        self._written_s = 0.0
        self._closed = False
        #: When Redis last ended a connection itself, in monotonic seconds.
        self.left_s: float | None = None

    def send(self, command: Command) -> "asyncio.Future[Any]":
        """Send a command; the future has the answer, or `Unavailable`, or `ResponseError`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.post(command, partial(_settle, future))
        return future

    def post(self, command: Command, landed: Landed) -> None:
        """Send a command; `landed` is told the answer, or `Unavailable`, or `ResponseError`.

        Costs less than `send`. `landed` raises nothing, and may be called at once.
        """
        if self._closed:
            landed(Unavailable("the service is stopping"))
            return
        self._unsent.append((command, landed))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def close(self) -> None:
        """Close the connection; what is unanswered gets `Unavailable`."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        self._refuse("the service is stopping")
        if self._channel is not None:
            self._channel.fail("the service is stopping")
        if self._check is not None:
            self._check.cancel()

    def _flush(self) -> None:
        """Send what there is, if nothing is under way and it is time."""
        self._scheduled = False
        channel = self._channel
        if channel is None:
            if self._unsent and self._connecting is None and not self._closed:
                self._connecting = asyncio.create_task(self._connect(), name="redis-connect")
            return
        if channel.waiting or not (self._unsent or channel.owing):
            return
        loop = asyncio.get_running_loop()
        early_s = self._written_s + self.pace.gather_s() - loop.time()
        if early_s > 0:
            self._scheduled = True
            loop.call_later(early_s, self._flush)
            return
        unsent, self._unsent = self._unsent, []
        self._written_s = loop.time()
        self.pace.count(len(unsent), self._written_s)
        channel.write(batches.batches(unsent))

    async def _connect(self) -> None:
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
            await connection.connect()
        except (RedisError, OSError, TimeoutError) as error:
            self._pause_s = self._backoff.next_s()
            kind = Refused if refused(error) else Unavailable
            self._refuse(str(error) or type(error).__name__, kind)
        else:
            self._channel = _Channel(connection, self._flush, self._lost, self._note_leaving)
            self._check = asyncio.get_running_loop().call_later(_CHECK_S, self._look)
        finally:
            self._connecting = None
        self._flush()

    def _look(self) -> None:
        """Give a connection up on which answers stay away."""
        if self._channel is None:
            return
        loop = asyncio.get_running_loop()
        if self._channel.waiting and loop.time() - self._channel.heard_s > self._answer_s:
            self._channel.fail(f"silent for {self._answer_s:g} s")
        elif self._channel.deposed is not None and self._channel.deposed():
            self._channel.fail("the master is another server now")
        else:
            self._check = loop.call_later(_CHECK_S, self._look)

    def _note_leaving(self) -> None:
        self.left_s = clock.monotonic_s()

    def _lost(self, why: str) -> None:
        channel = self._channel
        if channel is not None and asyncio.get_running_loop().time() - channel.since_s > _GOOD_S:
            self._backoff.reset()
            self._pause_s = 0.0
        else:
            self._pause_s = self._backoff.next_s()
        self._channel = None
        if self._check is not None:
            self._check.cancel()
        self._refuse(why)

    def _refuse(self, why: str, kind: type[Unavailable] = Unavailable) -> None:
        unsent, self._unsent = self._unsent, []
        for _, landed in unsent:
            landed(kind(f"Redis does not answer: {why}"))


def refused(error: BaseException | None) -> bool:
    """Say whether a connection failed because nobody listens there, or the name is nobody's.

    Then Redis is away for everybody. Silence says nothing of the kind: it may be the network.
    """
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        if isinstance(error, socket.gaierror):
            return error.errno == socket.EAI_NONAME
        error = error.__cause__ or error.__context__
    return False


def _settle(future: "asyncio.Future[Any]", answer: Any) -> None:  # noqa: ANN401 (as Redis says)
    if future.done():  # who asked has been cancelled
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
