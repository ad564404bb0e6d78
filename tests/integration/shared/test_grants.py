"""Do calls take the places that the scheduler leaves them? The scripts on a real Redis."""

import pytest

from services.scheduler.lease import Lease
from shared import keys, messages, scripts, streams
from tests.integration.shared.test_moves import (
    a_head,
    a_parcel,
    a_record,
    an_enqueue,
    assigned,
    entries,
    run,
)

R1 = keys.runner("r1")
KIND = "kind"
FREE = f"{KIND}:free"


def an_assignment(grant: str = "3.1", epoch: int = 3) -> messages.Assignment:
    return messages.Assignment(epoch, 2, grant)


@pytest.fixture(autouse=True)
async def _runner(redis: streams.Redis) -> None:
    await streams.make_group(redis, R1, keys.RUNNER_GROUP)


async def granted(redis: streams.Redis, places: int, grant: str = "3.1") -> None:
    for _ in range(places):
        await run(redis, scripts.grant(KIND, "r1", an_assignment(grant)))


def keyed(call_id: str = "c1", mode: messages.Mode = "sync") -> messages.CallHead:
    return a_head(call_id, mode, sandbox_key=KIND)


async def come(redis: streams.Redis, call_id: str) -> bytes:
    """Enqueue a call; return its entry id at the runner it went to."""
    answer = await run(redis, an_enqueue(keyed(call_id), a_parcel()))
    assert isinstance(answer, list)
    assert answer[1] == b"r1"
    entry_id = answer[0]
    assert isinstance(entry_id, bytes)
    return entry_id


def an_end(
    entry_id: bytes, call_id: str, grant: str = "3.1", *, kept: bool = False
) -> scripts.Command:
    told: messages.ExecutionFinished | messages.PlaceKept
    told = messages.ExecutionFinished("r1", call_id, grant)
    if kept:
        told = messages.PlaceKept("r1", call_id, grant)
    place = scripts.Place(grant, "" if kept else KIND)
    return scripts.end(R1, entry_id, a_record(call_id), None, "", told=told, place=place)


async def told(redis: streams.Redis) -> list[messages.Event]:
    return [messages.decode(f[b"m"], messages.Event) for _, f in await entries(redis, keys.EVENTS)]


async def test_a_call_takes_a_free_place_and_the_next_one_waits(redis: streams.Redis) -> None:
    await granted(redis, 1)
    entry_id = await come(redis, "c1")
    [(there, fields)] = await entries(redis, R1)
    assert there == entry_id
    assert fields[b"k"] == b"assign"
    assert messages.decode(fields[b"a"], messages.Assignment) == an_assignment()
    assert messages.decode(fields[b"h"], messages.CallHead) == keyed()
    assert messages.decode(fields[b"p"], messages.Parcel) == a_parcel()
    assert isinstance(await run(redis, an_enqueue(keyed("c2"), a_parcel())), bytes)
    assert await redis.xlen(keys.CALLS_SYNC) == 1


async def test_calls_in_one_write_take_the_places_that_there_are(redis: streams.Redis) -> None:
    await granted(redis, 2)
    async with streams.Outbox(redis) as outbox:
        sent = [outbox.send(an_enqueue(keyed(f"c{n}"), a_parcel())) for n in range(4)]
        answers = [await each for each in sent]
    assert [isinstance(answer, list) for answer in answers] == [True, True, False, False]
    assert await redis.hget(keys.GRANTS, FREE) == b"0"


@pytest.mark.parametrize("head", [keyed(mode="async"), a_head(sandbox_key="other"), a_head()])
async def test_other_calls_go_to_the_scheduler(
    redis: streams.Redis, head: messages.CallHead
) -> None:
    await granted(redis, 1)
    assert isinstance(await run(redis, an_enqueue(head, a_parcel())), bytes)
    assert await redis.xlen(keys.calls(head.mode)) == 1


async def test_a_place_at_a_runner_that_is_gone_is_not_taken(redis: streams.Redis) -> None:
    await granted(redis, 1)
    await redis.delete(R1)
    assert isinstance(await run(redis, an_enqueue(keyed(), a_parcel())), bytes)
    assert await redis.xlen(keys.CALLS_SYNC) == 1
    assert await redis.hget(keys.GRANTS, FREE) == b"1"


async def test_an_ended_call_leaves_its_place_again_and_only_once(redis: streams.Redis) -> None:
    await granted(redis, 1)
    entry_id = await come(redis, "c1")
    assert await run(redis, an_end(entry_id, "c1")) == 1
    assert await run(redis, an_end(entry_id, "c1")) == 0
    assert await redis.hget(keys.GRANTS, FREE) == b"1"
    assert await told(redis) == []


async def test_a_place_of_a_closed_grant_is_told_and_only_once(redis: streams.Redis) -> None:
    await granted(redis, 2)
    entry_id = await come(redis, "c1")
    assert await run(redis, scripts.recall(KIND, "3.1", close=True)) == 1
    assert await run(redis, scripts.recall(KIND, "3.1", close=True)) == -1
    await granted(redis, 1, "3.2")
    assert await run(redis, an_end(entry_id, "c1")) == 1
    assert await run(redis, an_end(entry_id, "c1")) == 0
    assert await told(redis) == [messages.ExecutionFinished("r1", "c1", "3.1")]
    assert await redis.hget(keys.GRANTS, FREE) == b"1"


async def test_what_is_free_is_taken_back_and_what_is_in_use_stays(redis: streams.Redis) -> None:
    await granted(redis, 3)
    entry_id = await come(redis, "c1")
    assert await run(redis, scripts.recall(KIND, "3.1", close=False)) == 2
    assert isinstance(await run(redis, an_enqueue(keyed("c2"), a_parcel())), bytes)
    await run(redis, an_end(entry_id, "c1"))
    await come(redis, "c3")


async def test_a_place_whose_sandbox_is_removed_is_told_and_not_left(redis: streams.Redis) -> None:
    await granted(redis, 1)
    entry_id = await come(redis, "c1")
    await run(redis, an_end(entry_id, "c1", kept=True))
    assert await told(redis) == [messages.PlaceKept("r1", "c1", "3.1")]
    assert await redis.hget(keys.GRANTS, FREE) == b"0"


async def test_a_call_put_back_tells_of_its_place_in_the_same_step(redis: streams.Redis) -> None:
    await granted(redis, 1)
    entry_id = await come(redis, "c1")
    freed = messages.ExecutionFinished("r1", "c1", "3.1")
    back = scripts.move_back("r1", entry_id, keyed(), freed)
    assert await run(redis, back) == 1
    assert await run(redis, back) == 0
    assert await told(redis) == [freed]
    assert await redis.xlen(keys.CALLS_SYNC) == 1


async def test_a_new_reign_has_no_grants_and_an_old_one_makes_none(redis: streams.Redis) -> None:
    await redis.set(keys.EPOCH, 3)
    await granted(redis, 1)
    assert await Lease(redis, "s").begin_reign() > 3
    assert not await redis.exists(keys.GRANTS)
    assert await run(redis, scripts.grant(KIND, "r1", an_assignment())) == scripts.FENCED
    assert not await redis.exists(keys.GRANTS)


async def test_a_call_that_the_scheduler_gave_tells_as_ever(redis: streams.Redis) -> None:
    await granted(redis, 1)
    entry_id = await assigned(redis, a_head("c9"), a_parcel())
    freed = messages.ExecutionFinished("r1", "c9")
    assert await run(redis, scripts.end(R1, entry_id, a_record("c9"), None, "", told=freed)) == 1
    assert await told(redis) == [freed]
