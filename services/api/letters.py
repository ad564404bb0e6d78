"""How are dead letters kept in MySQL, and for how long? All SQL about them.

A dead letter is an async call that failed for good (`shared.retrying`), with its head and parcel.
Once it is redriven, only what became of it stays.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pymysql.err
import structlog

from services.api import metrics
from services.api.database import Database
from services.api.records import MESSAGE_MAX
from shared import clock, messages
from shared.errors import Unavailable

log = structlog.get_logger()

#: Bytes of a parcel in one row: written out they double.
PART_BYTES = 1024 * 1024
#: Letters removed in one statement, with all their parts.
CHUNK_ROWS = 100
SWEEP_EVERY_S = 60.0
DAY_MS = 24 * 3600 * 1000

_COLUMNS = (
    "call_id, app, path, code, message, attempt, died_ms, head, size_bytes, "
    "redriven_as, redriven_ms"
)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, without its parcel."""

    call_id: str
    app: str
    path: str
    code: str
    message: str
    attempt: int
    died_ms: int
    head: messages.CallHead
    #: Of the parcel; None: it was lost.
    size_bytes: int | None
    #: The call that is made of it, or was to be; and since when that is sure.
    redriven_as: str | None
    redriven_ms: int | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of an app's letters; None is any."""

    path: str | None = None
    code: str | None = None
    redriven: bool | None = False


