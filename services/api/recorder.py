"""How do records get from Redis into MySQL? In batches, at least once, merged by call.

The first record after a silence is written at once; then a batch gets a moment to fill.

All replicas share one consumer group. An entry is acknowledged, and deleted, after MySQL has
committed it; what a dead replica leaves unacknowledged, another claims; writing a record again
does no harm. While MySQL is away, entries wait in Redis.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pymysql.err
import structlog
from redis.exceptions import RedisError, ResponseError

from services.api import metrics
from services.api.letters import Letters
from services.api.progress import merged
from services.api.records import Records
from shared import clock, keys, messages, scripts, streams
from shared.errors import Unavailable, Undecodable
from shared.metrics import UNDECODABLE

log = structlog.get_logger()

#: Entries written in one transaction at most.
BATCH_MAX = 500
#: After a batch that was not full, in seconds: a batch has its price, however small it is.
LINGER_S = 0.4
#: An entry that nobody has acknowledged for so long is another's to write.
CLAIM_IDLE_MS = 5_000
CLAIM_EVERY_S = 5.0
#: A consumer silent for so long is a replica that is gone.
CONSUMER_DEAD_MS = 60_000

#: What MySQL says of a record that it will never take.
Refused = (pymysql.err.DataError, pymysql.err.IntegrityError)

#: An entry and the record in it.
Item = tuple[streams.Entry, messages.Record]


class Recorder:
    """Writes records, for ever; one task (`run`) owns it."""

    def __init__(
        self,
        redis: streams.Redis,
        records: Records,
        letters: Letters,
        consumer: str,
        call_back: Callable[[], None] = lambda: None,
    ) -> None:
        """`consumer` names this start of this replica in the group.

        `call_back` is called when a call has ended of which somebody is to be told.
        """
        self._redis, self._records, self._letters = redis, records, letters
        self._consumer, self._call_back = consumer, call_back

    async def run(self) -> None:
        """Record what comes, and now and then what dead replicas left; waits out outages."""
        claimed_s = clock.monotonic_s()
        batches = streams.read_group(
            self._redis, keys.FINISHED, keys.RECORDERS, self._consumer, count=BATCH_MAX
        )
        async for entries in batches:
            if entries:
                await self._record(entries)
            if clock.monotonic_s() >= claimed_s + CLAIM_EVERY_S:
                await self._record_left_behind()
                claimed_s = clock.monotonic_s()
            if 0 < len(entries) < BATCH_MAX:
                await asyncio.sleep(LINGER_S)

    async def _record_left_behind(self) -> None:
        """Claim and record entries nobody has acknowledged; let go of dead consumers."""
        try:
            start: Any = "0-0"
            while start:
                start, entries = await self._claim(start)
                if entries:
                    log.info("records_claimed", count=len(entries))
                    await self._record(entries)
            await self._redis.execute_command(  # type: ignore[no-untyped-call]
                *scripts.drop_dead_consumers(keys.FINISHED, keys.RECORDERS, CONSUMER_DEAD_MS)
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise
        except (RedisError, OSError) as error:
            log.warning("records_unclaimed", error=str(error))

    async def _claim(self, start: Any) -> tuple[Any, list[streams.Entry]]:  # noqa: ANN401
        """Return where to go on (None at the end), and entries that are this replica's now."""
        following, entries, *_ = await self._redis.xautoclaim(
            keys.FINISHED,
            keys.RECORDERS,
            self._consumer,
            min_idle_time=CLAIM_IDLE_MS,
            start_id=start,
            count=BATCH_MAX,
        )
        here = [entry for entry in entries if entry[1] is not None]
        return (None if following == b"0-0" else following), here

    async def _record(self, entries: list[streams.Entry]) -> None:
        """Write entries and acknowledge them; returns when all of them are dealt with."""
        items: list[Item] = []
        for entry in entries:
            try:
                items.append((entry, messages.decode(entry[1].get(b"m"), messages.Record)))
            except Undecodable as error:
                UNDECODABLE.labels(stream="finished").inc()
                await self._set_aside(entry, str(error))
        for item in items:
            if b"h" in item[0][1]:
                await self._keep(item)
        await self._write(items)
        oldest_ms = int(entries[0][0].partition(b"-")[0])
        metrics.RECORDER_LAG.set((clock.epoch_ms() - oldest_ms) / 1000)

    async def _keep(self, item: Item) -> None:
        """Keep a call as a dead letter, before its record is written.

        Both are acknowledged together: what is kept twice is there once.
        """
        (_, fields), record = item
        backoff, refused = streams.Backoff(), ""
        while True:
            try:
                if refused:
                    aside = streams.set_aside(keys.FINISHED, item[0], refused)
                    await self._redis.execute_command(*aside)  # type: ignore[no-untyped-call]
                    return
                parcel: Any = fields.get(b"p")
                if parcel is None:
                    parcel = await self._redis.get(keys.parcel(record.call_id))
                kept = await self._letters.keep(record, fields[b"h"], parcel)
            except Refused as error:
                metrics.RECORDS_REFUSED.inc()
                log.error("dead_letter_refused", call_id=record.call_id, error=str(error))  # noqa: TRY400
                refused = str(error)
                continue
            except (Unavailable, pymysql.err.MySQLError, RedisError, OSError) as error:
                log.warning("dead_letter_waits", call_id=record.call_id, error=str(error))
                await backoff.wait()
                continue
            if kept:
                metrics.DEAD_LETTERS.labels(record.code).inc()
                log.warning(
                    "dead_letter",
                    call_id=record.call_id,
                    app=record.app,
                    path=record.path,
                    code=record.code,
                    why=record.message,
                    attempt=record.attempt,
                )
            return

    async def _write(self, items: Sequence[Item]) -> None:
        """Write a batch; one that MySQL refuses is halved until the culprit is alone."""
        if not items:
            return
        records = merged(record for _, record in items)
        backoff = streams.Backoff()
        while True:
            try:
                if await self._records.write(records):
                    self._call_back()
            except Refused as error:
                await self._write_apart(items, error)
                return
            except (Unavailable, pymysql.err.MySQLError) as error:
                # Whatever else ails MySQL (no space, no table yet) is not this batch's fault.
                log.warning("records_wait", count=len(items), error=str(error))
                await backoff.wait()
                continue
            metrics.RECORDED.inc(len(records))
            parcels = [keys.parcel(r.call_id) for entry, r in items if b"h" in entry[1]]
            ids = [entry[0] for entry, _ in items]
            done = scripts.acknowledge(keys.FINISHED, keys.RECORDERS, ids, parcels)
            await self._take_out(done, ids)
            return

    async def _write_apart(self, items: Sequence[Item], error: Exception) -> None:
        if len(items) > 1:
            middle = len(items) // 2
            await self._write(items[:middle])
            await self._write(items[middle:])
            return
        entry, record = items[0]
        metrics.RECORDS_REFUSED.inc()
        log.error("record_refused", call_id=record.call_id, error=str(error))
        await self._set_aside(entry, str(error))

    async def _set_aside(self, entry: streams.Entry, why: str) -> None:
        log.error("record_set_aside", id=entry[0].decode(), error=why)
        aside = streams.set_aside(keys.FINISHED, entry, why, group=keys.RECORDERS)
        await self._take_out(aside, [entry[0]])

    async def _take_out(self, done: scripts.Command, ids: Sequence[bytes]) -> None:
        """Take entries out of the stream, in one step; if Redis is away, they will come again."""
        try:
            await self._redis.execute_command(*done)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            log.warning("records_unacknowledged", count=len(ids), error=str(error))
