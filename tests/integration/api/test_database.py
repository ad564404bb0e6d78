"""Is MySQL's absence noticed soon, by all, and its return too?"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from testcontainers.core.container import DockerContainer

from services.api import database as mysql
from services.api.database import Database
from shared import clock
from shared.errors import Unavailable
from tests.conftest import MYSQL_IMAGE, MysqlServer, container_ip, eventually, wait_for

#: What a request may take while MySQL is silent, in seconds.
SOON_S = mysql.CONNECT_TIMEOUT_S + 1


@pytest.fixture(scope="module")
def own_mysql() -> Iterator[tuple[DockerContainer, str]]:
    """A MySQL that may be harmed, and its `DB_URL`."""
    password = secrets.token_hex(8)
    container = DockerContainer(MYSQL_IMAGE).with_env("MYSQL_ROOT_PASSWORD", password)
    with container:
        url = MysqlServer(container_ip(container), password).url("mysql")
        wait_for(lambda: asyncio.run(_answers_at(url)))
        yield container, url


async def _answers_at(url: str) -> bool:
    database = Database(url)
    try:
        return await one(database) == 1
    finally:
        await database.close()


@pytest.fixture
async def database(own_mysql: tuple[DockerContainer, str]) -> AsyncIterator[Database]:
    database = Database(own_mysql[1])
    yield database
    await database.close()


async def one(database: Database) -> int:
    async with database.reading() as cursor:
        await cursor.execute("SELECT 1 AS one")
        return int((await cursor.fetchone())["one"])


async def refused_after_s(database: Database) -> float:
    begun_s = clock.monotonic_s()
    with pytest.raises(Unavailable, match="MySQL does not answer"):
        await one(database)
    return clock.monotonic_s() - begun_s


async def answers(database: Database) -> bool:
    try:
        return await one(database) == 1
    except Unavailable:
        return False


@pytest.mark.parametrize("idle", [True, False], ids=["with idle ones", "with none"])
async def test_a_silent_mysql_is_noticed_soon_and_by_all(
    own_mysql: tuple[DockerContainer, str], database: Database, *, idle: bool
) -> None:
    """It takes connections, and says nothing: the kernel answers for it."""
    wrapped = own_mysql[0].get_wrapped_container()
    if idle:
        await asyncio.gather(*(one(database) for _ in range(5)))
        await asyncio.sleep(mysql.IDLE_S + 0.1)
    await asyncio.to_thread(wrapped.pause)
    try:
        took_s = await asyncio.gather(*(refused_after_s(database) for _ in range(40)))
        assert max(took_s) < SOON_S, sorted(took_s)
        again_s = await asyncio.gather(*(refused_after_s(database) for _ in range(40)))
        assert max(again_s) < SOON_S, sorted(again_s)
    finally:
        await asyncio.to_thread(wrapped.unpause)
    await eventually(lambda: answers(database), 10)
    assert await asyncio.gather(*(one(database) for _ in range(40))) == [1] * 40


async def test_what_is_under_way_when_mysql_falls_silent_ends_and_holds_nobody_up(
    own_mysql: tuple[DockerContainer, str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "READ_TIMEOUT_S", 2.0)
    wrapped = own_mysql[0].get_wrapped_container()

    async def sleeper() -> None:
        async with database.reading() as cursor:
            await cursor.execute("SELECT SLEEP(600)")

    sleepers = [asyncio.create_task(sleeper()) for _ in range(mysql.POOL_MAX)]
    await asyncio.sleep(0.3)
    await asyncio.to_thread(wrapped.pause)
    try:
        assert await refused_after_s(database) < mysql.TURN_TIMEOUT_S + SOON_S
        ended = await asyncio.gather(*sleepers, return_exceptions=True)
        assert {type(error) for error in ended} == {Unavailable}
    finally:
        await asyncio.to_thread(wrapped.unpause)
    await eventually(lambda: answers(database), 10)


async def test_connections_that_a_restart_has_cut_are_not_used(
    own_mysql: tuple[DockerContainer, str], database: Database
) -> None:
    numbers = await asyncio.gather(*(number(database) for _ in range(5)))
    other = Database(own_mysql[1])
    async with other.reading() as cursor:
        for each in set(numbers):
            await cursor.execute(f"KILL {each}")
    await other.close()
    await asyncio.sleep(0.1)
    assert await asyncio.gather(*(one(database) for _ in range(20))) == [1] * 20


async def number(database: Database) -> int:
    """Return what MySQL calls a connection, after a moment in which it is in use."""
    async with database.reading() as cursor:
        await cursor.execute("SELECT CONNECTION_ID() AS number, SLEEP(0.1)")
        return int((await cursor.fetchone())["number"])
