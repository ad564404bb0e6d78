"""Do steps that go as one do what each would do alone, whatever becomes of Redis?"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from testcontainers.core.container import DockerContainer

from shared import keys, messages, scripts, streams, urls
from shared.errors import Unavailable
from tests.conftest import REDIS_IMAGE, eventually
from tests.integration.shared.test_moves import a_head, a_parcel, a_record, an_enqueue

R1, R2 = keys.runner("r1"), keys.runner("r2")


def enqueuing(number: int) -> scripts.Command:
    return an_enqueue(a_head(f"c{number}"), a_parcel(), queue_max=10**6)


def assigning(entry_id: bytes, runner_id: str = "r1", epoch: int = 1) -> scripts.Command:
    return scripts.assign(keys.CALLS_SYNC, entry_id, runner_id, messages.Assignment(epoch, 2))


async def evalsha_calls(redis: streams.Redis) -> int:
    stats: Any = await redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def call_ids(redis: streams.Redis, stream: str = keys.CALLS_SYNC) -> list[str]:
    found: Any = await redis.xrange(stream)
    return [messages.decode(fields[b"h"], messages.CallHead).call_id for _, fields in found]


async def enqueued(outbox: streams.Outbox, count: int) -> list[bytes]:
    return list(await asyncio.gather(*(outbox.send(enqueuing(i)) for i in range(count))))


async def test_many_go_as_one_and_each_has_its_answer(redis: streams.Redis) -> None:
    await redis.config_resetstat()
    async with streams.Outbox(redis) as outbox:
        ids = await enqueued(outbox, 50)
    assert await call_ids(redis) == [f"c{i}" for i in range(50)]
    assert [entry_id for entry_id, _ in await redis.xrange(keys.CALLS_SYNC)] == ids
    assert await evalsha_calls(redis) == 1


async def test_a_queue_fills_up_in_the_middle_of_a_batch(redis: streams.Redis) -> None:
    async with streams.Outbox(redis) as outbox:
        sent = [outbox.send(an_enqueue(a_head(f"c{i}"), a_parcel(), queue_max=3)) for i in range(5)]
        answers = await asyncio.gather(*sent)
    assert answers[3:] == [scripts.FULL] * 2
    assert await call_ids(redis) == ["c0", "c1", "c2"]


async def test_a_step_that_fails_leaves_its_neighbours_alone(redis: streams.Redis) -> None:
    """One call's runner has something else under its key, another's stream is gone."""
    await streams.make_group(redis, R1, keys.RUNNER_GROUP)
    await redis.set(R2, "no stream")
    async with streams.Outbox(redis) as outbox:
        ids = await enqueued(outbox, 5)
        runners = ("r1", "r2", "r1", "nobody", "r1")
        sent = [outbox.send(assigning(i, r)) for i, r in zip(ids, runners, strict=True)]
        first, failed, third, lost, fifth = await asyncio.gather(*sent, return_exceptions=True)
    assert all(isinstance(answer, bytes) for answer in (first, third, fifth))
    assert isinstance(failed, ResponseError)
    assert lost == scripts.LOST
    assert await call_ids(redis) == ["c1", "c3"]
    assert await call_ids(redis, R1) == ["c0", "c2", "c4"]


async def test_a_call_is_given_out_once_in_one_batch_too(redis: streams.Redis) -> None:
    for runner_id in ("r1", "r2"):
        await streams.make_group(redis, keys.runner(runner_id), keys.RUNNER_GROUP)
    async with streams.Outbox(redis) as outbox:
        [entry_id] = await enqueued(outbox, 1)
        sent = [outbox.send(assigning(entry_id, r)) for r in ("r1", "r2")]
        moved, gone = await asyncio.gather(*sent)
    assert isinstance(moved, bytes)
    assert gone == scripts.GONE
    assert [await redis.xlen(s) for s in (keys.CALLS_SYNC, R1, R2)] == [0, 1, 0]


async def test_a_reign_that_is_over_assigns_nothing_of_a_batch(redis: streams.Redis) -> None:
    await streams.make_group(redis, R1, keys.RUNNER_GROUP)
    await redis.set(keys.EPOCH, 2)
    async with streams.Outbox(redis) as outbox:
        ids = await enqueued(outbox, 2)
        assert (
            await asyncio.gather(*(outbox.send(assigning(i)) for i in ids)) == [scripts.FENCED] * 2
        )
    assert await redis.xlen(keys.CALLS_SYNC) == 2


async def test_ends_in_a_batch_count_and_clear_only_what_was_theirs(redis: streams.Redis) -> None:
    ids = [await redis.xadd(R1, {"k": "assign"}) for _ in range(3)]
    await redis.xdel(R1, ids[1])
    for i in range(3):
        await redis.set(keys.parcel(f"c{i}"), "large")
    async with streams.Outbox(redis) as outbox:
        sent = [
            outbox.send(scripts.end(R1, entry_id, a_record(f"c{i}"), None, ""))
            for i, entry_id in enumerate(ids)
        ]
        assert await asyncio.gather(*sent) == [1, 0, 1]
    assert await redis.get(keys.COMPLETE) == b"2"
    assert await redis.exists(*(keys.parcel(f"c{i}") for i in range(3))) == 1
    assert await redis.xlen(keys.FINISHED) == 2


async def test_a_redis_out_of_memory_refuses_each_step_of_a_batch(redis: streams.Redis) -> None:
    async with streams.Outbox(redis) as outbox:
        await enqueued(outbox, 1)
        await redis.config_set("maxmemory", "1kb")
        try:
            sent = [outbox.send(enqueuing(i)) for i in range(3)]
            answers = await asyncio.gather(*sent, return_exceptions=True)
        finally:
            await redis.config_set("maxmemory", "0")
    assert [type(answer) for answer in answers] == [Unavailable] * 3


async def test_a_cancel_follows_its_assignment_when_scripts_are_dropped(
    redis: streams.Redis,
) -> None:
    await streams.make_group(redis, R1, keys.RUNNER_GROUP)
    async with streams.Outbox(redis) as outbox:
        first, second = await enqueued(outbox, 2)
        await asyncio.gather(
            outbox.send(assigning(first)), outbox.send(scripts.forward_cancel("r1", "c0"))
        )
        await redis.script_flush()
        await asyncio.gather(
            outbox.send(assigning(second)), outbox.send(scripts.forward_cancel("r1", "c1"))
        )
    found: Any = await redis.xrange(R1)
    kinds = [fields[b"k"] for _, fields in found]
    assert kinds == [b"assign", b"cancel"] * 2


async def test_scripts_dropped_under_load_cost_no_call_and_no_order(redis: streams.Redis) -> None:
    await redis.config_resetstat()

    enough = asyncio.Event()

    async def drop() -> None:
        while not enough.is_set():
            await redis.script_flush()

    async def times_lacking() -> int:
        stats: Any = await redis.info("errorstats")
        return int(stats.get("errorstat_NOSCRIPT", {"count": 0})["count"])

    dropping = asyncio.create_task(drop())
    count = 0
    async with streams.Outbox(redis) as outbox:
        while await times_lacking() < 20:
            sent = [outbox.send(enqueuing(count + i)) for i in range(20)]
            count += 20
            await asyncio.gather(*sent)
    enough.set()
    await dropping
    assert await call_ids(redis) == [f"c{i}" for i in range(count)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a container may write to; its name is short, as a socket's must be."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o777)
        yield made


@contextlib.asynccontextmanager
async def own_redis(folder: Path, *options: str) -> AsyncIterator[DockerContainer]:
    """Give a Redis of the test's own, with its socket in a folder."""
    socket = "--unixsocket /sockets/redis.sock --unixsocketperm 777"
    command = " ".join(("redis-server --appendonly yes --protected-mode no", socket, *options))
    container = DockerContainer(REDIS_IMAGE).with_command(command)
    container = container.with_volume_mapping(str(folder), "/sockets", "rw")
    await asyncio.to_thread(container.start)
    try:
        yield container
    finally:
        await asyncio.to_thread(container.stop)