class Letters:
    """The dead letters that MySQL knows. Raises `Unavailable` while MySQL is away."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    async def keep(self, record: messages.Record, head: bytes, parcel: bytes | None) -> bool:
        """Keep a call, by its last record and as it was in its stream; again does no harm.

        Says whether it is new. Raises pymysql's `DataError` or `IntegrityError` if MySQL refuses.
        """
        values = (
            record.call_id,
            record.app,
            record.path,
            record.code,
            record.message[:MESSAGE_MAX],
            record.attempt,
            record.finished_ms,
            None if parcel is None else len(parcel),
        )
        async with self._database.transaction() as cursor:
            new = await cursor.execute(
                "INSERT INTO dead_letters (call_id, app, path, code, message, attempt, died_ms, "  # noqa: S608 (hexadecimal)
                f"size_bytes, head) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, X'{head.hex()}') "
                "ON DUPLICATE KEY UPDATE attempt = dead_letters.attempt",
                values,
            )
            for part, begin in enumerate(range(0, len(parcel or b"") if new else 0, PART_BYTES)):
                body = (parcel or b"")[begin : begin + PART_BYTES]
                await cursor.execute(
                    "INSERT INTO dead_letter_parts (call_id, part, body) "  # noqa: S608 (hexadecimal)
                    f"VALUES (%s, %s, X'{body.hex()}')",
                    (record.call_id, part),
                )
        return bool(new)

    async def find(self, app: str, call_id: str) -> Letter | None:
        """Return a letter of an app; None if there is none."""
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT {_COLUMNS} FROM dead_letters WHERE call_id = %s AND app = %s",  # noqa: S608
                (call_id, app),
            )
            row = await cursor.fetchone()
        return _letter(row) if row else None

    async def listed(
        self, app: str, wanted: Filter, limit: int, before_id: str | None = None
    ) -> list[Letter]:
        """Return an app's newest letters of those wanted, older than `before_id`."""
        where, values = _conditions(app, wanted)
        if before_id is not None:
            where, values = f"{where} AND call_id < %s", [*values, before_id]
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT {_COLUMNS} FROM dead_letters WHERE {where} "  # noqa: S608 (names from here)
                "ORDER BY call_id DESC LIMIT %s",
                (*values, limit),
            )
            return [_letter(row) for row in await cursor.fetchall()]

    async def ids(self, app: str, wanted: Filter, limit: int, after_id: str) -> list[str]:
        """Return the ids of an app's oldest letters of those wanted, later than `after_id`."""
        where, values = _conditions(app, wanted)
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT call_id FROM dead_letters WHERE {where} AND call_id > %s "  # noqa: S608
                "ORDER BY call_id LIMIT %s",
                (*values, after_id, limit),
            )
            return [row["call_id"] for row in await cursor.fetchall()]

    async def parcel(self, letter: Letter) -> bytes | None:
        """Return a letter's parcel; None if it is not there: lost, or the letter is redriven."""
        if letter.size_bytes is None:
            return None
        found = bytearray()
        async with self._database.reading() as cursor:
            for part in range(-(-letter.size_bytes // PART_BYTES)):
                await cursor.execute(
                    "SELECT body FROM dead_letter_parts WHERE call_id = %s AND part = %s",
                    (letter.call_id, part),
                )
                row = await cursor.fetchone()
                if row is None:
                    return None
                found += row["body"]
        return bytes(found)

    async def name(self, call_id: str, new_id: str) -> str | None:
        """Decide which call is made of a letter: `new_id`, unless that is decided already.

        Returns its id; None if the letter is gone.
        """
        async with self._database.transaction() as cursor:
            await cursor.execute(
                "UPDATE dead_letters SET redriven_as = %s "
                "WHERE call_id = %s AND redriven_as IS NULL",
                (new_id, call_id),
            )
            await cursor.execute(
                "SELECT redriven_as FROM dead_letters WHERE call_id = %s", (call_id,)
            )
            row = await cursor.fetchone()
        return row["redriven_as"] if row else None

    async def redriven(self, call_id: str, now_ms: int) -> None:
        """Note that the call made of a letter is accepted: the letter's parcel is not needed."""
        async with self._database.transaction() as cursor:
            await cursor.execute(
                "UPDATE dead_letters SET redriven_ms = COALESCE(redriven_ms, %s) "
                "WHERE call_id = %s",
                (now_ms, call_id),
            )
            await cursor.execute("DELETE FROM dead_letter_parts WHERE call_id = %s", (call_id,))

    async def purge(self, app: str, call_id: str) -> bool:
        """Remove a letter for good; says whether there was one."""
        return bool(await self._delete("app = %s AND call_id = %s", [app, call_id]))

    async def purge_all(self, app: str, wanted: Filter) -> int:
        """Remove an app's letters of those wanted for good; returns how many."""
        return await self._delete(*_conditions(app, wanted))

    async def expire(self, before_ms: int) -> int:
        """Remove the letters of calls that failed before a time; returns how many."""
        return await self._delete("died_ms < %s", [before_ms])

    async def drop_excess(self, most: int) -> int:
        """Remove what apps have beyond their newest `most`, redriven or not; returns how many.

        By a line that is drawn once, so that replicas who do it at one time remove no more.
        """
        async with self._database.reading() as cursor:
            await cursor.execute(
                "SELECT app, redriven_ms IS NOT NULL AS redriven FROM dead_letters "
                "GROUP BY app, redriven HAVING COUNT(*) > %s",
                (most,),
            )
            crowded = [(row["app"], bool(row["redriven"])) for row in await cursor.fetchall()]
        gone = 0
        for app, redriven in crowded:
            where, values = _conditions(app, Filter(redriven=redriven))
            async with self._database.reading() as cursor:
                await cursor.execute(
                    f"SELECT call_id FROM dead_letters WHERE {where} "  # noqa: S608 (names from here)
                    "ORDER BY call_id DESC LIMIT 1 OFFSET %s",
                    (*values, most),
                )
                row = await cursor.fetchone()
            if row is not None:
                gone += await self._delete(f"{where} AND call_id <= %s", [*values, row["call_id"]])
        return gone

    async def _delete(self, where: str, values: Sequence[Any]) -> int:
        """Delete, oldest first and some at a time, so that nobody waits long for locks."""
        gone, deleted = 0, CHUNK_ROWS
        while deleted == CHUNK_ROWS:
            async with self._database.reading() as cursor:
                deleted = await cursor.execute(
                    f"DELETE FROM dead_letters WHERE {where} ORDER BY call_id LIMIT %s",  # noqa: S608
                    (*values, CHUNK_ROWS),
                )
            gone += deleted
        return gone


class Lifetime:
    """Bounds the dead letters, by age (in days; 0: none) and by number for each app."""

    def __init__(self, letters: Letters, days: int, most: int) -> None:
        """Remove from `letters`."""
        self._letters, self._days, self._most = letters, days, most

    async def run(self) -> None:
        """Look each minute, for ever; what fails now, the next look does."""
        while True:
            try:
                await self.sweep(clock.epoch_ms())
            except (Unavailable, pymysql.err.MySQLError) as error:
                log.warning("dead_letters_unswept", error=str(error))
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep(self, now_ms: int) -> int:
        """Remove what is too old at `now_ms`, and what is too much; returns how many."""
        old = await self._letters.expire(now_ms - self._days * DAY_MS) if self._days else 0
        many = await self._letters.drop_excess(self._most)
        for why, count in (("old", old), ("many", many)):
            if count:
                metrics.DROPPED.labels(why).inc(count)
                log.warning("dead_letters_dropped", why=why, count=count)
        return old + many


def _conditions(app: str, wanted: Filter) -> tuple[str, list[Any]]:
    """Return a WHERE clause and its values."""
    parts, values = ["app = %s"], [app]
    for column, value in (("path", wanted.path), ("code", wanted.code)):
        if value is not None:
            parts.append(f"{column} = %s")
            values.append(value)
    if wanted.redriven is not None:
        parts.append(f"redriven_ms IS {'NOT ' if wanted.redriven else ''}NULL")
    return " AND ".join(parts), values


def _letter(row: dict[str, Any]) -> Letter:
    head = messages.decode(bytes(row["head"]), messages.CallHead)
    return Letter(**{**row, "head": head})
