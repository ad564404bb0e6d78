"""How do services talk to Redis? Connections, pipelined writes, and reads that survive outages.

Knows nothing of what the entries mean.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import redis.asyncio as redis_asyncio
import structlog
from redis.exceptions import RedisError, ResponseError

from shared import backoff, clock, keys, masters, tasks, urls
from shared.errors import Unavailable
from shared.pace import Crowd, Pace, nobody
from shared.pipe import Pipe
from shared.scripts import Command

Redis = redis_asyncio.Redis
Backoff = backoff.Backoff
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
#: How often Redis is asked for the time, and a difference that is worth a line, in seconds.
TIME_EVERY_S, TIME_TOLD_S = 2.0, 1.0
#: An idle connection is tried after 10 s, and a dead one is noticed 9 s later: by this the network
#: may have lost it without a word, and a firewall does not forget it.
_KEEPALIVE: dict[str, Any] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 3, socket.TCP_KEEPCNT: 3,
    },
}  # fmt: skip


def connect(url: str) -> Redis:
    """Return a client for `MQ_URL` (see `urls.check_redis`); connects at first use."""
    options: dict[str, Any] = {
        **({} if url.startswith("unix:") else _KEEPALIVE),
        "protocol": 2,  # XREAD answers a list of streams, not a map with another nesting
        "socket_connect_timeout": 2.0,
        "socket_timeout": BLOCK_MS / 1000 + WRITE_TIMEOUT_S,
        "health_check_interval": 30,
        "max_connections": 64,
        "driver_info": None,  # each connection would look its version up in files, in the loop
    }
    if urls.is_sentinel(url):
        return Redis.from_pool(_to_master(urls.parse_sentinels(url), options))
    redis = Redis.from_url(url, **options)
    pool = redis.connection_pool
    pool.connection_class = _LEAVING.get(pool.connection_class, pool.connection_class)
    return redis


_LEAVING: dict[type, Any] = {
    redis_asyncio.Connection: masters.Leaving,
    redis_asyncio.SSLConnection: masters.LeavingTls,
}


def _to_master(where: urls.Sentinels, options: dict[str, Any]) -> redis_asyncio.ConnectionPool:
    return redis_asyncio.ConnectionPool(
        connection_class=masters.MasterConnection,
        masters=masters.Masters(where),
        db=where.db,
        username=where.username or None,
        password=where.password or None,
        **options,
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
        self._timing: asyncio.Task[None] | None = None

    @property
    def left_s(self) -> float | None:
        """When Redis last ended the connection itself, in monotonic seconds; None if never."""
        return self._pipe.left_s

    def follow(self, crowd: Crowd) -> None:
        """While many calls are under way, wait a moment for more before each write."""
        self._pipe.pace.crowd = crowd

    async def __aenter__(self) -> Self:
        self._timing = asyncio.create_task(self._keep_time(), name="time")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timing is not None:
            await tasks.end(self._timing)
        await self._pipe.close()

    async def _keep_time(self) -> None:
        """Follow Redis' time, for ever: all services do."""
        while True:
            asked_s = clock.monotonic_s()
            with contextlib.suppress(Unavailable, ResponseError):
                seconds, micros = await self.send(("TIME",))
                server_s = int(seconds) + int(micros) / 1e6
                changed_s = clock.follow(server_s, asked_s, clock.monotonic_s())
                if abs(changed_s) > TIME_TOLD_S:
                    log.warning("clock_differs", from_redis_s=round(changed_s, 3))
            await asyncio.sleep(TIME_EVERY_S)


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
    gap = missing = False
    async with Tail(redis, crowd) as tail:
        while True:
            try:
                if missing:
                    await make_group(redis, stream, group)
                    missing = False
                if gap and own:
                    yield await _whole(redis, stream, group)
                gap = False
                batch = await tail.read_new(stream, group, consumer, count=count, noack=own)
            except (Unavailable, RedisError, OSError) as error:
                if _is_missing(error) and not missing:
                    log.warning("group_made", stream=stream, group=group)
                    missing = True
                    continue
                log.warning("redis_unavailable", stream=stream, error=str(error))
                gap = True
                await backoff.wait()
                continue
            backoff.reset()
            yield batch


def _is_missing(error: Exception) -> bool:
    """Say whether an error means that the stream or its group is not there."""
    text = str(error)
    return text.startswith("NOGROUP") or "requires the key to exist" in text


async def _whole(redis: Redis, stream: str, group: str) -> list[Entry]:
    """Return all entries; from now on they count as delivered.

    Else a call that is started now could be taken for one that its runner has not read.
    """
    found: Any = await redis.xrange(stream)
    if found:
        await redis.xgroup_setid(stream, group, found[-1][0])
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


def is_after(entry_id: bytes, other: bytes) -> bool:
    """Say whether an entry's id comes after another's in a stream.

    >>> is_after(b"10-2", b"9-3"), is_after(b"9-3", b"9-3")
    (True, False)
    """
    return _parts(entry_id) > _parts(other)


def _parts(entry_id: bytes) -> tuple[int, int]:
    ms, _, counter = entry_id.partition(b"-")
    return int(ms), int(counter)


#: Also when Redis is out of memory: the entry is taken out of its own stream next.
_SET_ASIDE = """#!lua flags=allow-oom
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'stream', KEYS[2],
  'id', ARGV[3], unpack(ARGV, 4))
if ARGV[2] ~= '' then
  redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
  redis.call('XDEL', KEYS[2], ARGV[3])
end
return id
"""


def set_aside(stream: str, entry: Entry, why: str, *, group: str = "") -> Command:
    """Return the command that keeps an undecodable entry for the operator to look at.

    `group`: in the same step it is taken out of its stream, which that group has dealt with.
    """
    entry_id, fields = entry
    flat = [part for pair in fields.items() for part in pair]
    names = (keys.ASIDE, stream)
    told: list[str | bytes] = [group, entry_id, "why", why, *flat]
    return ("EVAL", _SET_ASIDE, len(names), *names, ASIDE_MAX_ENTRIES, *told)
