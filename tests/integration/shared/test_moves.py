"""Do calls move as they must? The scripts and the outbox on a real Redis."""

import asyncio
from typing import Any

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


@pytest.mark.parametrize("once", ["", "digest"])
async def test_the_reply_of_a_call_that_has_run_is_sent_though_its_entry_is_lost(
    redis: streams.Redis, once: str
) -> None:
    await run(redis, scripts.keep_reply_stream("api-1", 60_000))
    entry_id = await assigned(redis, a_head(), a_parcel())
    await redis.delete(keys.runner("r1"))
    reply = messages.Reply("c1", messages.Answered(b"out"))
    end = scripts.end(
        keys.runner("r1"), entry_id, a_record(), reply, "api-1", once=once, has_run=True
    )
    assert await run(redis, end) == 0
    assert await redis.xlen(keys.reply("api-1")) == 1
    assert await redis.xlen(keys.FINISHED) == 0


@pytest.mark.parametrize("once", ["", "digest"])
async def test_a_reply_that_found_no_stream_is_in_the_one_that_is_made(
    redis: streams.Redis, once: str
) -> None:
    reply = messages.Reply("c1", messages.Answered(b"out"))
    for _ in range(2):
        entry_id = await assigned(redis, a_head(), a_parcel())
        end = scripts.end(keys.runner("r1"), entry_id, a_record(), reply, "api-1", once=once)
        await run(redis, end)
    assert 0 < await redis.pttl(keys.late("api-1")) <= 60_000
    assert await run(redis, scripts.keep_reply_stream("api-1", 5_000)) == 1
    assert [f[b"m"] for _, f in await entries(redis, keys.reply("api-1"))] == 2 * [
        messages.encode(reply)
    ]
    assert 0 < await redis.pttl(keys.reply("api-1")) <= 5_000
    assert not await redis.exists(keys.late("api-1"))
    assert await run(redis, scripts.keep_reply_stream("api-1", 5_000)) == 0


async def test_a_call_moves_back_with_its_parcel(redis: streams.Redis) -> None:
    entry_id = await assigned(redis, a_head(mode="async"), a_parcel())
    again = a_head(mode="async", attempt=2)
    assert await run(redis, scripts.move_back("r1", entry_id, again)) == 1
    assert await run(redis, scripts.move_back("r1", entry_id, again)) == 0
    [(_, fields)] = await entries(redis, keys.CALLS_ASYNC)
    assert fields == {b"h": messages.encode(again), b"p": messages.encode(a_parcel())}


LARGE = a_parcel(b"x" * (scripts.PARCEL_INLINE_MAX_BYTES + 1))


async def places_of(redis: streams.Redis) -> list[str]:
    """Return in which places a call is: of one that is neither lost nor doubled, one."""
    places = [
        stream
        for stream in (keys.CALLS_ASYNC, keys.runner("r1"))
        for _ in range(await redis.xlen(stream))
    ]
    places += [keys.RETRIES for _ in await redis.zrange(keys.RETRIES_DUE, 0, -1)]
    places += ["dead" for _, fields in await entries(redis, keys.FINISHED) if b"h" in fields]
    return places


async def freed(redis: streams.Redis) -> int:
    return len([1 for _, fields in await entries(redis, keys.EVENTS) if fields == {b"m": FREED}])


FREED_EVENT = messages.ExecutionFinished("r1", "c1")
FREED = messages.encode(FREED_EVENT)


@pytest.mark.parametrize("parcel", [a_parcel(), LARGE], ids=["small", "large"])
async def test_a_next_attempt_waits_beside_the_streams_until_it_is_due(
    redis: streams.Redis, parcel: messages.Parcel
) -> None:
    entry_id = await assigned(redis, a_head(mode="async"), parcel)
    again = a_head(mode="async", attempt=2)
    move = scripts.try_again(
        keys.runner("r1"), entry_id, again, a_record(status="queued"), due_ms=50, freed=FREED_EVENT
    )
    assert await run(redis, move) == 1
    assert await places_of(redis) == [keys.RETRIES]
    assert await freed(redis) == 1
    assert await run(redis, scripts.return_due_retries(49, 10)) == 0
    assert await places_of(redis) == [keys.RETRIES]
    assert await run(redis, scripts.return_due_retries(50, 10)) == 1
    assert await run(redis, scripts.return_due_retries(50, 10)) == 0
    assert await places_of(redis) == [keys.CALLS_ASYNC]
    [(_, fields)] = await entries(redis, keys.CALLS_ASYNC)
    raw = fields.get(b"p") or await redis.get(keys.parcel("c1"))
    assert fields[b"h"] == messages.encode(again)
    assert messages.decode(raw, messages.Parcel) == parcel
    assert not await redis.exists(keys.RETRIES, keys.RETRIES_DUE)
    assert await redis.xlen(keys.FINISHED) == 1


