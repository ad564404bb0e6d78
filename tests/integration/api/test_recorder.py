"""Records reach MySQL once, whatever dies, and nothing blocks them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from services.api import records as records_module
from services.api.database import Database
from services.api.letters import Letters
from services.api.migrating import migrate
from services.api.progress import merge
from services.api.recorder import Recorder
from services.api.records import Filter, Records
from services.api.retention import DAY_MS, Retention
from shared import clock, ids, keys, messages, streams, tasks
from shared.errors import Unavailable
from tests.conftest import eventually


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    """A pool on a database that has all tables."""
    await asyncio.to_thread(migrate, database)
    pool = Database(database)
    yield pool
    await pool.close()


@pytest.fixture
def records(opened: Database) -> Records:
    return Records(opened)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim after a moment what nobody has acknowledged."""
    monkeypatch.setattr("services.api.recorder.CLAIM_IDLE_MS", 50)
    monkeypatch.setattr("services.api.recorder.CLAIM_EVERY_S", 0.05)
    monkeypatch.setattr("shared.streams.BLOCK_MS", 50)


def a_record(**fields: Any) -> messages.Record:
    given = {
        "call_id": ids.new_call_id(),
        "status": "queued",
        "mode": "async",
        "app": "a",
        "path": "/p",
        "image": "img",
        "queued_ms": 1_700_000_000_000,
    }
    return messages.Record(**{**given, **fields})


async def append(redis: streams.Redis, *records: messages.Record) -> None:
    for record in records:
        await redis.xadd(keys.FINISHED, {"m": messages.encode(record)})


#: For recorders that meet no dead letter: it never connects.
NO_LETTERS = Letters(Database("mysql://nobody@127.0.0.1:1/nowhere"))


class Running:
    """A recorder at work, until left; then it is killed."""

    def __init__(
        self,
        redis: streams.Redis,
        records: Records,
        name: str = "api-1",
        letters: Letters = NO_LETTERS,
    ) -> None:
        self._recorder = Recorder(redis, records, letters, name)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._recorder.run())

    async def __aexit__(self, *_: object) -> None:
        await tasks.end(self._task)


async def nothing_left(redis: streams.Redis) -> None:
    async def empty() -> bool:
        return await redis.xlen(keys.FINISHED) == 0

    await eventually(empty)
    assert (await redis.xpending(keys.FINISHED, keys.RECORDERS))["pending"] == 0