async def answers(client: streams.Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisConnectionError, OSError):
        return False


async def test_a_restart_under_load_doubles_no_call_and_keeps_the_order(folder: Path) -> None:
    """The new process knows no scripts. What was answered is there, in order, once."""
    async with own_redis(folder) as container:
        redis = streams.connect(f"unix://{folder}/redis.sock")
        await eventually(lambda: answers(redis), 30)
        accepted: list[str] = []
        number, losses = 0, 0
        restarting: asyncio.Future[None] | None = None
        async with streams.Outbox(redis) as outbox:
            while restarting is None or not restarting.done() or len(accepted) < 2000:
                sent = {f"c{n}": outbox.send(enqueuing(n)) for n in range(number, number + 20)}
                number += 20
                for call_id, answer in sent.items():
                    try:
                        await answer
                        accepted.append(call_id)
                    except Unavailable:
                        losses += 1
                if restarting is None and len(accepted) >= 1000:
                    wrapped = container.get_wrapped_container()
                    restarting = asyncio.ensure_future(asyncio.to_thread(wrapped.restart))
            await restarting
        await eventually(lambda: answers(redis), 30)
        found = await call_ids(redis)
        await redis.aclose()
    assert losses
    assert len(found) == len(set(found))
    assert [call_id for call_id in found if call_id in set(accepted)] == accepted


async def test_a_socket_in_the_file_system_is_an_address(folder: Path) -> None:
    async with own_redis(folder, "--requirepass s3cret"):
        url = f"unix://:s3cret@{folder}/redis.sock?db=1"
        urls.check_redis(url)
        redis = streams.connect(url)
        await eventually(lambda: answers(redis), 30)
        async with streams.Outbox(redis) as outbox, streams.Tail(redis) as tail:
            await enqueued(outbox, 3)
            found = await tail.read({keys.CALLS_SYNC: "0"}, count=10)
        assert len(found[keys.CALLS_SYNC]) == 3
        assert await redis.xlen(keys.CALLS_SYNC) == 3
        await redis.aclose()