async def test_a_next_attempt_may_be_among_the_waiting_at_once(redis: streams.Redis) -> None:
    entry_id = await assigned(redis, a_head(mode="async"), a_parcel())
    again = a_head(mode="async", attempt=2)
    stream = keys.runner("r1")
    await run(redis, scripts.try_again(stream, entry_id, again, a_record(status="queued")))
    assert await places_of(redis) == [keys.CALLS_ASYNC]
    [(_, fields)] = await entries(redis, keys.CALLS_ASYNC)
    assert fields == {b"h": messages.encode(again), b"p": messages.encode(a_parcel())}


@pytest.mark.parametrize("parcel", [a_parcel(), LARGE], ids=["small", "large"])
async def test_a_dead_call_goes_whole_to_the_recorders(
    redis: streams.Redis, parcel: messages.Parcel
) -> None:
    head = a_head(mode="async", attempt=3)
    entry_id = await assigned(redis, head, parcel)
    bury = scripts.bury(keys.runner("r1"), entry_id, a_record(status="error"), freed=FREED_EVENT)
    assert await run(redis, bury) == 1
    assert await places_of(redis) == ["dead"]
    [(_, fields)] = await entries(redis, keys.FINISHED)
    raw = fields.get(b"p") or await redis.get(keys.parcel("c1"))
    assert fields[b"h"] == messages.encode(head)
    assert fields[b"m"] == messages.encode(a_record(status="error"))
    assert messages.decode(raw, messages.Parcel) == parcel
    assert await freed(redis) == 1
    assert await redis.get(keys.COMPLETE) == b"1"


def leavings(entry_id: bytes) -> dict[str, scripts.Command]:
    """Return all ways in which a failed attempt leaves its runner's stream."""
    stream, again = keys.runner("r1"), a_head(mode="async", attempt=2)
    queued, ended = a_record(status="queued"), a_record(status="error")
    return {
        "later": scripts.try_again(stream, entry_id, again, queued, due_ms=5, freed=FREED_EVENT),
        "at once": scripts.try_again(stream, entry_id, again, queued),
        "dead": scripts.bury(stream, entry_id, ended, freed=FREED_EVENT),
        "ended": scripts.end(stream, entry_id, ended, None, "", told=FREED_EVENT),
        "back": scripts.move_back("r1", entry_id, again),
    }


WAYS = list(leavings(b"1-1"))


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
async def test_who_takes_a_call_first_has_it(redis: streams.Redis, first: str, second: str) -> None:
    """A runner that was thought lost and the scheduler both end an attempt; or one does twice."""
    ways = leavings(await assigned(redis, a_head(mode="async"), a_parcel()))
    assert await run(redis, ways[first]) == 1
    places, told = await places_of(redis), await redis.xlen(keys.FINISHED)
    assert len(places) == (first != "ended")
    assert await run(redis, ways[second]) == 0
    assert (await places_of(redis), await redis.xlen(keys.FINISHED)) == (places, told)
    assert await freed(redis) == [first, second].count("later") + sum(
        way in {"dead", "ended"} for way in (first, second)
    )


async def test_who_brings_calls_back_at_one_time_brings_each_once(redis: streams.Redis) -> None:
    for n in range(50):
        head = a_head(f"c{n}", mode="async")
        entry_id = await assigned(redis, head, a_parcel())
        move = scripts.try_again(
            keys.runner("r1"), entry_id, head, a_record(f"c{n}", "queued"), due_ms=5
        )
        assert await run(redis, move) == 1
    due = scripts.return_due_retries(5, 7)
    returned = await asyncio.gather(*(run(redis, due) for _ in range(20)))
    assert sum(int(str(count)) for count in returned) == 50
    assert max(int(str(count)) for count in returned) == 7
    assert await places_of(redis) == [keys.CALLS_ASYNC] * 50


def a_redrive(parcel: messages.Parcel, **changes: object) -> scripts.Command:
    limits: dict[str, Any] = {"catalog_version": "0", "queue_max": 10, **changes}
    return scripts.redrive(a_head(mode="async"), parcel, a_record(status="queued"), **limits)