async def test_a_calls_life_is_written_and_merged(redis: streams.Redis, records: Records) -> None:
    queued = a_record()
    running = msgspec.structs.replace(queued, status="running", started_ms=5, runner_id="r")
    ended = msgspec.structs.replace(
        queued,
        status="error",
        code="exit",
        message="exit code 3",
        exit_code=3,
        finished_ms=9,
        log=b"\xff\x00log'\\%s",
        result=b"\x00\xffpart",
        result_truncated=True,
        peak_memory_bytes=1 << 40,
    )
    async with Running(redis, records):
        await append(redis, queued)
        await nothing_left(redis)
        assert await records.find(queued.call_id) == queued
        await append(redis, ended)
        await nothing_left(redis)
        await append(redis, running)
        await nothing_left(redis)
        await append(redis, queued, ended)
        await nothing_left(redis)
    expected = msgspec.structs.replace(merge(running, ended), log=b"", result=None)
    expected = msgspec.structs.replace(expected, result_truncated=False)
    assert await records.find(queued.call_id) == expected
    assert await records.log(queued.call_id) == ended.log
    assert await records.result(queued.call_id) == records_module.Result(
        b"\x00\xffpart", truncated=True
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
async def test_mysql_merges_as_memory_does(records: Records, order: tuple[int, ...]) -> None:
    queued = a_record()
    running = msgspec.structs.replace(queued, status="running", started_ms=5, runner_id="r")
    ended = msgspec.structs.replace(queued, status="success", finished_ms=9)
    late_end = msgspec.structs.replace(ended, status="error", code="timeout", finished_ms=10)
    stages = [queued, running, ended]
    for stage in [*(stages[i] for i in order), late_end, running]:
        await records.write([stage])
    assert await records.find(queued.call_id) == merge(running, ended)


async def test_a_recorder_killed_before_its_ack_loses_and_doubles_nothing(
    redis: streams.Redis, records: Records
) -> None:
    """It had read, and even written, a batch: another one claims it and writes it again."""
    ended = [a_record(status="success", finished_ms=n, log=b"x") for n in range(1, 21)]
    await streams.make_group(redis, keys.FINISHED, keys.RECORDERS)
    await append(redis, *ended)
    await redis.xreadgroup(keys.RECORDERS, "killed", {keys.FINISHED: ">"}, count=10)
    await records.write(sorted(ended[:5], key=lambda r: r.call_id))
    async with Running(redis, records):
        await nothing_left(redis)
    listed = await records.list("a", Filter(), 100)
    assert sorted(r.finished_ms or -1 for r in listed) == list(range(1, 21))


async def test_a_dead_consumer_is_let_go_only_when_it_holds_nothing(
    redis: streams.Redis, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.recorder.CONSUMER_DEAD_MS", 500)
    await streams.make_group(redis, keys.FINISHED, keys.RECORDERS)
    await append(redis, a_record())
    await redis.xreadgroup(keys.RECORDERS, "dead", {keys.FINISHED: ">"}, count=10)

    async def names() -> set[bytes]:
        found = await redis.xinfo_consumers(keys.FINISHED, keys.RECORDERS)
        return {consumer["name"] for consumer in found}

    async def only_the_living() -> bool:
        return await names() == {b"api-1"}

    async with Running(redis, records):
        await eventually(only_the_living)
        await nothing_left(redis)


async def test_poison_is_set_aside_and_the_rest_is_written(
    redis: streams.Redis, records: Records
) -> None:
    good = [a_record() for _ in range(7)]
    bad = [
        a_record(app="x" * 31),
        a_record(call_id="not ascii é"),
        a_record(queued_ms=1 << 63),
        a_record(path="/" + "p" * 2000),
    ]
    await redis.xadd(keys.FINISHED, {"m": b"\xc1"})
    await redis.xadd(keys.FINISHED, {"other": b"1"})
    await append(redis, *good[:3], bad[0], *good[3:5], *bad[1:], *good[5:])
    async with Running(redis, records):
        await nothing_left(redis)
    assert len(await records.list("a", Filter(), 100)) == 7
    aside: Any = await redis.xrange(keys.ASIDE)
    assert len(aside) == 6
    assert {dict(fields)[b"stream"] for _, fields in aside} == {keys.FINISHED.encode()}


async def test_a_full_redis_is_emptied_of_whatever_waits(
    redis: streams.Redis, records: Records, opened: Database
) -> None:
    """Dead letters with their parcels, and what nobody can decode, as well as plain records."""
    dead = a_record(status="error", code="exit", finished_ms=9)
    head = messages.CallHead(
        dead.call_id, "async", "a", "/p", "img", 128, 1.0, 1, 0, 0, "", 1000
    )  # fmt: skip
    letter = {"m": messages.encode(dead), "h": messages.encode(head)}
    await redis.set(keys.parcel(dead.call_id), b"parcel")
    await redis.xadd(keys.FINISHED, letter)
    await redis.xadd(keys.FINISHED, {"m": b"\xc1"})
    await append(redis, a_record())
    letters = Letters(opened)
    await redis.config_set("maxmemory", "1kb")
    try:
        async with Running(redis, records, letters=letters):
            await nothing_left(redis)
    finally:
        await redis.config_set("maxmemory", "0")
    assert await letters.find("a", dead.call_id) is not None
    assert not await redis.exists(keys.parcel(dead.call_id))
    assert await redis.xlen(keys.ASIDE) == 1
    assert len(await records.list("a", Filter(), 100)) == 2


class AbsentRecords(Records):
    """A MySQL that comes back after a few tries."""

    def __init__(self, database: Database, absences: int) -> None:
        super().__init__(database)
        self.absences = absences

    async def write(self, records: Any) -> bool:
        if self.absences:
            self.absences -= 1
            raise Unavailable("MySQL does not answer")
        return await super().write(records)


async def test_while_mysql_is_away_records_wait(redis: streams.Redis, opened: Database) -> None:
    absent = AbsentRecords(opened, absences=3)
    record = a_record()
    await append(redis, record)
    async with Running(redis, absent):
        await nothing_left(redis)
    assert absent.absences == 0
    assert await absent.find(record.call_id) == record


async def test_two_replicas_share_the_work(redis: streams.Redis, records: Records) -> None:
    async with Running(redis, records, "api-1"), Running(redis, records, "api-2"):
        await append(redis, *(a_record(finished_ms=n, status="success") for n in range(1, 301)))
        await nothing_left(redis)
    listed = await records.list("a", Filter(), 1000)
    assert sorted(r.finished_ms or -1 for r in listed) == list(range(1, 301))


async def test_large_logs_and_results_fit(redis: streams.Redis, records: Records) -> None:
    mib = 1024 * 1024
    large = [a_record(status="success", log=b"'" * mib, result=b"\x00" * mib) for _ in range(5)]
    huge = a_record(status="success", result=b"\\" * (records_module.BLOB_MAX_BYTES + 1))
    await append(redis, *large, huge)
    async with Running(redis, records):
        await nothing_left(redis)
    for record in large:
        assert await records.log(record.call_id) == record.log
    kept = await records.result(huge.call_id)
    assert kept is not None
    assert kept.truncated


async def test_calls_are_filtered_and_paged(records: Records) -> None:
    now_ms = clock.epoch_ms()
    ok = [a_record(status="success", path="/ok") for _ in range(3)]
    failed = [a_record(status="error", path="/bad") for _ in range(2)]
    await records.write([*ok, *failed, a_record(app="other")])
    everything = await records.list("a", Filter(), 100)
    assert [r.call_id for r in everything] == [r.call_id for r in reversed([*ok, *failed])]
    assert {r.path for r in await records.list("a", Filter(path="/ok"), 100)} == {"/ok"}
    assert {r.path for r in await records.list("a", Filter(status="error"), 100)} == {"/bad"}
    assert await records.list("a", Filter(to_ms=now_ms - 1000), 100) == []
    assert len(await records.list("a", Filter(from_ms=now_ms - 1000), 100)) == 5
    first = await records.list("a", Filter(), 2)
    rest = await records.list("a", Filter(before_id=first[-1].call_id), 100)
    assert [*first, *rest] == everything


def id_of(at_ms: int) -> str:
    return f"{records_module.first_id(at_ms)}-7000-8000-{at_ms % 10**12:012d}"


async def test_old_records_go_in_chunks_and_young_ones_stay(
    opened: Database, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.retention.CHUNK_ROWS", 2)
    now_ms = clock.epoch_ms()
    old = [a_record(call_id=id_of(now_ms - 3 * DAY_MS + n), log=b"l") for n in range(5)]
    young = a_record(call_id=id_of(now_ms - DAY_MS), log=b"l", result=b"r")
    await records.write([*old, young])
    assert await Retention(opened, days=2).sweep(now_ms) == 10
    assert await records.list("a", Filter(), 100) == [
        msgspec.structs.replace(young, log=b"", result=None)
    ]
    assert await records.log(old[0].call_id) == b""
    assert await records.log(young.call_id) == b"l"


async def test_only_one_replica_sweeps(opened: Database, records: Records) -> None:
    now_ms = clock.epoch_ms()
    await records.write([a_record(call_id=id_of(now_ms - 3 * DAY_MS))])
    async with opened.reading() as cursor:
        await cursor.execute("SELECT GET_LOCK(CONCAT(DATABASE(), '.retention'), 0)")
        assert await Retention(opened, days=2).sweep(now_ms) == 0
        await cursor.execute("DO RELEASE_LOCK(CONCAT(DATABASE(), '.retention'))")
    assert await Retention(opened, days=2).sweep(now_ms) == 1
