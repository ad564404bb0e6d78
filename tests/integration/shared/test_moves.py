"""Do calls move as they must? The scripts and the outbox on a real Redis."""

import asyncio

import pytest

from shared import keys, messages, scripts, streams
from shared.errors import Unavailable


def a_head(
    call_id: str = "c1", mode: messages.Mode = "sync", **changes: object
) -> messages.CallHead:
    fields: dict[str, object] = {
        "app": "app",
        "path": "/p",
        "image": "img",
        "memory_mb": 128,
        "cpus": 1.0,
        "accepted_ms": 1,
        "wait_until_ms": 0,
        "deadline_ms": 0,
        "reply_to": "api-1",
        "timeout_ms": 30_000,
    }
    return messages.CallHead(call_id=call_id, mode=mode, **{**fields, **changes})


def a_parcel(payload: bytes = b"body") -> messages.Parcel:
    return messages.Parcel({"METHOD": "POST"}, {}, payload)


def a_record(call_id: str = "c1", status: messages.Status = "success") -> messages.Record:
    return messages.Record(call_id, status, "sync", "app", "/p", "img", 1)


def an_enqueue(
    head: messages.CallHead, parcel: messages.Parcel, **changes: object
) -> scripts.Command:
    fields = {
        "catalog_version": "0",
        "queue_max": 10,
        "record": None,
        "parcel_ttl_ms": 0,
        **changes,
    }
    return scripts.enqueue(head, parcel, **fields)


async def run(redis: streams.Redis, command: scripts.Command) -> object:
    return await redis.execute_command(*command)


async def entries(redis: streams.Redis, stream: str) -> list[streams.Entry]:
    return [(e[0], e[1]) for e in await redis.xrange(stream)]


async def assigned(redis: streams.Redis, head: messages.CallHead, parcel: messages.Parcel) -> bytes:
    """Enqueue a call and assign it to runner r1; return its entry id there."""
    await streams.make_group(redis, keys.runner("r1"), keys.RUNNER_GROUP)
    entry_id = await run(redis, an_enqueue(head, parcel))
    assert isinstance(entry_id, bytes)
    moved = await run(
        redis, scripts.assign(keys.calls(head.mode), entry_id, "r1", messages.Assignment(1, 2))
    )
    assert isinstance(moved, bytes)
    return moved


async def test_an_accepted_call_carries_its_parcel(redis: streams.Redis) -> None:
    await run(redis, an_enqueue(a_head(), a_parcel()))
    [(_, fields)] = await entries(redis, keys.CALLS_SYNC)
    assert messages.decode(fields[b"h"], messages.CallHead) == a_head()
    assert messages.decode(fields[b"p"], messages.Parcel) == a_parcel()


async def test_a_large_parcel_travels_beside_its_entry_and_goes_with_the_call(
    redis: streams.Redis,
) -> None:
    parcel = a_parcel(b"x" * (scripts.PARCEL_INLINE_MAX_BYTES + 1))
    entry_id = await assigned(redis, a_head(), parcel)
    [(_, fields)] = await entries(redis, keys.runner("r1"))
    assert b"p" not in fields
    assert messages.decode(await redis.get(keys.parcel("c1")), messages.Parcel) == parcel
    await run(redis, scripts.end(keys.runner("r1"), entry_id, a_record(), None, ""))
    assert not await redis.exists(keys.parcel("c1"))


async def test_a_route_read_at_another_version_is_refused(redis: streams.Redis) -> None:
    await redis.hincrby(keys.CATALOG_VERSIONS, "app", 1)
    assert await run(redis, an_enqueue(a_head(), a_parcel())) == scripts.STALE
    assert await run(redis, an_enqueue(a_head(), a_parcel(), catalog_version="1")) != scripts.STALE
    assert await redis.xlen(keys.CALLS_SYNC) == 1


