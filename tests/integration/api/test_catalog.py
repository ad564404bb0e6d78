"""Is a change in force at once, and does the catalog bear it when a store is away?"""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from services.api import migrating
from services.api.catalog import Catalog
from services.api.database import Database
from services.api.merging import patched_route
from services.api.models import App, Route
from services.api.problems import AppNotFound, Conflict, RouteNotFound
from services.api.store import Store
from services.api.versions import Versions
from shared import streams
from shared.errors import Unavailable
from tests.conftest import eventually

HELLO = Route(app="myapp", path="/hello", image="millrace/hello")


class Replica:
    """What one api replica knows of routes; its MySQL can be taken away."""

    def __init__(self, database: Database, outbox: streams.Outbox) -> None:
        self.versions = Versions(outbox.send)
        self.store = Store(database, self.versions)
        self.now_s = 0.0
        self.away = False
        self.reads = 0
        self.catalog = Catalog(self.read, self.versions, ttl_s=10, now_s=lambda: self.now_s)

    async def read(self, app: str, path: str) -> tuple[App, Route]:
        self.reads += 1
        if self.away:
            raise Unavailable("MySQL does not answer")
        return await self.store.read_for_call(app, path)


@pytest.fixture
async def replicas(redis: streams.Redis, database: str) -> AsyncIterator[list[Replica]]:
    await asyncio.to_thread(migrating.migrate, database)
    connection = Database(database)
    async with streams.Outbox(redis) as outbox:
        yield [Replica(connection, outbox) for _ in range(2)]
    await connection.close()


async def test_an_old_route_has_an_old_version(replicas: list[Replica]) -> None:
    here, there = replicas
    await here.store.create_app(App("myapp", {"A": "1"}))
    await here.store.create_route(HELLO)
    found = await there.catalog.lookup("myapp", "/hello")
    assert (found.route, found.app_config) == (HELLO, {"A": "1"})
    assert found.version == await there.versions.current("myapp")
    await here.store.update_route("myapp", "/hello", lambda r: patched_route(r, {"timeout": 5}))
    assert await there.catalog.lookup("myapp", "/hello") is found
    assert found.version != await there.versions.current("myapp")
    there.catalog.forget(found)
    fresh = await there.catalog.lookup("myapp", "/hello")
    assert fresh.route.timeout == 5
    there.catalog.forget(found)
    assert await there.catalog.lookup("myapp", "/hello") is fresh


async def test_nobody_is_refused_by_an_old_route(replicas: list[Replica]) -> None:
    here, there = replicas
    await here.store.create_route(HELLO)
    found = await there.catalog.lookup("myapp", "/hello")
    assert await there.catalog.confirmed(found) is found
    await here.store.update_route("myapp", "/hello", lambda r: patched_route(r, {"jwt_key": "k"}))
    assert (await there.catalog.confirmed(found)).route.jwt_key == "k"
    found = await there.catalog.lookup("myapp", "/hello")
    await here.store.delete_route("myapp", "/hello")
    with pytest.raises(RouteNotFound):
        await there.catalog.confirmed(found)


async def test_not_founds_are_never_remembered(replicas: list[Replica]) -> None:
    here, there = replicas
    with pytest.raises(AppNotFound):
        await there.catalog.lookup("myapp", "/hello")
    await here.store.create_app(App("myapp"))
    with pytest.raises(RouteNotFound):
        await there.catalog.lookup("myapp", "/hello")
    await here.store.create_route(HELLO)
    assert (await there.catalog.lookup("myapp", "/hello")).route == HELLO


async def test_all_who_want_one_route_wait_for_one_read(replicas: list[Replica]) -> None:
    here, there = replicas
    await here.store.create_route(HELLO)
    found = await asyncio.gather(*(there.catalog.lookup("myapp", "/hello") for _ in range(50)))
    assert (there.reads, {id(f) for f in found}) == (1, {id(found[0])})


async def test_known_routes_are_found_while_mysql_is_away(replicas: list[Replica]) -> None:
    here, _ = replicas
    await here.store.create_route(HELLO)
    found = await here.catalog.lookup("myapp", "/hello")
    here.away = True
    here.now_s = 11
    assert await here.catalog.lookup("myapp", "/hello") is found
    with pytest.raises(Unavailable):
        await here.catalog.lookup("myapp", "/other")
    here.away = False
    here.now_s = 22
    assert await here.catalog.lookup("myapp", "/hello") is not found


