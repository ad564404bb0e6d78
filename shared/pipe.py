"""How do commands get to Redis and answers back, without waiting for each other?

One connection, made by the Redis client (which knows addresses, passwords and TLS), then used
as a pipe: a command goes at once if no answer is expected, else with all others that have come up
by the time all answers are here. So a quiet pipe is quick, and a busy one fills its writes. The
client's own pipelines cost several times as much for each call (docs/decisions/0006).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import redis.asyncio as redis_asyncio
from redis.exceptions import RedisError, ResponseError

from shared.errors import Unavailable
from shared.scripts import Command

#: Longest wait for an answer to a command that does not block, in seconds: then `Unavailable`.
ANSWER_S = 5.0
_CHECK_S = 1.0
#: Answers that mean "not now", not "wrong".
_REFUSALS = ("OOM ", "MISCONF ", "READONLY ", "BUSY ", "LOADING ", "CLUSTERDOWN ", "MASTERDOWN ")


class _Channel(asyncio.Protocol):
    """One connection: commands in, answers out, both in order."""

    def __init__(
        self,
        connection: redis_asyncio.Connection,
        idle: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        """`connection` is open. `idle` is called whenever the last answer expected has come."""
        # The client's own objects would close the connection with themselves.
        self._writer, connection._writer = connection._writer, None  # noqa: SLF001 (no other way)
        assert self._writer is not None  # noqa: S101 (it is open)
        self.transport: Any = self._writer.transport
        self.transport.set_protocol(self)
        self._idle, self._lost = idle, lost
        self._parser = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self.expected: deque[asyncio.Future[Any]] = deque()
        #: When the last answer came or, if none was expected, the first command went.
        self.heard_s = self._loop.time()

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._loop.time()
        try:
            self._parser.feed(data)
            while (answer := self._parser.gets()) is not False:
                self._answered(answer)
        except hiredis.ProtocolError as error:
            self.fail(str(error))
        if not self.expected:
            self._idle()

    def _answered(self, answer: Any) -> None:  # noqa: ANN401 (whatever Redis says)
        future = self.expected.popleft()
        if future.done():
            return
        if isinstance(answer, hiredis.ReplyError):
            future.set_exception(_translated(str(answer)))
        else:
            future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(str(exc) if exc else "connection closed")

    def fail(self, why: str) -> None:
        """Give the connection up: nobody knows what became of commands without an answer."""
        self.transport.abort()
        expected, self.expected = self.expected, deque()
        for future in expected:
            if not future.done():
                future.set_exception(Unavailable(f"Redis does not answer: {why}"))
        self._lost(why)


def _translated(message: str) -> Exception:
    if message.startswith(_REFUSALS):
        return Unavailable(f"Redis refuses: {message}")
    return ResponseError(message)


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
        self._unsent: list[tuple[bytes, asyncio.Future[Any]]] = []
        self._scheduled = False
        self._closed = False

    def send(self, command: Command) -> "asyncio.Future[Any]":
        """Send a command; the future has the answer, or `Unavailable`, or `ResponseError`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._closed:
            future.set_exception(Unavailable("the service is stopping"))
            return future
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # it takes any of these
        self._unsent.append((packed, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush)
        return future

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
        self._scheduled = False
        if self._channel is None:
            if self._connecting is None and not self._closed:
                self._connecting = asyncio.create_task(self._connect(), name="redis-connect")
            return
        if self._channel.expected or not self._unsent:
            return
        unsent, self._unsent = self._unsent, []
        self._channel.heard_s = asyncio.get_running_loop().time()
        self._channel.expected.extend([future for _, future in unsent])
        self._channel.transport.write(b"".join([packed for packed, _ in unsent]))

    async def _connect(self) -> None:
        connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except (RedisError, OSError, TimeoutError) as error:
            self._refuse(str(error) or type(error).__name__)
        else:
            self._channel = _Channel(connection, self._flush, self._lost)
            self._check = asyncio.get_running_loop().call_later(_CHECK_S, self._look)
        finally:
            self._connecting = None
        self._flush()

    def _look(self) -> None:
        """Give a connection up on which answers stay away."""
        if self._channel is None:
            return
        loop = asyncio.get_running_loop()
        if self._channel.expected and loop.time() - self._channel.heard_s > self._answer_s:
            self._channel.fail(f"silent for {self._answer_s:g} s")
        else:
            self._check = loop.call_later(_CHECK_S, self._look)

    def _lost(self, why: str) -> None:
        self._channel = None
        if self._check is not None:
            self._check.cancel()
        self._refuse(why)

    def _refuse(self, why: str) -> None:
        unsent, self._unsent = self._unsent, []
        for _, future in unsent:
            if not future.done():
                future.set_exception(Unavailable(f"Redis does not answer: {why}"))
