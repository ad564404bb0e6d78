"""Do an app's limits hold, exactly, whoever asks and whoever ends a call? On a real Redis."""

import asyncio

import pytest

from shared import clock, ids, keys, messages, scripts, streams
from tests.integration.shared.test_moves import (
    a_claim,
    a_head,
    a_parcel,
    a_record,
    an_enqueue,
    entries,
    run,
)


def asked(call_id: str, limits: scripts.Limits, **changes: object) -> scripts.Command:
    """Return an enqueue of a call that is accepted now."""
    now_ms = clock.epoch_ms()
    fields: dict[str, object] = {"accepted_ms": now_ms, "deadline_ms": now_ms + 1000, **changes}
    head = a_head(call_id, counted=bool(limits.max_inflight), **fields)
    return an_enqueue(head, a_parcel(), limits=limits, queue_max=1000)


async def test_no_more_than_so_many_are_under_way(redis: streams.Redis) -> None:
    two = scripts.Limits(2, 0, 0)
    entry_id = await run(redis, asked("c1", two))
    assert isinstance(entry_id, bytes)
    assert await run(redis, asked("c2", two)) != scripts.BUSY
    assert await run(redis, asked("c3", two)) == scripts.BUSY
    assert await redis.xlen(keys.CALLS_SYNC) == 2
    end = scripts.end(keys.CALLS_SYNC, entry_id, a_record("c1"), None, "", counted=True)
    assert await run(redis, end) == 1
    assert await run(redis, end) == 0
    assert await run(redis, asked("c3", two)) != scripts.BUSY
    assert await run(redis, asked("c4", two)) == scripts.BUSY


async def test_what_is_refused_for_another_reason_counts_nowhere(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 1_000_000, 1_000_000)
    await redis.hincrby(keys.CATALOG_VERSIONS, "app", 1)
    assert await run(redis, asked("c1", one)) == scripts.STALE
    assert not await redis.exists(keys.inflight("app"), keys.pace("app"))


async def test_one_that_is_too_many_costs_nothing_of_the_rate(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 1_000_000, 10_000_000)
    await run(redis, asked("c1", one))
    before = await redis.get(keys.pace("app"))
    assert await run(redis, asked("c2", one)) == scripts.BUSY
    assert await redis.get(keys.pace("app")) == before


async def test_a_call_whose_end_nobody_told_stops_counting(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 0, 0)
    past_ms = clock.epoch_ms() - 120_000
    await run(redis, asked("c1", one, accepted_ms=past_ms, deadline_ms=past_ms + 1000))
    assert await run(redis, asked("c2", one)) != scripts.BUSY
    assert await run(redis, asked("c3", one)) == scripts.BUSY


async def test_apps_do_not_count_for_each_other(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 1_000_000, 1_000_000)
    await run(redis, asked("c1", one))
    assert isinstance(await run(redis, asked("c2", one, app="other")), bytes)
    assert await redis.xlen(keys.CALLS_SYNC) == 2


async def test_a_burst_then_the_rate(redis: streams.Redis) -> None:
    """One a second and three at once: the fourth comes too early, by a second at most."""
    pace = scripts.Limits(0, 1_000_000, 3_000_000)
    answers = [await run(redis, asked(ids.new_call_id(), pace)) for _ in range(4)]
    refused = answers[3]
    assert isinstance(refused, bytes)
    assert refused.startswith(scripts.EARLY)
    early_s = int(refused.removeprefix(scripts.EARLY)) / 1e6
    assert 0 < early_s <= 1
    await asyncio.sleep(early_s)
    assert not str(await run(redis, asked("c5", pace))).startswith("b'early")


@pytest.mark.parametrize("rate", [50, 400])
async def test_over_a_second_as_many_as_the_rate_says(redis: streams.Redis, rate: int) -> None:
    """All that ask at once, through several connections, get the burst and the rate, no more."""
    period_us = 1_000_000 // rate
    pace = scripts.Limits(0, period_us, 5 * period_us)
    accepted = 0
    async with streams.Outbox(redis) as one, streams.Outbox(redis) as other:
        began_s = clock.monotonic_s()
        while clock.monotonic_s() - began_s < 1.0:
            sent = [o.send(asked(ids.new_call_id(), pace)) for o in (one, other) for _ in range(20)]
            answers = await asyncio.gather(*sent)
            accepted += sum(not a.startswith(scripts.EARLY) for a in answers)
        took_s = clock.monotonic_s() - began_s
    assert 10 < accepted <= rate * took_s + 6


