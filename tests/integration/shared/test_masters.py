"""Is the master found through sentinels, followed through fail-overs, and left when it is none?"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis as redis_sync
from redis.exceptions import RedisError

from shared import clock, keys, streams
from shared.errors import Unavailable
from tests.conftest import eventually
from tests.sentinels import DOWN_AFTER_MS, Flock, flock

#: A fail-over: until the master is down, the sentinels have agreed, and we have noticed.
FAILOVER_S = DOWN_AFTER_MS / 1000 + 14


@pytest.fixture(scope="module")
def redises() -> Iterator[Flock]:
    with flock() as made:
        yield made


@pytest.fixture
async def whole(redises: Flock) -> AsyncIterator[Flock]:
    yield redises
    await redises.heal()


@pytest.fixture
async def client(whole: Flock) -> AsyncIterator[streams.Redis]:
    client = streams.connect(whole.url)
    await client.flushall()
    yield client
    await client.aclose()


async def again(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Return what an attempt gives as soon as it does not fail."""

    async def worked() -> Any:
        try:
            return (await attempt(),)
        except (Unavailable, RedisError, OSError):
            return None

    found: Any = await eventually(worked, FAILOVER_S)
    return found[0]


async def where(outbox: streams.Outbox) -> str:
    """Return the role of the server that a pipe is connected to."""
    role: Any = await outbox.send(("ROLE",))
    return str(role[0].decode())


async def test_commands_reads_and_clients_all_go_to_the_master(
    whole: Flock, client: streams.Redis
) -> None:
    async with streams.Outbox(client) as outbox, streams.Tail(client) as tail:
        assert await outbox.send(("SET", "x", "1")) == b"OK"
        assert await client.get("x") == b"1"
        await outbox.send(("XADD", "s", "*", "m", "1"))
        assert len((await tail.read({"s": "0"}, count=9))["s"]) == 1
        with redis_sync.Redis(whole.master()) as direct:
            assert direct.get("x") == b"1"


async def test_a_killed_master_is_followed_by_commands_readers_and_clients(
    whole: Flock, client: streams.Redis
) -> None:
    dead = whole.master()
    async with streams.Outbox(client) as outbox, streams.Tail(client) as tail:
        await outbox.send(("SET", "kept", "1"))
        assert await outbox.send(("WAIT", 2, 1000)) == 2
        reading = asyncio.ensure_future(tail.read({"s": "0"}, count=9))
        await asyncio.to_thread(whole.kill, dead)
        with pytest.raises(Unavailable):
            await reading
        began_s = clock.monotonic_s()
        await again(lambda: outbox.send(("XADD", "s", "*", "m", "1")))
        print(f"\nwritten again {clock.monotonic_s() - began_s:.1f} s after the kill")  # noqa: T201
        assert len((await again(lambda: tail.read({"s": "0"}, count=9)))["s"]) == 1
        assert await again(lambda: client.get("kept")) == b"1"
    assert whole.master() != dead


async def test_groups_go_on_at_the_new_master(whole: Flock, client: streams.Redis) -> None:
    stream = keys.runner("r1")
    batches = streams.read_group(client, stream, "g", "me", count=10, own=True)
    first = await client.xadd(stream, {"n": 1})
    assert [i for i, _ in await anext(batches)] == [first]
    await client.execute_command("WAIT", 2, 1000)
    reading = asyncio.ensure_future(anext(batches))
    await asyncio.to_thread(whole.kill, whole.master())
    second: bytes = await again(lambda: client.xadd(stream, {"n": 2}))
    read = {i for i, _ in await reading}

    async def both() -> bool:
        read.update(i for i, _ in await anext(batches))
        return read >= {first, second}

    await eventually(both, FAILOVER_S)
    await batches.aclose()


async def test_a_demoted_master_is_left(whole: Flock, client: streams.Redis) -> None:
    old = whole.master()
    async with streams.Outbox(client) as outbox, streams.Tail(client) as tail:
        await outbox.send(("SET", "x", "1"))
        await client.set("x", "2")
        await tail.read({"none": "0"}, count=1)
        with redis_sync.Redis(next(iter(whole.sentinels)), 26379) as sentinel:
            sentinel.sentinel_failover("main")

        async def demoted() -> bool:
            return whole.role(old) == "slave"

        await eventually(demoted, FAILOVER_S)
        await again(lambda: outbox.send(("SET", "x", "3")))
        await again(lambda: client.set("x", "4"))
        await again(lambda: tail.read({"none": "0"}, count=1))
        assert await where(outbox) == "master"


async def test_a_master_that_the_sentinels_have_lost_is_left_though_it_answers(
    whole: Flock, client: streams.Redis
) -> None:
    """What it takes from then on is lost when it comes back as a replica."""
    old = whole.master()
    async with streams.Outbox(client) as outbox:
        await outbox.send(("SET", "x", "1"))
        await client.set("x", "1")
        with redis_sync.Redis(old) as direct:
            direct.config_set("requirepass", "nobody knows")
            for other in direct.client_list():
                if other["name"].startswith("sentinel"):
                    direct.client_kill_filter(_id=other["id"])
            assert await outbox.send(("SET", "x", "2")) == b"OK"

            async def elsewhere() -> bool:
                return whole.master() not in {"", old}

            await eventually(elsewhere, FAILOVER_S)

            async def moved() -> bool:
                await again(lambda: outbox.send(("SET", "x", "3")))
                await again(lambda: client.set("y", "3"))
                with redis_sync.Redis(whole.master()) as new:
                    return new.get("x") == b"3" and new.get("y") == b"3"

            try:
                await eventually(moved, 10)
                assert direct.role()[0] == b"master", "it has been told, and is no case for us"
            finally:
                direct.config_set("requirepass", "")


async def test_one_sentinel_that_is_dead_is_no_hindrance(whole: Flock) -> None:
    dead = "127.0.0.1:1"
    hosts = ",".join((dead, *(f"{ip}:26379" for ip in whole.sentinels)))
    client = streams.connect(f"redis+sentinel://{hosts}/main/1")
    try:
        assert await client.ping()
        assert await client.client_info() | {"db": 1} == await client.client_info()
    finally:
        await client.aclose()


async def test_an_unknown_name_is_told_by_each_sentinel(whole: Flock) -> None:
    client = streams.connect(whole.url.replace("/main", "/other"))
    with pytest.raises(RedisError, match="it knows no master named 'other'"):
        await client.ping()
    async with streams.Outbox(client) as outbox:
        with pytest.raises(Unavailable, match="it knows no master named 'other'"):
            await outbox.send(("PING",))
    await client.aclose()


async def test_a_connection_that_answers_readonly_is_left(redis: streams.Redis) -> None:
    """Behind an address that moves, the next connection may reach the master."""
    async with streams.Outbox(redis) as outbox:
        before = await outbox.send(("CLIENT", "ID"))
        pooled = await redis.client_id()
        await redis.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(Unavailable, match="READONLY"):
                await outbox.send(("SET", "x", "1"))
            assert await outbox.send(("CLIENT", "ID")) != before
            with pytest.raises(redis_sync.ConnectionError, match="read only"):
                await redis.set("x", "1")
            assert await redis.client_id() != pooled
        finally:
            await redis.replicaof("NO", "ONE")
