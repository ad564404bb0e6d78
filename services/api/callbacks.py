"""How are callbacks kept in MySQL? All SQL about them and about the secrets that sign them.

A row is there from a call's acceptance (`waiting`) or, at the latest, its end: the record of that
and the row that is due are written in one transaction. Then a replica takes it: it moves the row's
time into the future, by a lease, and whoever finds it due after that takes it again. `attempts`
counts the takings, and only who took it last says what became of it.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from services.api.callback_rules import Next, State, Try
from services.api.database import Cursor, Database
from shared import messages

#: Tries that are remembered: the first ones and the last.
TRIES_FIRST, TRIES_LAST = 5, 45
#: How long signatures are made with an app's secret of before, too.
PREVIOUS_MS = 24 * 3600 * 1000
#: Rows found whose call's end was recorded without a word of them, in one go.
_OVERLOOKED_AT_ONCE = 500
_CONTENT_TYPE_MAX = 255
_ENDED = ", ".join(f"'{status}'" for status in messages.ENDED)
_TRIES = msgspec.json.Decoder(list[Try])


@dataclass(frozen=True, slots=True)
class Taken:
    """A callback that is ours to make, until its lease is over."""

    call_id: str
    app: str
    url: str
    content_type: str
    #: Which taking this is, from 1.
    number: int
    tries: list[Try]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is told about a callback."""

    url: str
    state: State
    due_ms: int | None
    attempts: int
    tries: list[Try]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What signs an app's callbacks; the one of before does so for a while."""

    secret: str
    previous: str | None = None
    previous_until_ms: int = 0

    def in_force(self, now_ms: int) -> list[str]:
        """Return those that sign now, the newest first."""
        if self.previous and now_ms < self.previous_until_ms:
            return [self.secret, self.previous]
        return [self.secret]


async def note(cursor: Cursor, records: Iterable[messages.Record]) -> bool:
    """Write the callbacks of calls whose records are being written; again does no harm.

    Returns whether one is due. Part of the transaction that writes the records.
    """
    due = False
    for record in records:
        if record.callback is None:
            continue
        if record.status in messages.ENDED:
            due = True
            await _note_end(cursor, record, record.callback)
        else:
            await cursor.execute(
                f"{_INSERT} VALUES (%s, %s, %s, %s, 'waiting', NULL) "
                "ON DUPLICATE KEY UPDATE call_id = callbacks.call_id",
                _row(record, record.callback),
            )
    return due


_INSERT = "INSERT INTO callbacks (call_id, app, url, content_type, state, due_ms)"


def _row(record: messages.Record, callback: messages.Callback) -> tuple[str, ...]:
    kind = callback.content_type[:_CONTENT_TYPE_MAX]
    return (record.call_id, record.app, callback.url, kind)


async def _note_end(cursor: Cursor, record: messages.Record, callback: messages.Callback) -> None:
    row, ended_ms = _row(record, callback), record.finished_ms or record.queued_ms
    # From left to right, each sees what those before it have set: `state` comes last.
    await cursor.execute(
        f"{_INSERT} VALUES (%s, %s, %s, %s, 'due', %s) ON DUPLICATE KEY UPDATE "
        "content_type = IF(callbacks.state = 'waiting', %s, content_type), "
        "due_ms = IF(callbacks.state = 'waiting', %s, due_ms), "
        "state = IF(callbacks.state = 'waiting', 'due', state)",
        (*row, ended_ms, row[3], ended_ms),
    )