async def test_a_task_that_is_acknowledged_counts_no_more(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 0, 0)
    await run(redis, asked("c1", one, mode="async", deadline_ms=0))
    assert await redis.zcard(keys.inflight("app")) == 1
    assert await run(redis, scripts.reserve_task(1))
    assert await run(redis, asked("c2", one)) == scripts.BUSY
    assert await run(redis, scripts.end_task(a_record("c1"))) == 1
    assert await redis.zcard(keys.inflight("app")) == 0


async def test_limited_and_other_calls_go_in_one_write(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 0, 0)
    free = an_enqueue(a_head("c1", app="free"), a_parcel())
    async with streams.Outbox(redis) as outbox:
        sent = [outbox.send(c) for c in (free, asked("c2", one), asked("c3", one), free)]
        answers = await asyncio.gather(*sent)
    assert [a == scripts.BUSY for a in answers] == [False, False, True, False]
    _, (_, fields), _ = await entries(redis, keys.CALLS_SYNC)
    head = messages.decode(fields[b"h"], messages.CallHead)
    assert (head.call_id, head.counted) == ("c2", True)


def keyed(call_id: str, limits: scripts.Limits) -> scripts.Command:
    """Return an enqueue of a call with an idempotency key."""
    enqueuing = asked(call_id, limits)
    assert isinstance(enqueuing, scripts.Step)
    head = a_head(call_id, counted=True, once=call_id)
    now_ms = clock.epoch_ms()
    claim = a_claim(digest=call_id, expires_ms=now_ms + 60_000)
    return scripts.enqueue_once(enqueuing, head, claim, now_ms)


async def test_a_call_with_a_key_counts_until_it_has_ended(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 0, 0)
    entry_id = await run(redis, keyed("c1", one))
    assert isinstance(entry_id, bytes)
    assert isinstance(await run(redis, keyed("c1", one)), list)  # the same call once more
    assert await run(redis, keyed("c2", one)) == scripts.BUSY
    assert not await redis.exists(keys.claim("c2"))
    record = a_record("c1")
    end = scripts.end(keys.CALLS_SYNC, entry_id, record, None, "", once="c1", counted=True)
    assert await run(redis, end) == 1
    assert await redis.zcard(keys.inflight("app")) == 0
    assert isinstance(await run(redis, keyed("c2", one)), bytes)


async def test_a_call_with_a_key_may_come_too_early(redis: streams.Redis) -> None:
    slow = scripts.Limits(0, 1_000_000, 1_000_000)
    assert isinstance(await run(redis, keyed("c1", slow)), bytes)
    refused = await run(redis, keyed("c2", slow))
    assert isinstance(refused, bytes)
    assert refused.startswith(scripts.EARLY)


async def test_a_call_that_came_by_a_grant_counts_until_it_has_ended(redis: streams.Redis) -> None:
    one = scripts.Limits(1, 0, 0)
    await streams.make_group(redis, keys.runner("r1"), keys.RUNNER_GROUP)
    await run(redis, scripts.grant("kind", "r1", messages.Assignment(1, 2, "1.1")))
    answer = await run(redis, asked("c1", one, sandbox_key="kind"))
    assert isinstance(answer, list)
    assert answer[1] == b"r1"
    assert await run(redis, asked("c2", one, sandbox_key="kind")) == scripts.BUSY
    told = messages.ExecutionFinished("r1", "c1", "1.1")
    place = scripts.Place("1.1", "kind")
    stream, record = keys.runner("r1"), a_record("c1")
    end = scripts.end(stream, answer[0], record, None, "", told=told, place=place, counted=True)
    assert await run(redis, end) == 1
    assert await redis.zcard(keys.inflight("app")) == 0
    assert await redis.hget(keys.GRANTS, "kind:free") == b"1"
    assert await redis.xlen(keys.EVENTS) == 0


async def test_a_dead_letter_counts_no_more(redis: streams.Redis) -> None:
    entry_id = await run(redis, asked("c1", scripts.Limits(1, 0, 0), mode="async"))
    assert isinstance(entry_id, bytes)
    bury = scripts.bury(keys.CALLS_ASYNC, entry_id, a_record("c1", "error"))
    assert await run(redis, bury) == 1
    assert await redis.zcard(keys.inflight("app")) == 0
