"""Which records are old enough to go? Sweeps them out of MySQL, in small steps."""

import asyncio

import pymysql.err
import structlog

from services.api.database import Database
from services.api.records import first_id
from shared import clock
from shared.errors import Unavailable

log = structlog.get_logger()

SWEEP_EVERY_S = 3600.0
#: Rows deleted in one statement, so that nobody waits for locks.
CHUNK_ROWS = 1000
#: How long one replica holds the lock and its connection.
HOLD_S = 5.0
DAY_MS = 24 * 3600 * 1000
_TABLES = ("callbacks", "results", "logs", "attempts", "calls")
#: A server's locks have one name for all its databases.
_LOCK = "CONCAT(DATABASE(), '.retention')"


class Retention:
    """Deletes calls, with all that is kept of them, that began more than `days` ago; 0: none."""

    def __init__(self, database: Database, days: int) -> None:
        """Sweep `database`."""
        self._database, self._days = database, days

    async def run(self) -> None:
        """Sweep each hour, for ever; what fails now, the next sweep does."""
        while True:
            if self._days:
                try:
                    await self.sweep(clock.epoch_ms())
                except (Unavailable, pymysql.err.MySQLError) as error:
                    log.warning("sweep_failed", error=str(error))
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep(self, now_ms: int) -> int:
        """Delete what is too old at `now_ms`; return how many rows went.

        Stops when another replica sweeps. Ends: the line is drawn once, and nothing new can be
        older.
        """
        line = first_id(now_ms - self._days * DAY_MS)
        gone = 0
        while some := await self._sweep_some(line):
            gone += some
        if gone:
            log.info("records_swept", rows=gone)
        return gone

    async def _sweep_some(self, line: str) -> int:
        """Delete for a few seconds, as the only replica; return how many rows went.

        A lock belongs to a connection, and those are not held for long.
        """
        until_s = clock.monotonic_s() + HOLD_S
        gone = 0
        async with self._database.reading() as cursor:
            await cursor.execute(f"SELECT GET_LOCK({_LOCK}, 0) AS mine")
            if not (await cursor.fetchone())["mine"]:
                return 0
            for table in _TABLES:
                while clock.monotonic_s() < until_s:
                    deleted = await cursor.execute(
                        f"DELETE FROM {table} WHERE call_id < %s ORDER BY call_id LIMIT %s",  # noqa: S608
                        (line, CHUNK_ROWS),
                    )
                    gone += deleted
                    if deleted < CHUNK_ROWS:
                        break
            await cursor.execute(f"DO RELEASE_LOCK({_LOCK})")
        return gone