async def test_a_full_queue_takes_nothing(redis: streams.Redis) -> None:
    await run(redis, an_enqueue(a_head("c1"), a_parcel(), queue_max=1))
    refused = an_enqueue(a_head("c2"), a_parcel(), queue_max=1, record=a_record("c2"))
    assert await run(redis, refused) == scripts.FULL
    assert await redis.xlen(keys.CALLS_SYNC) == 1
    assert await redis.xlen(keys.FINISHED) == 0


async def test_a_call_is_assigned_once_only(redis: streams.Redis) -> None:
    await streams.make_group(redis, keys.runner("r1"), keys.RUNNER_GROUP)
    entry_id = await run(redis, an_enqueue(a_head(), a_parcel()))
    assert isinstance(entry_id, bytes)
    move = scripts.assign(keys.CALLS_SYNC, entry_id, "r1", messages.Assignment(1, 2))
    await run(redis, move)
    assert await run(redis, move) == b"gone"
    [(_, fields)] = await entries(redis, keys.runner("r1"))
    assert fields[b"k"] == b"assign"
    assert messages.decode(fields[b"a"], messages.Assignment) == messages.Assignment(1, 2)


async def test_a_call_stays_where_it_is_if_the_runner_is_gone(redis: streams.Redis) -> None:
    entry_id = await run(redis, an_enqueue(a_head(), a_parcel()))
    assert isinstance(entry_id, bytes)
    move = scripts.assign(keys.CALLS_SYNC, entry_id, "nobody", messages.Assignment(1, 2))
    assert await run(redis, move) == b"lost"
    assert await redis.xlen(keys.CALLS_SYNC) == 1


async def test_a_call_ends_once_only(redis: streams.Redis) -> None:
    await redis.xgroup_create(keys.reply("api-1"), "x", mkstream=True)
    entry_id = await assigned(redis, a_head(), a_parcel())
    reply = messages.Reply("c1", messages.Answered(b"out"))
    finish = scripts.end(keys.runner("r1"), entry_id, a_record(), reply, "api-1")
    assert await run(redis, finish) == 1
    assert await run(redis, finish) == 0
    assert await redis.xlen(keys.reply("api-1")) == 1
    assert await redis.xlen(keys.FINISHED) == 1
    assert await redis.get(keys.COMPLETE) == b"1"


async def test_of_too_many_records_those_of_answered_sync_calls_are_dropped(
    redis: streams.Redis,
) -> None:
    """MySQL is away for long: what was accepted to run later is recorded all the same."""
    many = "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'm', '') end"
    await redis.eval(many, 1, keys.FINISHED, scripts.RECORDS_MAX)
    sync = await assigned(redis, a_head("c1"), a_parcel())
    reply = messages.Reply("c1", messages.Answered(b"out"))
    answered = scripts.end(keys.runner("r1"), sync, a_record("c1"), reply, "api-1")
    assert await run(redis, answered) == scripts.UNRECORDED
    assert await run(redis, scripts.note(a_record("c2", "running"))) == 0
    assert await redis.xlen(keys.FINISHED) == scripts.RECORDS_MAX
    assert await redis.get(keys.COMPLETE) == b"1"
    later = await run(redis, an_enqueue(a_head("c3", mode="async"), a_parcel()))
    assert isinstance(later, bytes)
    ended = scripts.end(keys.CALLS_ASYNC, later, a_record("c3"), None, "")
    assert await run(redis, ended) == 1
    assert await redis.xlen(keys.FINISHED) == scripts.RECORDS_MAX + 1


async def test_a_dead_replicas_reply_stream_is_not_made_again(redis: streams.Redis) -> None:
    entry_id = await assigned(redis, a_head(), a_parcel())
    reply = messages.Reply("c1", messages.Answered(b"out"))
    assert (
        await run(redis, scripts.end(keys.runner("r1"), entry_id, a_record(), reply, "dead")) == 1
    )
    assert not await redis.exists(keys.reply("dead"))