async def test_a_missed_change_is_seen_after_a_while(
    replicas: list[Replica], redis: streams.Redis
) -> None:
    here, there = replicas
    await here.store.create_route(HELLO)
    before = await redis.hgetall("{millrace}:catalog-versions")
    await there.catalog.lookup("myapp", "/hello")
    await here.store.delete_route("myapp", "/hello")
    await redis.hset("{millrace}:catalog-versions", mapping=before)
    assert await there.catalog.lookup("myapp", "/hello")
    there.now_s = 11
    with pytest.raises(RouteNotFound):
        await there.catalog.lookup("myapp", "/hello")


async def test_nothing_changes_while_redis_is_away(database: str) -> None:
    await asyncio.to_thread(migrating.migrate, database)
    connection = Database(database)
    nowhere = streams.connect("redis://127.0.0.1:1")
    async with streams.Outbox(nowhere) as outbox:
        replica = Replica(connection, outbox)
        with pytest.raises(Unavailable, match="Redis does not answer"):
            await replica.store.create_route(HELLO)
        with pytest.raises(AppNotFound):
            await replica.store.app("myapp")
    await nowhere.aclose()
    await connection.close()


async def test_a_change_is_carried_through_if_its_client_leaves(replicas: list[Replica]) -> None:
    here, there = replicas
    await here.store.create_route(HELLO)
    found = await there.catalog.lookup("myapp", "/hello")
    leaving = asyncio.create_task(here.store.delete_route("myapp", "/hello"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    await here.store.close()
    with pytest.raises(RouteNotFound):
        await there.catalog.confirmed(found)


async def test_a_lost_connection_is_replaced(database: str) -> None:
    connection, killer = Database(database), Database(database)
    async with connection.reading() as cursor:
        await cursor.execute("SELECT CONNECTION_ID() AS id")
        number = (await cursor.fetchone())["id"]
    async with killer.reading() as cursor:
        await cursor.execute(f"KILL {number}")
    await killer.close()

    async def answers() -> bool:
        try:
            async with connection.reading() as cursor:
                return bool(await cursor.execute("SELECT 1"))
        except Unavailable:
            return False

    await eventually(answers)
    await connection.close()


async def test_replicas_that_start_at_once_migrate_once(database: str) -> None:
    migrate: list[Callable[[str], None]] = [migrating.migrate] * 4
    await asyncio.gather(*(asyncio.to_thread(run, database) for run in migrate))
    connection = Database(database)
    async with connection.reading() as cursor:
        await cursor.execute("SELECT COUNT(*) AS n FROM alembic_version")
        assert await cursor.fetchone() == {"n": 1}
        await cursor.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(migrating.DatabaseTooNew):
        await asyncio.to_thread(migrating.migrate, database)
    await connection.close()


async def test_an_absent_mysql_is_unavailable() -> None:
    address = "mysql://u:p@127.0.0.1:1/d"
    with pytest.raises(Unavailable):
        await asyncio.to_thread(migrating.migrate, address)
    connection = Database(address)
    with pytest.raises(Unavailable, match="MySQL does not answer"):
        async with connection.reading():
            pass
    await connection.close()


async def test_a_second_of_a_kind_is_a_conflict(replicas: list[Replica]) -> None:
    here, _ = replicas
    await here.store.create_route(HELLO)
    with pytest.raises(Conflict, match="Route already exists"):
        await here.store.create_route(HELLO)
    with pytest.raises(Conflict, match="App already exists"):
        await here.store.create_app(App("myapp"))


async def test_an_app_that_a_route_made_can_be_made_with_its_config_once(
    replicas: list[Replica],
) -> None:
    here, _ = replicas
    await here.store.create_route(HELLO)
    await here.store.create_app(App("myapp", {"A": "1"}))
    assert await here.store.app("myapp") == App("myapp", {"A": "1"})
    with pytest.raises(Conflict, match="App already exists"):
        await here.store.create_app(App("myapp", {"A": "2"}))


async def test_an_app_without_routes_is_not_made_again(replicas: list[Replica]) -> None:
    here, _ = replicas
    await here.store.create_app(App("myapp"))
    with pytest.raises(Conflict, match="App already exists"):
        await here.store.create_app(App("myapp", {"A": "1"}))
