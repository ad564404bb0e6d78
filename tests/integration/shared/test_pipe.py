"""Does the pipe to Redis keep order, survive losses, and tell who waits?"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared import keys, messages, scripts, streams
from shared.errors import Refused, Unavailable
from shared.pipe import Pipe, refused
from tests.conftest import eventually


@asynccontextmanager
async def piped(redis: streams.Redis, answer_s: float = 5.0) -> AsyncIterator[Pipe]:
    pipe = Pipe(redis, answer_s)
    yield pipe
    await pipe.close()


async def test_answers_come_to_who_asked_however_much_is_under_way(redis: streams.Redis) -> None:
    async with piped(redis) as pipe:
        big = b"x" * 3_000_000
        sent = [pipe.send(("ECHO", big if i % 50 == 0 else str(i))) for i in range(200)]
        answers = await asyncio.gather(*sent)
    assert [a == big for a in answers] == [i % 50 == 0 for i in range(200)]
    assert answers[7] == b"7"


async def test_a_wrong_command_and_a_refusal_are_told_apart(redis: streams.Redis) -> None:
    async with piped(redis) as pipe:
        with pytest.raises(ResponseError):
            await pipe.send(("NO-SUCH-COMMAND",))
        assert await pipe.send(("PING",)) == b"PONG"


async def test_a_lost_connection_is_told_and_made_again(redis: streams.Redis) -> None:
    async with piped(redis) as pipe:
        own_id = await pipe.send(("CLIENT", "ID"))
        waiting = pipe.send(("BLPOP", "nothing", 0))
        await redis.client_kill_filter(_id=own_id)
        with pytest.raises(Unavailable):
            await waiting
        assert pipe.left_s is not None
        assert await pipe.send(("PING",)) == b"PONG"


async def test_who_was_cancelled_takes_no_answer_of_another(redis: streams.Redis) -> None:
    async with piped(redis) as pipe:
        first, second = pipe.send(("ECHO", "first")), pipe.send(("ECHO", "second"))
        first.cancel()
        assert await second == b"second"


async def test_a_redis_that_falls_silent_is_given_up(redis: streams.Redis) -> None:
    async with piped(redis, answer_s=0.5) as pipe:
        with pytest.raises(Unavailable, match="silent"):
            await pipe.send(("BLPOP", "nothing", 0))
        await asyncio.sleep(0)
        assert pipe.left_s is None


async def test_after_an_absence_the_owner_of_a_stream_reads_all_of_it(redis: streams.Redis) -> None:
    """A batch may have been lost on its way; what was deleted does not come again."""
    stream = keys.runner("r1")
    first, second = await redis.xadd(stream, {"n": 1}), await redis.xadd(stream, {"n": 2})
    batches = streams.read_group(redis, stream, "g", "me", count=10, own=True)
    assert [i for i, _ in await anext(batches)] == [first, second]
    await redis.xdel(stream, first)
    under_way = asyncio.ensure_future(anext(batches))

    async def reading() -> bool:
        return bool((await redis.info("clients"))["blocked_clients"])

    await eventually(reading, 20)
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert [i for i, _ in await under_way] == [second]
    third = await redis.xadd(stream, {"n": 3})

    async def new() -> bool:
        return [i for i, _ in await anext(batches)] == [third]

    await eventually(new, 20)
    await batches.aclose()


async def test_an_end_can_free_capacity_in_the_same_step(redis: streams.Redis) -> None:
    record = messages.Record("c1", "success", "sync", "a", "/p", "i", 1)
    freed = messages.ExecutionFinished("r1", "c1")
    entry_id = await redis.xadd(keys.runner("r1"), {"k": "assign"})
    async with piped(redis) as pipe:
        end = scripts.end(keys.runner("r1"), entry_id, record, None, "", told=freed)
        assert await pipe.send(end) == 1
        assert await pipe.send(end) == 0
    entries: Any = await redis.xrange(keys.EVENTS)
    event: Any = messages.decode(entries[0][1][b"m"], messages.Event)
    assert event == freed


@pytest.mark.parametrize(("listens", "kind"), [(False, Refused), (True, Unavailable)])
async def test_a_redis_that_refuses_is_told_from_one_that_is_silent(
    *, listens: bool, kind: type[Unavailable]
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        redis = streams.connect(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        async with piped(redis, answer_s=0.5) as pipe:
            with pytest.raises(Unavailable) as raised:
                await pipe.send(("PING",))
        await redis.aclose()
    assert raised.type is kind


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (ConnectionRefusedError(), True),
        (socket.gaierror(socket.EAI_NONAME, "nobody's name"), True),
        (socket.gaierror(socket.EAI_AGAIN, "no answer"), False),
        (OSError(113, "no route to host"), False),
        (TimeoutError(), False),
    ],
)
def test_what_a_refusal_is(error: OSError, *, is_one: bool) -> None:
    wrapped = RedisConnectionError("cannot connect")
    wrapped.__cause__ = error
    assert refused(wrapped) is is_one