async def test_a_call_moves_back_with_its_parcel(redis: streams.Redis) -> None:
    entry_id = await assigned(redis, a_head(mode="async"), a_parcel())
    again = a_head(mode="async", attempt=2)
    assert await run(redis, scripts.move_back("r1", entry_id, again)) == 1
    assert await run(redis, scripts.move_back("r1", entry_id, again)) == 0
    [(_, fields)] = await entries(redis, keys.CALLS_ASYNC)
    assert fields == {b"h": messages.encode(again), b"p": messages.encode(a_parcel())}


async def test_the_outbox_answers_each_sender_its_own(redis: streams.Redis) -> None:
    async with streams.Outbox(redis) as outbox:
        answers = await asyncio.gather(*(outbox.send(("ECHO", str(i))) for i in range(1000)))
    assert answers == [str(i).encode() for i in range(1000)]


async def test_one_bad_command_does_not_hurt_its_neighbours(redis: streams.Redis) -> None:
    await redis.set("text", "x")
    async with streams.Outbox(redis) as outbox:
        sent = [
            outbox.send(("INCR", "a")),
            outbox.send(("INCR", "text")),
            outbox.send(("INCR", "b")),
        ]
        answers = await asyncio.gather(*sent, return_exceptions=True)
    assert answers[0] == answers[2] == 1
    assert "not an integer" in str(answers[1])


async def test_a_sender_learns_that_redis_is_away() -> None:
    away = streams.connect("redis://127.0.0.1:1")
    async with streams.Outbox(away) as outbox:
        with pytest.raises(Unavailable):
            await outbox.send(("PING",))
    await away.aclose()


async def test_an_outbox_that_stops_tells_who_still_waits(redis: streams.Redis) -> None:
    async with streams.Outbox(redis) as outbox:
        future = outbox.send(("PING",))
    with pytest.raises(Unavailable):
        await future


async def test_a_group_reads_what_came_before_it(redis: streams.Redis) -> None:
    await redis.xadd("s", {"m": "early"})
    async for batch in streams.read_group(redis, "s", "g", "me", count=10):
        assert [fields for _, fields in batch] == [{b"m": b"early"}]
        break


async def test_what_nobody_can_decode_is_kept_aside(redis: streams.Redis) -> None:
    await run(redis, streams.set_aside("s", (b"1-1", {b"m": b"\xff"}), "not a call"))
    [(_, fields)] = await entries(redis, keys.ASIDE)
    assert fields == {b"stream": b"s", b"id": b"1-1", b"why": b"not a call", b"m": b"\xff"}


async def test_a_redis_without_memory_takes_nothing_new_but_can_be_emptied(
    redis: streams.Redis,
) -> None:
    entry_id = await assigned(redis, a_head(), a_parcel())
    await run(redis, an_enqueue(a_head("c2"), a_parcel()))
    [(waiting, _)] = await entries(redis, keys.CALLS_SYNC)
    await redis.config_set("maxmemory", "1kb")
    try:
        async with streams.Outbox(redis) as outbox:
            with pytest.raises(Unavailable):
                await outbox.send(an_enqueue(a_head("c3"), a_parcel()))
            move = scripts.assign(keys.CALLS_SYNC, waiting, "r1", messages.Assignment(1, 2))
            assert isinstance(await outbox.send(move), bytes)
            ending = scripts.end(keys.runner("r1"), entry_id, a_record(), None, "")
            assert await outbox.send(ending) == 1
            assert await outbox.send(scripts.tell(messages.ExecutionFinished("r1", "c1"))) == 1
    finally:
        await redis.config_set("maxmemory", "0")


async def test_a_heartbeat_is_told_and_kept(redis: streams.Redis) -> None:
    beat = messages.Heartbeat("r1", "engine", 1, 1024, 2.0, "amd64")
    await run(redis, scripts.tell(beat))
    [(_, told)] = await entries(redis, keys.EVENTS)
    kept = await redis.hgetall(keys.RUNNERS)
    assert messages.decode(told[b"m"], messages.Event) == beat
    assert kept == {b"r1": told[b"m"]}
