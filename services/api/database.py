"""How do we talk to MySQL? A pool, transactions, and one answer when it is away.

Knows nothing of tables. Works with MySQL 8 and later, and MariaDB 10.11 and later.
"""

import asyncio
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
#: Longest that a block may hold its connection.
BLOCK_TIMEOUT_S = 15.0
RECYCLE_S = 600
#: Deadlock and lock wait timeout: the same request may well succeed if sent again.
_TRY_AGAIN = {1205, 1213}
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
        # The pool wakes no waiter when a broken connection comes back; so nobody waits in it.
        self._places = asyncio.Semaphore(POOL_MAX)
        self._pool: aiomysql.Pool | None = None

    async def close(self) -> None:
        """Close all connections; those in use are cut."""
        if self._pool is not None:
            self._pool.terminate()
            await self._pool.wait_closed()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Cursor]:
        """Give a cursor that returns rows as dicts; each statement commits by itself."""
        async with self._connection() as connection, connection.cursor(Cursor) as cursor:
            yield cursor

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Cursor]:
        """Give a cursor in a transaction: committed at the end, rolled back on any error."""
        async with self._connection() as connection:
            await connection.begin()
            try:
                async with connection.cursor(Cursor) as cursor:
                    yield cursor
            except Exception:
                await connection.rollback()
                raise
            await connection.commit()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiomysql.Connection]:
        try:
            async with asyncio.timeout(BLOCK_TIMEOUT_S), self._places:
                pool = self._opened()
                connection = await _acquired(pool)
                try:
                    yield connection
                except (*_BROKEN, asyncio.CancelledError):
                    # Nobody knows what was sent and what not: it must not be used again.
                    connection.close()
                    raise
                finally:
                    pool.release(connection)
        except _BROKEN as error:
            raise _unavailable(error) from error

    def _opened(self) -> aiomysql.Pool:
        if self._pool is None:
            self._pool = aiomysql.Pool(
                minsize=0,
                maxsize=0,
                echo=False,
                pool_recycle=RECYCLE_S,
                loop=asyncio.get_running_loop(),
                host=self._where.host,
                port=self._where.port,
                user=self._where.user,
                password=self._where.password,
                db=self._where.name,
                charset="utf8mb4",
                sql_mode="'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
                init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
            )
        return self._pool


async def _acquired(pool: aiomysql.Pool) -> aiomysql.Connection:
    """Return a connection of the pool's; if that is cancelled, give it back when it comes.

    The driver would leave a half-made connection open.
    """
    coming = asyncio.ensure_future(pool.acquire())
    try:
        return await asyncio.shield(coming)
    except asyncio.CancelledError:
        coming.add_done_callback(lambda came: came.exception() or pool.release(came.result()))
        raise


def _unavailable(error: Exception) -> Exception:
    number = error.args[0] if error.args else None
    if isinstance(error, err.OperationalError) and number in _TRY_AGAIN:
        return Unavailable("MySQL is busy with a change of the same rows")
    reason = "no answer in time" if isinstance(error, TimeoutError) else error.args[-1:]
    return Unavailable(f"MySQL does not answer: {reason}")
