"""How do we talk to MySQL? A pool, transactions, and one answer when it is away: soon.

The driver's own pool waits for ever for a server that takes connections and says nothing, and
everybody behind it.
Knows nothing of tables. Works with MySQL 8 and later, and MariaDB 10.11 and later.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import aiomysql
from pymysql import err

from shared import urls
from shared.errors import Unavailable

Cursor: TypeAlias = aiomysql.DictCursor

POOL_MAX = 16
CONNECT_TIMEOUT_S = 3.0
#: Longest that a block may hold its connection, and that one waits for its turn.
READ_TIMEOUT_S, BLOCK_TIMEOUT_S, TURN_TIMEOUT_S = 8.0, 15.0, 4.0
#: A connection that was idle for so long is asked whether it lives, and answers within the second.
IDLE_S, PING_TIMEOUT_S = 1.0, 2.0
#: After MySQL did not answer, nobody else waits for it for so long: all are refused at once.
AWAY_S = 1.0
#: Deadlock and lock wait timeout: the same request may well succeed if sent again.
_TRY_AGAIN = {1205, 1213}
#: Too many connections: those that are open are as good as before.
_TOO_MANY = 1040
#: Errors of the server or the connection rather than of a statement; OSError has timeouts too.
_BROKEN = (err.OperationalError, err.InterfaceError, OSError)


class Database:
    """A pool of connections, opened at need; survives restarts of MySQL.

    Blocks raise `Unavailable` if MySQL does not answer or is too busy, and pymysql's errors for
    what is wrong with the statement or its data.
    """

    def __init__(self, url: str) -> None:
        """`url` is `DB_URL`; close with `close`."""
        self._where = urls.parse_mysql(url)
        self._places = asyncio.Semaphore(POOL_MAX)
        #: With the loop's seconds since when each is; the one used last is the last.
        self._idle: deque[tuple[aiomysql.Connection, float]] = deque()
        self._used: set[aiomysql.Connection] = set()
        #: Until when MySQL is taken to be away, in the loop's seconds, and why.
        self._away_until_s, self._why = 0.0, ""

    async def close(self) -> None:
        """Close all connections; those in use are cut."""
        self._drop_idle()
        for connection in self._used:
            connection.close()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Cursor]:
        """Give a cursor that returns rows as dicts; each statement commits by itself."""
        async with (
            self._connection(READ_TIMEOUT_S) as connection,
            connection.cursor(Cursor) as cursor,
        ):
            yield cursor

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Cursor]:
        """Give a cursor in a transaction: committed at the end, rolled back on any error."""
        async with self._connection(BLOCK_TIMEOUT_S) as connection:
            await connection.begin()
            try:
                async with connection.cursor(Cursor) as cursor:
                    yield cursor
            except Exception:
                await connection.rollback()
                raise
            await connection.commit()

    @asynccontextmanager
    async def _connection(self, longest_s: float) -> AsyncIterator[aiomysql.Connection]:
        try:
            async with self._turn(), asyncio.timeout(longest_s):
                connection = await self._taken()
                self._used.add(connection)
                try:
                    yield connection
                except (*_BROKEN, asyncio.CancelledError):
                    # Nobody knows what was sent and what not: it must not be used again.
                    connection.close()
                    raise
                finally:
                    self._used.discard(connection)
                    if not connection.closed:
                        self._idle.append((connection, asyncio.get_running_loop().time()))
        except _BROKEN as error:
            raise _unavailable(error) from error

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with asyncio.timeout(TURN_TIMEOUT_S):
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    async def _taken(self) -> aiomysql.Connection:
        """Return a connection that MySQL answers on; soon, or not at all.

        Whoever finds that it does not answer spares all others the wait.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until_s:
            raise Unavailable(self._why)
        try:
            return await self._idle_one(loop.time()) or await self._connected()
        except _BROKEN as error:
            away = _unavailable(error)
            if error.args[:1] != (_TOO_MANY,):
                self._drop_idle()
                self._away_until_s, self._why = loop.time() + AWAY_S, str(away)
            raise away from error

    async def _idle_one(self, now_s: float) -> aiomysql.Connection | None:
        while self._idle:
            connection, since_s = self._idle.pop()
            if _is_cut(connection):
                connection.close()
            elif now_s - since_s < IDLE_S or await _answers(connection):
                return connection
        return None

    async def _connected(self) -> aiomysql.Connection:
        connection = aiomysql.Connection(
            host=self._where.host,
            port=self._where.port,
            user=self._where.user,
            password=self._where.password,
            db=self._where.name,
            charset="utf8mb4",
            sql_mode="'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
            init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            autocommit=True,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection._connect()  # noqa: SLF001 (else a half-made one could not be closed)
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop_idle(self) -> None:
        for connection, _ in self._idle:
            connection.close()
        self._idle.clear()


def _is_cut(connection: aiomysql.Connection) -> bool:
    """Say whether MySQL is known to have closed a connection."""
    reader = connection._reader  # noqa: SLF001 (nothing else tells)
    return bool(reader.at_eof() or reader.exception() or reader.eof_received)


async def _answers(connection: aiomysql.Connection) -> bool:
    """Say whether a connection is of use; raises TimeoutError if MySQL is silent."""
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            await connection.ping(reconnect=False)
    except BaseException as error:
        connection.close()
        if isinstance(error, TimeoutError) or not isinstance(error, _BROKEN):
            raise
        return False  # it was closed by a restart, or for having been idle for long
    return True


def _unavailable(error: Exception) -> Exception:
    number = error.args[0] if error.args else None
    if isinstance(error, err.OperationalError) and number in _TRY_AGAIN:
        return Unavailable("MySQL is busy with a change of the same rows")
    reason = "no answer in time" if isinstance(error, TimeoutError) else error.args[-1:]
    return Unavailable(f"MySQL does not answer: {reason}")