@pytest.mark.parametrize("parcel", [a_parcel(), LARGE], ids=["small", "large"])
async def test_a_dead_letter_is_accepted_once(
    redis: streams.Redis, parcel: messages.Parcel
) -> None:
    assert await run(redis, a_redrive(parcel, catalog_version="1")) == scripts.STALE
    assert await run(redis, a_redrive(parcel, queue_max=0)) == scripts.FULL
    assert await redis.dbsize() == 0
    assert await run(redis, a_redrive(parcel)) not in {scripts.STALE, scripts.FULL, scripts.DONE}
    assert await run(redis, a_redrive(parcel)) == scripts.DONE
    [(_, fields)] = await entries(redis, keys.CALLS_ASYNC)
    raw = fields.get(b"p") or await redis.get(keys.parcel("c1"))
    assert messages.decode(raw, messages.Parcel) == parcel
    assert await redis.xlen(keys.FINISHED) == 1
    assert await redis.pttl(keys.redriven("c1")) > 31 * 24 * 3600 * 1000
    await run(redis, scripts.redrive_noted("c1"))
    assert 0 < await redis.pttl(keys.redriven("c1")) <= scripts.REDRIVEN_NOTED_KEPT_MS


async def test_a_redis_without_memory_still_lets_failed_calls_go(redis: streams.Redis) -> None:
    heads = [a_head(f"c{n}", mode="async") for n in range(2)]
    held = [await assigned(redis, head, a_parcel()) for head in heads]
    stream = keys.runner("r1")
    await redis.config_set("maxmemory", "1kb")
    try:
        again = scripts.try_again(stream, held[0], heads[0], a_record("c0", "queued"), due_ms=5)
        assert await run(redis, again) == 1
        assert await run(redis, scripts.bury(stream, held[1], a_record("c1", "error"))) == 1
        assert await run(redis, scripts.return_due_retries(5, 10)) == 1
        async with streams.Outbox(redis) as outbox:
            with pytest.raises(Unavailable):
                await outbox.send(a_redrive(a_parcel()))
    finally:
        await redis.config_set("maxmemory", "0")
    assert await redis.get(keys.redriven("c1")) is None


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


async def test_what_a_group_cannot_decode_is_moved_aside_in_one_step(redis: streams.Redis) -> None:
    entry_id = await redis.xadd("s", {"m": b"\xff"})
    await streams.make_group(redis, "s", "g")
    await redis.xreadgroup("g", "me", {"s": ">"})
    await redis.config_set("maxmemory", "1kb")
    try:
        await run(redis, streams.set_aside("s", (entry_id, {b"m": b"\xff"}), "why", group="g"))
    finally:
        await redis.config_set("maxmemory", "0")
    assert len(await entries(redis, keys.ASIDE)) == 1
    assert await redis.xlen("s") == 0
    assert (await redis.xpending("s", "g"))["pending"] == 0


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
    assert await run(redis, scripts.tell(beat)) == 0
    [(_, told)] = await entries(redis, keys.EVENTS)
    kept = await redis.hgetall(keys.RUNNERS)
    assert messages.decode(told[b"m"], messages.Event) == beat
    assert kept == {b"r1": told[b"m"]}


# Calls with a key.


def a_claim(**changes: object) -> scripts.Claim:
    fields: dict[str, object] = {
        "digest": "d",
        "fingerprint": "f",
        "expires_ms": 1000,
        "until_ms": 500,
        "route_headers": b"",
        "answer_max_bytes": 100,
        "total_max_bytes": 5000,
    }
    return scripts.Claim(**{**fields, **changes})


def a_keyed_enqueue(
    call_id: str, now_ms: int = 1, parcel: messages.Parcel | None = None, **changes: object
) -> scripts.Command:
    head = a_head(call_id, once="d")
    enqueuing = an_enqueue(head, parcel or a_parcel())
    assert isinstance(enqueuing, scripts.Step)
    return scripts.enqueue_once(enqueuing, head, a_claim(**changes), now_ms)


async def test_a_key_is_claimed_with_its_call(redis: streams.Redis) -> None:
    assert isinstance(await run(redis, a_keyed_enqueue("c1")), bytes)
    held = await run(redis, a_keyed_enqueue("c2"))
    assert isinstance(held, list)
    assert held[:5] == [b"f", b"c1", b"sync", b"run", b"500"]
    assert await run(redis, scripts.look_at_claim("d")) == held
    [(_, fields)] = await entries(redis, keys.CALLS_SYNC)
    assert messages.decode(fields[b"h"], messages.CallHead) == a_head("c1", once="d")
    assert messages.decode(fields[b"p"], messages.Parcel) == a_parcel()