class Callbacks:
    """The callbacks that MySQL knows. Raises `Unavailable` while MySQL is away."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    async def take(
        self,
        now_ms: int,
        lease_ms: int,
        *,
        most: int,
        of_each_app: int,
        under_way: Mapping[str, int] = MappingProxyType({}),
    ) -> list[Taken]:
        """Take the callbacks that have been due for longest, `most` at most, for `lease_ms`.

        Of no app so many that there are more than `of_each_app`, with those `under_way`.
        """
        without = [app for app, count in under_way.items() if count >= of_each_app]
        others = f" AND app NOT IN ({', '.join(['%s'] * len(without))})" if without else ""
        async with self._database.transaction() as cursor:
            await cursor.execute(
                "SELECT call_id, app, url, content_type, attempts, tries FROM callbacks "  # noqa: S608
                f"WHERE state = 'due' AND due_ms <= %s{others} "
                "ORDER BY due_ms LIMIT %s FOR UPDATE SKIP LOCKED",
                (now_ms, *without, most),
            )
            found = [_taken(row) for row in await cursor.fetchall()]
            taken = fair(found, of_each_app, under_way)
            if taken:
                marks = ", ".join(["%s"] * len(taken))
                await cursor.execute(
                    "UPDATE callbacks SET attempts = attempts + 1, due_ms = %s "  # noqa: S608
                    f"WHERE call_id IN ({marks})",
                    (now_ms + lease_ms, *(one.call_id for one in taken)),
                )
        return taken

    async def tried(self, taken: Taken, attempt: Try, following: Next) -> bool:
        """Write what came of a try; False if somebody else has taken the callback since."""
        tries = [*taken.tries, attempt]
        if len(tries) > TRIES_FIRST + TRIES_LAST:
            tries = tries[:TRIES_FIRST] + tries[-TRIES_LAST:]
        async with self._database.reading() as cursor:
            written = await cursor.execute(
                "UPDATE callbacks SET state = %s, due_ms = %s, tries = %s "
                "WHERE call_id = %s AND state = 'due' AND attempts = %s",
                (
                    following.state,
                    following.due_ms,
                    msgspec.json.encode(tries).decode(),
                    taken.call_id,
                    taken.number,
                ),
            )
        return bool(written)

    async def find(self, call_id: str) -> Shown | None:
        """Return what is known of a call's callback; None if it has none."""
        async with self._database.reading() as cursor:
            await cursor.execute(
                "SELECT url, state, due_ms, attempts, tries FROM callbacks WHERE call_id = %s",
                (call_id,),
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        return Shown(row["url"], row["state"], row["due_ms"], row["attempts"], _tries(row["tries"]))

    async def rouse_overlooked(self, now_ms: int) -> int:
        """Let callbacks be due whose calls have ended, by a record that did not say so.

        An older version's process may have written that. Returns how many there were.
        """
        async with self._database.reading() as cursor:
            await cursor.execute(
                "SELECT w.call_id FROM callbacks w JOIN calls c ON c.call_id = w.call_id "  # noqa: S608
                f"WHERE w.state = 'waiting' AND c.status IN ({_ENDED}) LIMIT %s",
                (_OVERLOOKED_AT_ONCE,),
            )
            found = [row["call_id"] for row in await cursor.fetchall()]
            if not found:
                return 0
            marks = ", ".join(["%s"] * len(found))
            roused: int = await cursor.execute(
                "UPDATE callbacks SET state = 'due', due_ms = %s "  # noqa: S608
                f"WHERE state = 'waiting' AND call_id IN ({marks})",
                (now_ms, *found),
            )
            return roused

    async def secrets(self, app: str) -> Secrets:
        """Return what signs an app's callbacks; makes it when it is asked for first."""
        async with self._database.reading() as cursor:
            found = await _read_secrets(cursor, app)
            if found is None:
                await cursor.execute(
                    "INSERT INTO callback_secrets (app, secret) VALUES (%s, %s) "
                    "ON DUPLICATE KEY UPDATE app = callback_secrets.app",
                    (app, _new_secret()),
                )
                found = await _read_secrets(cursor, app)
        assert found is not None  # noqa: S101 (rows are never removed)
        return found

    async def rotate(self, app: str, now_ms: int) -> Secrets:
        """Give an app a new secret; the one of before signs beside it for `PREVIOUS_MS`."""
        await self.secrets(app)
        async with self._database.transaction() as cursor:
            await cursor.execute(
                "UPDATE callback_secrets "
                "SET previous = secret, previous_until_ms = %s, secret = %s WHERE app = %s",
                (now_ms + PREVIOUS_MS, _new_secret(), app),
            )
        return await self.secrets(app)


def _new_secret() -> str:
    return "mcs_" + secrets.token_urlsafe(32)


async def _read_secrets(cursor: Cursor, app: str) -> Secrets | None:
    await cursor.execute(
        "SELECT secret, previous, previous_until_ms FROM callback_secrets WHERE app = %s", (app,)
    )
    row = await cursor.fetchone()
    return Secrets(**row) if row else None


def fair(found: Sequence[Taken], of_each_app: int, under_way: Mapping[str, int]) -> list[Taken]:
    """Return of each app no more than so many, with those `under_way`, in their order."""
    counts = dict(under_way)
    kept = []
    for one in found:
        counts[one.app] = counts.get(one.app, 0) + 1
        if counts[one.app] <= of_each_app:
            kept.append(one)
    return kept


def _taken(row: dict[str, Any]) -> Taken:
    return Taken(
        call_id=row["call_id"],
        app=row["app"],
        url=row["url"],
        content_type=row["content_type"],
        number=row["attempts"] + 1,
        tries=_tries(row["tries"]),
    )


def _tries(text: str | None) -> list[Try]:
    return _TRIES.decode(text) if text else []
