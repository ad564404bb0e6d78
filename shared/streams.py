"""How do services talk to Redis? Connections, pipelined writes, and reads that survive outages.

Knows nothing of what the entries mean.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import redis.asyncio as redis_asyncio
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared import keys, tasks
from shared.errors import Unavailable
from shared.scripts import Command

Redis = redis_asyncio.Redis
#: One stream entry: its id and its fields.
Entry = tuple[bytes, dict[bytes, bytes]]

log = structlog.get_logger()

#: How long a blocking read waits in Redis before it looks around again, in milliseconds.
BLOCK_MS = 1000
#: Longest wait for a reply to a write, in seconds: then `Unavailable`.
WRITE_TIMEOUT_S = 5.0
#: Commands in one pipeline at most, and their bytes at most (one larger command goes alone).
BATCH_MAX = 256
BATCH_MAX_BYTES = 32 * 1024 * 1024
ASIDE_MAX_ENTRIES = 10_000
#: What the client makes of OOM and READONLY; it knows MISCONF and BUSY by their text alone, and
#: LOADING as a lost connection.
_REFUSALS = (OutOfMemoryError, ReadOnlyError)


def connect(url: str) -> Redis:
    """Return a client for `MQ_URL` (redis://host:port/db); connects at first use."""
    return redis_asyncio.Redis.from_url(
        url,
        protocol=2,  # XREAD answers a list of streams, not a map with another nesting
        socket_connect_timeout=2.0,
        socket_timeout=BLOCK_MS / 1000 + WRITE_TIMEOUT_S,
        health_check_interval=30,
        max_connections=64,
        driver_info=None,  # each connection would look its version up in files, in the event loop
    )


class Outbox:
    """Writes commands to Redis, all that are ready in one round trip.

    One task owns the queue; `send` may be called from anywhere in the loop. A command is sent at
    most once: after a lost connection nobody knows whether it was performed, so its sender gets
    `Unavailable` and decides.
    """

    def __init__(self, redis: Redis) -> None:
        """Use `redis` for writing; start with `async with`."""
        self._redis = redis
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="outbox")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None  # noqa: S101 (entered before it is left)
        await tasks.end(self._task)
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(Unavailable("the service is stopping"))

    def send(self, command: Command) -> "asyncio.Future[Any]":
        """Queue a command; the future has Redis' answer, or `Unavailable`, or `ResponseError`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        self._ready.set()
        return future

    async def _run(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._waiting:
                await self._flush(self._take())

    def _take(self) -> list[tuple[Command, "asyncio.Future[Any]"]]:
        batch: list[tuple[Command, asyncio.Future[Any]]] = []
        size = 0
        while self._waiting and len(batch) < BATCH_MAX and size < BATCH_MAX_BYTES:
            batch.append(self._waiting.popleft())
            size += sum(len(part) for part in batch[-1][0] if isinstance(part, bytes))
        return batch

    async def _flush(self, batch: list[tuple[Command, "asyncio.Future[Any]"]]) -> None:
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for command, _ in batch:
                pipeline.execute_command(*command)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            answers = [
                Unavailable(f"Redis does not answer: {error or type(error).__name__}")
            ] * len(batch)
        except Exception as error:
            # Whatever it is: the senders are told, and the queue goes on.
            log.exception("outbox_failed")
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(_as_unavailable(answer))
            else:
                future.set_result(answer)


def _as_unavailable(error: Exception) -> Exception:
    """Return the error as its sender should see it: out of memory or loading is "not there"."""
    if isinstance(error, _REFUSALS) or str(error).startswith(("MISCONF", "BUSY")):
        return Unavailable(f"Redis refuses writes: {error}")
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        return Unavailable(f"Redis does not answer: {error}")
    return error


class Backoff:
    """Waiting times that grow after each failure, with jitter, and start anew after a success."""

    def __init__(self, first_s: float = 0.1, longest_s: float = 2.0) -> None:
        """Wait about `first_s` seconds at first, doubling up to `longest_s`."""
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def reset(self) -> None:
        """Start anew: it worked."""
        self._next_s = self._first_s

    async def wait(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
        self._next_s = min(self._next_s * 2, self._longest_s)


async def make_group(redis: Redis, stream: str, group: str) -> None:
    """Make a consumer group that starts at the stream's beginning, unless it is there."""
    try:
        await redis.xgroup_create(stream, group, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


async def read_group(
    redis: Redis, stream: str, group: str, consumer: str, *, count: int, own: bool = False
) -> AsyncIterator[list[Entry]]:
    """Yield batches of new entries of a group, for ever; makes the group where it is missing.

    Yields an empty batch when nothing came for `BLOCK_MS`. Waits out Redis' absences. `own`: only
    this consumer reads the stream, and deletes what it has dealt with. Then nothing needs to be
    acknowledged, and after an absence all that is in the stream is yielded (some of it again): a
    batch may have been lost on its way.
    """
    backoff = Backoff()
    gap = False
    while True:
        try:
            if gap and own:
                yield await _whole(redis, stream)
            gap = False
            found = await redis.xreadgroup(
                group, consumer, {stream: ">"}, count=count, block=BLOCK_MS, noack=own
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await make_group(redis, stream, group)
            continue
        except (RedisError, OSError) as error:
            log.warning("redis_unavailable", stream=stream, error=str(error))
            gap = True
            await backoff.wait()
            continue
        backoff.reset()
        yield _entries(found).get(stream, [])


async def _whole(redis: Redis, stream: str) -> list[Entry]:
    found: Any = await redis.xrange(stream)
    return list(found)


async def read_streams(
    redis: Redis, positions: dict[str, str], *, count: int
) -> dict[str, list[Entry]]:
    """Return new entries of several streams and move `positions` (stream -> last id) on.

    Waits up to `BLOCK_MS` for the first. Raises redis' errors: the caller knows what an outage
    means to it.
    """
    found = _entries(await redis.xread(dict[Any, Any](positions), count=count, block=BLOCK_MS))
    for stream, entries in found.items():
        positions[stream] = entries[-1][0].decode()
    return found


def _entries(found: Any) -> dict[str, list[Entry]]:  # noqa: ANN401 (untyped by the client)
    """Return what a read brought, by stream; an entry deleted meanwhile has no fields."""
    read = {
        name.decode(): [e for e in entries if e[1] is not None] for name, entries in found or []
    }
    return {name: entries for name, entries in read.items() if entries}


def set_aside(stream: str, entry: Entry, why: str) -> Command:
    """Return the command that keeps an undecodable entry for the operator to look at."""
    entry_id, fields = entry
    flat = [part for pair in fields.items() for part in pair]
    head = ("XADD", keys.ASIDE, "MAXLEN", "~", ASIDE_MAX_ENTRIES, "*")
    return (*head, "stream", stream, "id", entry_id, "why", why, *flat)
