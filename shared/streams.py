"""How do services talk to Redis? Connections, pipelined writes, and reads that survive outages.

Knows nothing of what the entries mean.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import redis.asyncio as redis_asyncio
import structlog
from redis.exceptions import RedisError, ResponseError

from shared import keys
from shared.errors import Unavailable
from shared.pace import Crowd, Pace, nobody
from shared.pipe import Pipe
from shared.scripts import Command

Redis = redis_asyncio.Redis
#: One stream entry: its id and its fields.
Entry = tuple[bytes, dict[bytes, bytes]]

log = structlog.get_logger()

#: How long a blocking read waits in Redis before it looks around again, in milliseconds.
BLOCK_MS = 1000
#: Longest wait for a reply to a write, in seconds: then `Unavailable`.
WRITE_TIMEOUT_S = 5.0
#: How long entries that come fast are gathered before they are read, in seconds.
GATHER_S = 0.001
ASIDE_MAX_ENTRIES = 10_000


def connect(url: str) -> Redis:
    """Return a client for `MQ_URL` (see `urls.check_redis`); connects at first use."""
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
    """Sends commands to Redis, all that are ready in one write. Use with `async with`.

    `send` may be called from anywhere in the loop, and keeps the order. A command is sent at most
    once: after a lost connection nobody knows whether it was performed, so its sender gets
    `Unavailable` and decides.
    """

    def __init__(self, redis: Redis) -> None:
        """Connect as `redis` would."""
        self._pipe = Pipe(redis, WRITE_TIMEOUT_S)
        #: See `Pipe.send` and `Pipe.post`.
        self.send = self._pipe.send
        self.post = self._pipe.post

    def follow(self, crowd: Crowd) -> None:
        """While many calls are under way, wait a moment for more before each write."""
        self._pipe.pace.crowd = crowd

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._pipe.close()


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


#: Also when Redis is out of memory: who comes to take entries away must be let in.
_MAKE_GROUP = """#!lua flags=allow-oom
return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
"""


async def make_group(redis: Redis, stream: str, group: str) -> None:
    """Make a consumer group that starts at the stream's beginning, unless it is there."""
    try:
        await redis.eval(_MAKE_GROUP, 1, stream, group)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


class Tail:
    """Reads new entries of streams, as one task wants them. Use with `async with`.

    Its connection is its own, because a read waits in Redis.
    """

    def __init__(self, redis: Redis, crowd: Crowd = nobody) -> None:
        """Connect as `redis` would; `crowd` says how many calls are under way."""
        self._pipe = Pipe(redis, BLOCK_MS / 1000 + WRITE_TIMEOUT_S)
        self._pace = Pace(crowd)
        self._busy = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._pipe.close()

    async def read(self, positions: dict[str, str], *, count: int) -> dict[str, list[Entry]]:
        """Return new entries of several streams and move `positions` (stream -> last id) on.

        Waits up to `BLOCK_MS` for the first. Raises `Unavailable`: the caller knows what an outage
        means to it.
        """
        await self._gather()
        asked: Command = ("XREAD", "COUNT", count, "BLOCK", BLOCK_MS, "STREAMS", *positions)
        found = _entries(await self._pipe.send((*asked, *positions.values())))
        for stream, entries in found.items():
            positions[stream] = entries[-1][0].decode()
        self._count(sum(map(len, found.values())))
        return found

    async def read_new(
        self, stream: str, group: str, consumer: str, *, count: int, noack: bool
    ) -> list[Entry]:
        """Return entries of a group that no consumer has got yet.

        Waits up to `BLOCK_MS` for the first. Raises `Unavailable`, and `ResponseError` NOGROUP.
        """
        await self._gather()
        asked: Command = ("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "BLOCK", BLOCK_MS)
        how = ("NOACK",) if noack else ()
        found = await self._pipe.send((*asked, *how, "STREAMS", stream, ">"))
        entries = _entries(found).get(stream, [])
        self._count(len(entries))
        return entries

    async def _gather(self) -> None:
        """Wait a moment for more to come if entries come fast: each read has its price."""
        gather_s = self._pace.gather_s() or (GATHER_S if self._busy else 0)
        if gather_s:
            await asyncio.sleep(gather_s)

    def _count(self, came: int) -> None:
        self._busy = came > 1
        self._pace.count(came, asyncio.get_running_loop().time())


async def read_group(
    redis: Redis,
    stream: str,
    group: str,
    consumer: str,
    *,
    count: int,
    own: bool = False,
    crowd: Crowd = nobody,
) -> AsyncIterator[list[Entry]]:
    """Yield batches of new entries of a group, for ever; makes the group where it is missing.

    Yields an empty batch when nothing came for `BLOCK_MS`. Waits out Redis' absences. `own`: only
    this consumer reads the stream, and deletes what it has dealt with. Then nothing needs to be
    acknowledged, and after an absence all that is in the stream is yielded (some of it again): a
    batch may have been lost on its way. `crowd`: see `Tail`.
    """
    backoff = Backoff()
    gap = False
    async with Tail(redis, crowd) as tail:
        while True:
            try:
                if gap and own:
                    yield await _whole(redis, stream)
                gap = False
                batch = await tail.read_new(stream, group, consumer, count=count, noack=own)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await make_group(redis, stream, group)
                continue
            except (Unavailable, RedisError, OSError) as error:
                log.warning("redis_unavailable", stream=stream, error=str(error))
                gap = True
                await backoff.wait()
                continue
            backoff.reset()
            yield batch


async def _whole(redis: Redis, stream: str) -> list[Entry]:
    found: Any = await redis.xrange(stream)
    return list(found)


def _entries(found: Any) -> dict[str, list[Entry]]:  # noqa: ANN401 (as Redis says it)
    """Return what a read brought, by stream; an entry deleted meanwhile has no fields."""
    read = {
        name.decode(): [(i, _fields(flat)) for i, flat in entries if flat is not None]
        for name, entries in found or []
    }
    return {name: entries for name, entries in read.items() if entries}


def _fields(flat: list[bytes]) -> dict[bytes, bytes]:
    parts = iter(flat)
    return dict(zip(parts, parts, strict=True))


def set_aside(stream: str, entry: Entry, why: str) -> Command:
    """Return the command that keeps an undecodable entry for the operator to look at."""
    entry_id, fields = entry
    flat = [part for pair in fields.items() for part in pair]
    head = ("XADD", keys.ASIDE, "MAXLEN", "~", ASIDE_MAX_ENTRIES, "*")
    return (*head, "stream", stream, "id", entry_id, "why", why, *flat)