async def test_a_key_whose_time_is_over_is_claimed_anew(redis: streams.Redis) -> None:
    await run(redis, a_keyed_enqueue("c1"))
    assert isinstance(await run(redis, a_keyed_enqueue("c2", 999)), list)
    assert isinstance(await run(redis, a_keyed_enqueue("c3", 1000, expires_ms=2000)), bytes)
    assert await redis.get(keys.CLAIMS_BYTES) == b"%d" % scripts.CLAIM_BYTES
    assert await redis.zrange(keys.CLAIMS_DUE, 0, -1, withscores=True) == [(b"d", 2000.0)]


async def test_a_large_parcel_of_a_call_with_a_key(redis: streams.Redis) -> None:
    parcel = a_parcel(b"x" * (scripts.PARCEL_INLINE_MAX_BYTES + 1))
    await run(redis, a_keyed_enqueue("c1", parcel=parcel))
    assert messages.decode(await redis.get(keys.parcel("c1")), messages.Parcel) == parcel


@pytest.mark.parametrize(
    ("code", "started_ms", "kept"),
    [
        ("", 1, b"done"),
        ("exit", 1, b"done"),
        ("unavailable", 1, b"done"),
        ("capacity", None, None),
        ("overloaded", None, None),
        ("unavailable", None, None),
        ("deadline", None, None),
        ("cancelled", None, None),
        ("image_pull", None, None),
        # Of these nobody knows whether something has run.
        ("runner_lost", None, b"done"),
        ("internal", None, b"done"),
    ],
)
async def test_the_end_of_a_call_with_a_key(
    redis: streams.Redis, code: str, started_ms: int | None, kept: bytes | None
) -> None:
    entry_id = await run(redis, a_keyed_enqueue("c1"))
    assert isinstance(entry_id, bytes)
    outcome = messages.Failed(code, "why") if code else messages.Answered(b"out")
    reply = messages.Reply("c1", outcome)
    record = messages.Record(
        "c1", "error" if code else "success", "sync", "app", "/p", "img", 1,
        started_ms=started_ms, code=code,
    )  # fmt: skip
    finish = scripts.end(keys.CALLS_SYNC, entry_id, record, reply, "api-1", once="d")
    assert await run(redis, finish) == 1
    assert await run(redis, finish) == 0
    state, answer, size = await redis.hmget(keys.claim("d"), ["s", "a", "z"])
    assert state == kept
    assert answer == (messages.encode(reply) if kept else None)
    assert int(await redis.get(keys.CLAIMS_BYTES)) == int(size or 0)
    assert await redis.xlen(keys.FINISHED) == 1
    assert await redis.get(keys.COMPLETE) == b"1"


async def test_the_end_of_another_call_leaves_a_claim_alone(redis: streams.Redis) -> None:
    first = await run(redis, a_keyed_enqueue("c1"))
    assert isinstance(first, bytes)
    assert isinstance(await run(redis, a_keyed_enqueue("c2", 1000, expires_ms=2000)), bytes)
    late = messages.Reply("c1", messages.Answered(b"late"))
    finish = scripts.end(keys.CALLS_SYNC, first, a_record("c1"), late, "api-1", once="d")
    assert await run(redis, finish) == 1
    assert await redis.hmget(keys.claim("d"), ["c", "s", "a"]) == [b"c2", b"run", None]


@pytest.mark.parametrize(
    ("limits", "state"),
    [
        ({}, b"done"),
        ({"answer_max_bytes": 10}, b"none"),
        ({"total_max_bytes": scripts.CLAIM_BYTES + 10}, b"none"),
    ],
)
async def test_an_answer_is_kept_within_limits(
    redis: streams.Redis, limits: dict[str, int], state: bytes
) -> None:
    entry_id = await run(redis, a_keyed_enqueue("c1", **limits))
    assert isinstance(entry_id, bytes)
    reply = messages.Reply("c1", messages.Answered(b"out"))
    record = messages.Record("c1", "success", "sync", "app", "/p", "img", 1, started_ms=1)
    await run(redis, scripts.end(keys.CALLS_SYNC, entry_id, record, reply, "api-1", once="d"))
    assert await redis.hget(keys.claim("d"), "s") == state
