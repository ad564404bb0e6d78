"""How are calls kept in MySQL? All SQL about calls, their logs and results.

A batch goes in as one statement with one JSON document (`JSON_TABLE`): MySQL 8 and 9 and
MariaDB from 10.6 on understand it. The document is the records as they are, an array each, so
that all of a batch is encoded in one go; it and all blobs are written as hexadecimal literals,
which need no escaping, grow to just twice their size, and cost next to nothing to make.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from services.api import callbacks, progress
from services.api.database import Cursor, Database
from shared import messages

#: Bytes of logs or results in one statement at most (one larger goes alone); written out they
#: may double, and must stay below any usual `max_allowed_packet`.
BLOBS_MAX_BYTES = 1024 * 1024
#: Longest log or result kept, whatever a runner sends; also for `max_allowed_packet`.
BLOB_MAX_BYTES = 6 * 1024 * 1024
#: Longest message kept, in characters.
MESSAGE_MAX = 1000

#: The columns, with the types they have in the document: wide, so that it is the table that
#: refuses what does not fit. What a later record may not know is null there.
_TEXT, _WHOLE = "VARCHAR(1024)", "BIGINT"
_ALWAYS = {
    "call_id": _TEXT,
    "app": _TEXT,
    "path": _TEXT,
    "image": _TEXT,
    "mode": _TEXT,
    "queued_ms": _WHOLE,
    "status": _TEXT,
    "attempt": _WHOLE,
}
_MAYBE = {
    "started_ms": _WHOLE,
    "finished_ms": _WHOLE,
    "code": _TEXT,
    "message": _TEXT,
    "exit_code": _WHOLE,
    "digest": _TEXT,
    "runner_id": _TEXT,
    "peak_memory_bytes": _WHOLE,
    "redrive_of": _TEXT,
}
#: Of these, records say "" if they do not know.
_EMPTY_IF_UNKNOWN = {"code", "message", "digest", "runner_id", "redrive_of"}
_COLUMNS = (*_ALWAYS, *_MAYBE, "progress")
#: Where they stand in an encoded record.
_PLACES = {name: place for place, name in enumerate(messages.Record.__struct_fields__)}
#: `progress.rank`, as MySQL says it.
_RANK = (
    f"IF(status IN ({', '.join(f'{status!r}' for status in messages.ENDED)}), "
    f"{progress.ENDED_RANK}, 2 * attempt + (status = 'running'))"
)


def _upsert_sql() -> tuple[str, str]:
    """Return the statement that merges a document's records into the table, as `progress` says.

    In two parts, before and behind the document. The assignments run from left to right and see
    each other's effects, so `progress`, which all of them look at, comes last.
    """
    kinds = {**_ALWAYS, **_MAYBE}
    fields = ", ".join(f"{name} {kinds[name]} PATH '$[{_PLACES[name]}]'" for name in kinds)
    known = [
        f"NULLIF({name}, '') AS {name}" if name in _EMPTY_IF_UNKNOWN else name for name in kinds
    ]
    wins = "new.progress > calls.progress"
    sets = [f"{name} = IF({wins}, new.{name}, calls.{name})" for name in ("status", "attempt")]
    sets += [
        f"{name} = IF({wins}, COALESCE(new.{name}, calls.{name}), "
        f"IF(new.progress < calls.progress, COALESCE(calls.{name}, new.{name}), calls.{name}))"
        for name in _MAYBE
    ]
    sets.append("progress = GREATEST(calls.progress, new.progress)")
    before = (
        f"INSERT INTO calls ({', '.join(_COLUMNS)}) "  # noqa: S608 (names from this module alone)
        f"SELECT {', '.join(f'new.{name}' for name in _COLUMNS)} "
        f"FROM (SELECT {', '.join(known)}, {_RANK} AS progress FROM JSON_TABLE(_utf8mb4 X'"
    )
    behind = f"', '$[*]' COLUMNS ({fields})) AS sent) AS new ON DUPLICATE KEY UPDATE "
    return before, behind + ", ".join(sets)


_UPSERT_BEFORE, _UPSERT_BEHIND = _upsert_sql()
_INSERT_LOG = "INSERT INTO logs (call_id, body) VALUES {} ON DUPLICATE KEY UPDATE body = body"
_INSERT_RESULT = (
    "INSERT INTO results (call_id, truncated, body) VALUES {} ON DUPLICATE KEY UPDATE body = body"
)
_INSERT_ATTEMPT = (
    "INSERT INTO attempts (call_id, number, code, message, finished_ms, started_ms, exit_code, "
    "runner_id, log) VALUES {} ON DUPLICATE KEY UPDATE log = log"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What is kept of an async call's output."""

    body: bytes
    truncated: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls of an app to list; None is any. Times are epoch ms, `to_ms` exclusive."""

    path: str | None = None
    status: messages.Status | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    #: Only calls older than this one: where the page before ended.
    before_id: str | None = None


def _document(records: Iterable[messages.Record]) -> str:
    """Return records as the JSON that the statement takes, in hexadecimal."""
    return msgspec.json.encode([_slim(record) for record in records]).hex()


def _slim(record: messages.Record) -> messages.Record:
    """Return a record without what does not go into its row; most are as they are."""
    kept_apart = (
        record.log or record.result is not None or record.failures or record.callback is not None
    )
    if kept_apart or len(record.message) > MESSAGE_MAX:
        message = record.message[:MESSAGE_MAX]
        return msgspec.structs.replace(
            record, log=b"", result=None, failures=(), callback=None, message=message
        )
    return record


class Records:
    """The calls that MySQL knows. Raises `Unavailable` while MySQL is away."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    async def write(self, records: Sequence[messages.Record]) -> bool:
        """Write at most one record for each call, in one transaction; again does no harm.

        Returns whether somebody is to be called back now.

        Raises pymysql's `DataError` or `IntegrityError` if MySQL refuses one of them, and then
        none is written.
        """
        logs = [(r.call_id, r.log[:BLOB_MAX_BYTES]) for r in records if r.log]
        results = [
            (
                r.call_id,
                r.result_truncated or len(r.result) > BLOB_MAX_BYTES,
                r.result[:BLOB_MAX_BYTES],
            )
            for r in records
            if r.result is not None
        ]
        attempts = [_attempt_row(r.call_id, failure) for r in records for failure in r.failures]
        async with self._database.transaction() as cursor:
            await cursor.execute(_UPSERT_BEFORE + _document(records) + _UPSERT_BEHIND)
            await _insert_blobs(cursor, _INSERT_LOG, logs)
            await _insert_blobs(cursor, _INSERT_RESULT, results)
            await _insert_blobs(cursor, _INSERT_ATTEMPT, attempts)
            return await callbacks.note(cursor, records)

    async def find(self, call_id: str) -> messages.Record | None:
        """Return what is known of a call, without log and result; None if nothing is."""
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM calls WHERE call_id = %s",  # noqa: S608
                (call_id,),
            )
            row = await cursor.fetchone()
        return _record(row) if row else None

    async def list(self, app: str, wanted: Filter, limit: int) -> list[messages.Record]:
        """Return an app's newest `limit` calls of those wanted, newest first."""
        where, values = _conditions(app, wanted)
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM calls "  # noqa: S608 (names from here)
                f"WHERE {where} ORDER BY call_id DESC LIMIT %s",
                (*values, limit),
            )
            rows = await cursor.fetchall()
        return [_record(row) for row in rows]

    async def log(self, call_id: str) -> bytes:
        """Return the stderr kept of a call; empty if it wrote none."""
        async with self._database.reading() as cursor:
            await cursor.execute("SELECT body FROM logs WHERE call_id = %s", (call_id,))
            row = await cursor.fetchone()
        return bytes(row["body"]) if row else b""

    async def failures(self, call_id: str) -> tuple[messages.Attempt, ...]:
        """Return those attempts of a call that failed and were followed by another, in order."""
        async with self._database.reading() as cursor:
            await cursor.execute(
                "SELECT number, code, message, finished_ms, started_ms, exit_code, runner_id, log "
                "FROM attempts WHERE call_id = %s ORDER BY number",
                (call_id,),
            )
            rows = await cursor.fetchall()
        return tuple(messages.Attempt(**{**row, "log": bytes(row["log"])}) for row in rows)

    async def result(self, call_id: str) -> Result | None:
        """Return the stdout kept of an async call; None if none is."""
        async with self._database.reading() as cursor:
            await cursor.execute(
                "SELECT body, truncated FROM results WHERE call_id = %s", (call_id,)
            )
            row = await cursor.fetchone()
        return Result(bytes(row["body"]), bool(row["truncated"])) if row else None


