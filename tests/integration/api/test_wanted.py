"""Is the list of routes whose sandboxes are kept ready what MySQL says, whatever happens?"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.api.database import Database
from services.api.merging import patched_route
from services.api.models import Route
from services.api.store import Store
from services.api.versions import Versions
from shared import keys, messages, scripts, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving


async def listed(redis: streams.Redis) -> dict[str, messages.Wanted]:
    found: Any = await redis.hgetall(keys.WANTED)
    return {k.decode(): messages.decode(v, messages.Wanted) for k, v in found.items()}


async def listed_eventually(redis: streams.Redis, *fields: str) -> dict[str, messages.Wanted]:
    """Return the list as soon as it has exactly these fields."""

    async def exact() -> bool:
        return set(await listed(redis)) == set(fields)

    await eventually(exact)
    return await listed(redis)


async def patch(api: Api, path: str, body: dict[str, Any]) -> None:
    status, answer = await api.json("PATCH", path, data=json.dumps(body))
    assert status == 200, answer


@pytest.fixture
async def other_store(
    api: Api,  # noqa: ARG001 (it has migrated)
    redis: streams.Redis,
    database: str,
) -> AsyncIterator[Store]:
    """The store of a replica that dies right after each commit: it tells nobody of its changes."""
    connection = Database(database)
    async with streams.Outbox(redis) as outbox:
        yield Store(connection, Versions(outbox.send))
    await connection.close()


async def test_a_wanted_route_is_listed_as_its_calls_are(
    api: Api, redis: streams.Redis, runner: EchoRunner
) -> None:
    path = await api.make(
        format="http", isolation="call", min_sandboxes=2, max_concurrency=5, config={"A": "1"}
    )
    await api.make("/other")
    wanted = (await listed_eventually(redis, "a\n/f"))["a\n/f"]
    assert (wanted.app, wanted.path, wanted.image) == ("a", "/f", "img")
    assert (wanted.format, wanted.isolation, wanted.min_sandboxes) == ("http", "call", 2)
    assert (wanted.max_concurrency, wanted.config_env) == (5, {"A": "1"})

    async def is_as_its_calls() -> bool:
        async with api.ask("POST", path) as response:
            assert response.status == 200
        head = runner.seen[-1][0]
        now = (await listed(redis))["a\n/f"]
        return (head.sandbox_key, head.revision) == (now.sandbox_key, now.revision)

    await eventually(is_as_its_calls)


async def test_what_makes_sandboxes_old_is_listed_anew(api: Api, redis: streams.Redis) -> None:
    await api.make(min_sandboxes=1)
    before = (await listed_eventually(redis, "a\n/f"))["a\n/f"]

    async def has_config() -> bool:
        return (await listed(redis))["a\n/f"].config_env == {"NEW": "1"}

    await patch(api, "/v1/apps/a", {"app": {"config": {"new": "1"}}})
    await eventually(has_config)
    after = (await listed(redis))["a\n/f"]
    assert after.sandbox_key != before.sandbox_key
    assert after.revision > before.revision


async def test_who_wants_none_any_more_is_not_listed(api: Api, redis: streams.Redis) -> None:
    for path in ("/f", "/g", "/h"):
        await api.make(path, min_sandboxes=1)
    await listed_eventually(redis, "a\n/f", "a\n/g", "a\n/h")
    await patch(api, "/v1/apps/a/routes/f", {"route": {"min_sandboxes": 0}})
    await listed_eventually(redis, "a\n/g", "a\n/h")
    await api.json("DELETE", "/v1/apps/a/routes/g")
    await listed_eventually(redis, "a\n/h")
    await api.json("DELETE", "/v1/apps/a/routes/h")
    await api.json("DELETE", "/v1/apps/a")
    await listed_eventually(redis)


async def test_a_change_whose_replica_died_is_listed_all_the_same(
    redis: streams.Redis, other_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.wanted.COMPARE_EVERY_S", 0.05)
    monkeypatch.setattr("services.api.wanted.APPS_AT_ONCE", 2)
    fields = [f"app{n}\n/f" for n in range(5)]
    for n in range(5):
        await other_store.create_route(Route(f"app{n}", "/f", "img", min_sandboxes=1))
    await listed_eventually(redis, *fields)
    await other_store.delete_route("app1", "/f")
    await other_store.update_route(
        "app2", "/f", lambda route: patched_route(route, {"min_sandboxes": 9})
    )
    now = await listed_eventually(redis, *(f for f in fields if f != "app1\n/f"))

    async def has_nine() -> bool:
        return (await listed(redis))["app2\n/f"].min_sandboxes == 9

    await eventually(has_nine)
    assert now["app0\n/f"].min_sandboxes == 1


async def test_a_list_that_redis_lost_or_anyone_spoilt_is_written_anew(
    api: Api, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.wanted.COMPARE_EVERY_S", 0.05)
    await api.make(min_sandboxes=1)
    await listed_eventually(redis, "a\n/f")
    good = await redis.hget(keys.WANTED, "a\n/f")
    spoilt = {"a\n/f": b"spoilt", "nobody\n/x": b"", "a\n/old": b"x", b"\xff\n/x": b"", b"x": b""}
    await redis.hset(keys.WANTED, mapping=spoilt)

    async def good_again() -> bool:
        return await redis.hgetall(keys.WANTED) == {b"a\n/f": good}

    await eventually(good_again)
    await redis.delete(keys.WANTED)
    await eventually(good_again)


async def test_a_replica_that_starts_lists_what_is_there(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    async with serving(redis_server, database) as api:
        await api.make(min_sandboxes=1)
        await listed_eventually(redis, "a\n/f")
    await redis.flushall()
    async with serving(redis_server, database):
        await listed_eventually(redis, "a\n/f")


async def test_an_old_reading_replaces_nothing(redis: streams.Redis) -> None:
    field = b"a\n/f"
    await redis.hset(keys.CATALOG_VERSIONS, "a", "5")
    for version, changes, answer in (
        ("4", {field: b"old"}, scripts.STALE),
        ("5", {field: b"new", b"a\n/g": b"too"}, 1),
        ("4", {field: b""}, scripts.STALE),
        ("5", {b"a\n/g": b""}, 1),
    ):
        said: Any = await redis.execute_command(*scripts.want("a", version, changes))
        assert said == answer
    assert await redis.hgetall(keys.WANTED) == {field: b"new"}
    await redis.execute_command(*scripts.want("never changed", "0", {b"never changed\n/": b"x"}))
    assert await redis.hlen(keys.WANTED) == 2