def _conditions(app: str, wanted: Filter) -> tuple[str, list[Any]]:
    """Return a WHERE clause and its values.

    Ids begin with their time (UUIDv7), so that a span of time is a span of the index.
    """
    parts: list[tuple[str, Any]] = [("app = %s", app)]
    if wanted.path is not None:
        parts.append(("path = %s", wanted.path))
    if wanted.status is not None:
        parts.append(("status = %s", wanted.status))
    if wanted.from_ms is not None:
        parts.append(("call_id >= %s", first_id(wanted.from_ms)))
    if wanted.to_ms is not None:
        parts.append(("call_id < %s", first_id(wanted.to_ms)))
    if wanted.before_id is not None:
        parts.append(("call_id < %s", wanted.before_id))
    return " AND ".join(text for text, _ in parts), [value for _, value in parts]


def first_id(at_ms: int) -> str:
    """Return what no call id of that millisecond or later sorts before.

    >>> first_id(1733289443328)
    '01938f6e-0000'
    """
    digits = f"{at_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _attempt_row(call_id: str, failure: messages.Attempt) -> tuple[Any, ...]:
    return (
        call_id,
        failure.number,
        failure.code,
        failure.message[:MESSAGE_MAX],
        failure.finished_ms,
        failure.started_ms,
        failure.exit_code,
        failure.runner_id,
        failure.log[:BLOB_MAX_BYTES],
    )


async def _insert_blobs(cursor: Cursor, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows whose last value is bytes, several in a statement while they are small."""
    batch: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        if batch and size + len(row[-1]) > BLOBS_MAX_BYTES:
            await _insert(cursor, statement, batch)
            batch, size = [], 0
        batch.append(row)
        size += len(row[-1])
    if batch:
        await _insert(cursor, statement, batch)


async def _insert(cursor: Cursor, statement: str, rows: list[tuple[Any, ...]]) -> None:
    marks = "%s, " * (len(rows[0]) - 1)
    places = ", ".join(f"({marks}X'{row[-1].hex()}')" for row in rows)
    await cursor.execute(statement.format(places), [one for row in rows for one in row[:-1]])


def _record(row: dict[str, Any]) -> messages.Record:
    known = {name: row[name] for name in (*_ALWAYS, *_MAYBE) if row[name] is not None}
    return messages.Record(**known)
