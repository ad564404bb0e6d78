"""What becomes of async calls that fail: tried again, kept, shown, redriven, purged."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.api.catalog import Catalog
from services.api.database import Database
from services.api.letters import DAY_MS, PART_BYTES, Filter, Letters, Lifetime
from services.api.migrating import migrate
from services.api.problems import Conflict
from services.api.redriving import Redriving
from services.api.store import Store
from services.api.versions import Versions
from shared import clock, ids, keys, messages, scripts, streams
from shared.errors import Unavailable
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving

LETTERS = "/v1/apps/a/dead-letters"


def exits(head: messages.CallHead, parcel: messages.Parcel) -> messages.Outcome:
    """Fail as a function does."""
    del head, parcel
    return messages.Failed("exit", "exit code 1", 1)


def lost(head: messages.CallHead, parcel: messages.Parcel) -> messages.Outcome:
    """Fail as the platform does."""
    del head, parcel
    return messages.Failed("runner_lost", "the runner of this call is gone")


async def accept(api: Api, path: str, body: bytes = b"in", **more: Any) -> str:
    status, answer = await api.json("POST", path, data=body, **more)
    assert status == 202
    return str(answer["call_id"])


async def ended(api: Api, call_id: str) -> dict[str, Any]:
    _, answer = await api.json("GET", f"/v1/calls/{call_id}?wait=10")
    found: dict[str, Any] = answer["call"]
    return found


async def dead(api: Api, runner: EchoRunner, path: str = "/f", body: bytes = b"in") -> str:
    """Make a dead letter; the runner fails whatever comes, from then on."""
    runner.function = lost
    status, _ = await api.json("GET", f"/v1/apps/a/routes{path}")
    where = f"/r/a{path}" if status == 200 else await api.make(path, type="async", max_attempts=1)
    call_id = await accept(api, where, body)
    assert (await ended(api, call_id))["status"] == "error"
    return call_id


async def listed(api: Api, query: str = "") -> list[str]:
    status, answer = await api.json("GET", LETTERS + query)
    assert status == 200, answer
    return [letter["call_id"] for letter in answer["dead_letters"]]


# Attempts.


async def test_a_function_that_fails_twice_succeeds_at_its_third_attempt(
    api: Api, runner: EchoRunner
) -> None:
    def third(head: messages.CallHead, parcel: messages.Parcel) -> messages.Outcome:
        return messages.Answered(parcel.payload) if head.attempt == 3 else exits(head, parcel)

    runner.function = third
    call_id = await accept(api, await api.make(type="async", retries=2))
    call = await ended(api, call_id)
    assert (call["status"], call["attempt"], call["code"]) == ("success", 3, None)
    told = [(f["attempt"], f["code"], f["error"]) for f in call["failures"]]
    assert told == [(1, "exit", "exit code 1"), (2, "exit", "exit code 1")]
    assert [head.attempt for head, _ in runner.seen] == [1, 2, 3]
    assert {parcel.payload for _, parcel in runner.seen} == {b"in"}
    async with api.ask("GET", f"/v1/calls/{call_id}/log") as response:
        assert (await response.read()).decode() == (
            "--- attempt 1 failed: exit: exit code 1 ---\nnoted\n"
            "--- attempt 2 failed: exit: exit code 1 ---\nnoted\n"
            "--- attempt 3 ---\nnoted\n"
        )
    async with api.ask("GET", f"/v1/calls/{call_id}/result") as response:
        assert await response.read() == b"in"
    assert await listed(api) == []


async def test_a_call_that_waits_for_its_next_attempt_is_queued(
    api: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    path = await api.make(type="async", retries=1)
    runner.working.clear()
    call_id = await accept(api, path)
    found: Any = await redis.xrange(keys.CALLS_ASYNC)
    [(entry_id, fields)] = found
    head = messages.decode(fields[b"h"], messages.CallHead)
    again = messages.CallHead(**{**_fields(head), "attempt": 2})
    record = messages.Record(
        call_id, "queued", "async", "a", "/f", "img", head.accepted_ms, attempt=2
    )
    due_ms = clock.epoch_ms() + 60_000
    move = scripts.try_again(keys.CALLS_ASYNC, entry_id, again, record, due_ms=due_ms)
    assert await redis.execute_command(*move) == 1

    async def waits() -> bool:
        call = (await api.json("GET", f"/v1/calls/{call_id}"))[1]["call"]
        return (call["status"], call["attempt"]) == ("queued", 2)

    await eventually(waits)
    assert (await api.json("GET", "/stats"))[1]["Queue"] == 1
    await redis.zadd(keys.RETRIES_DUE, {call_id: 1})
    runner.working.set()
    assert (await ended(api, call_id))["attempt"] == 2


def _fields(head: messages.CallHead) -> dict[str, Any]:
    return {name: getattr(head, name) for name in head.__struct_fields__}


async def test_a_functions_failure_without_retries_is_no_dead_letter(
    api: Api, runner: EchoRunner
) -> None:
    runner.function = exits
    call = await ended(api, await accept(api, await api.make(type="async")))
    assert (call["status"], call["attempt"], call["failures"]) == ("error", 1, [])
    assert await listed(api) == []


async def test_a_function_that_uses_up_its_retries_is_a_dead_letter(
    api: Api, runner: EchoRunner
) -> None:
    runner.function = exits
    call_id = await accept(api, await api.make(type="async", retries=2))
    call = await ended(api, call_id)
    assert (call["status"], call["code"], call["attempt"]) == ("error", "exit", 3)
    assert await listed(api) == [call_id]


async def test_an_outside_workers_failure_is_an_attempts_too(api: Api) -> None:
    call_id = await accept(api, await api.make(type="async", retries=1))
    for attempt in (1, 2):

        async def reserved() -> bool:
            task = (await api.json("GET", "/tasks"))[1]
            return task is not None and task["id"] == call_id

        await eventually(reserved)
        report = {"id": call_id, "status": "error", "error": f"broke {attempt}"}
        assert (await api.json("DELETE", "/tasks", json=report))[0] == 202
        assert (await api.json("DELETE", "/tasks", json=report))[0] == 404
    call = await ended(api, call_id)
    assert (call["status"], call["error"], call["attempt"]) == ("error", "broke 2", 2)
    assert [failure["error"] for failure in call["failures"]] == ["broke 1"]
    assert await listed(api) == [call_id]


# Kept and shown.


async def test_a_dead_letter_is_shown_whole(api: Api, runner: EchoRunner) -> None:
    call_id = await dead(api, runner, body=b"\xff\x00")
    status, answer = await api.json("GET", f"{LETTERS}/{call_id.upper()}")
    assert (status, answer["message"]) == (200, "Successfully loaded dead letter")
    letter = answer["dead_letter"]
    request = letter.pop("request")
    assert (request["method"], request["payload"], request["payload_encoding"]) == (
        "POST",
        "/wA=",
        "base64",
    )
    assert request["url"].endswith("/r/a/f")
    assert request["env_vars"]["CALL_ID"] == call_id
    assert letter.pop("size_bytes") > 2
    assert letter.pop("created_at") <= letter.pop("died_at")
    assert letter == {
        "call_id": call_id,
        "app_name": "a",
        "path": "/f",
        "image": "img",
        "code": "runner_lost",
        "error": "the runner of this call is gone",
        "attempt": 1,
        "redriven_as": None,
        "redriven_at": None,
    }


async def test_dead_letters_are_listed_newest_first_in_pages(api: Api, runner: EchoRunner) -> None:
    made = [await dead(api, runner) for _ in range(3)]
    other = await dead(api, runner, "/g")
    assert await listed(api) == [other, *reversed(made)]
    assert await listed(api, "?path=/g") == await listed(api, "?route=g") == [other]
    assert await listed(api, "?code=exit") == []
    assert await listed(api, "?redriven=true") == []
    assert (await api.json("GET", "/v1/apps/b/dead-letters"))[1]["dead_letters"] == []
    paged: list[str] = []
    cursor = ""
    while True:
        _, answer = await api.json("GET", f"{LETTERS}?limit=3&cursor={cursor}")
        paged += [letter["call_id"] for letter in answer["dead_letters"]]
        cursor = answer["next_cursor"]
        if not cursor:
            break
    assert paged == [other, *reversed(made)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?limit=0", "limit must be a whole number from 1 to 1000, not '0'"),
        ("?redriven=1", "redriven must be true or false, not '1'"),
        ("?code=oops", "code must be a word of the error table, not 'oops'"),
        ("?cursor=x", "cursor must be a next_cursor of the same list, unchanged"),
    ],
)
async def test_a_wrong_question_names_its_field(api: Api, query: str, message: str) -> None:
    assert await api.json("GET", LETTERS + query) == (400, {"error": {"message": message}})


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_an_unknown_letter_or_another_apps_is_404(
    api: Api, runner: EchoRunner, method: str
) -> None:
    call_id = await dead(api, runner)
    for where in (f"{LETTERS}/x", f"{LETTERS}/%C3%BC", f"/v1/apps/b/dead-letters/{call_id}"):
        url = where + ("/redrive" if method == "POST" else "")
        expected = (404, {"error": {"message": "Dead letter not found"}})
        assert await api.json(method, url) == expected
    assert await listed(api) == [call_id]


async def test_letters_are_purged_one_or_all(api: Api, runner: EchoRunner) -> None:
    one, two, three = [await dead(api, runner, path) for path in ("/f", "/f", "/g")]
    assert (await api.json("DELETE", f"{LETTERS}/{one}"))[1]["purged"] == 1
    assert (await api.json("DELETE", f"{LETTERS}/{one}"))[0] == 404
    assert (await api.json("DELETE", f"{LETTERS}?path=/f"))[1]["purged"] == 1
    assert await listed(api) == [three]
    assert (await api.json("DELETE", LETTERS))[1]["purged"] == 1
    assert await listed(api) == []
    assert (await ended(api, two))["status"] == "error"


# Redriven.


async def test_a_letter_is_redriven_as_a_call_by_its_route_as_it_is_now(
    api: Api, runner: EchoRunner
) -> None:
    call_id = await dead(api, runner, body=b"x" * 100_000)
    change = {"route": {"image": "img:2", "config": {"K": "v"}}}
    assert (await api.json("PATCH", "/v1/apps/a/routes/f", json=change))[0] == 200
    runner.function = EchoRunner(runner.redis).function
    status, answer = await api.json("POST", f"{LETTERS}/{call_id}/redrive")
    assert (status, answer["redrive_of"]) == (202, call_id)
    new_id = answer["call_id"]
    call = await ended(api, new_id)
    assert (call["status"], call["redrive_of"], call["image"]) == ("success", call_id, "img:2")
    assert call["attempt"] == 1
    head, parcel = runner.seen[-1]
    assert (head.call_id, head.image, head.mode) == (new_id, "img:2", "async")
    assert parcel.payload == b"x" * 100_000
    assert (parcel.call_env["CALL_ID"], parcel.config_env) == (new_id, {"K": "v"})
    assert await listed(api) == []
    assert await listed(api, "?redriven=true") == [call_id]
    letter = (await api.json("GET", f"{LETTERS}/{call_id}"))[1]["dead_letter"]
    assert (letter["redriven_as"], letter["request"]) == (new_id, None)
    assert letter["redriven_at"] >= letter["died_at"]
    was = await ended(api, call_id)
    assert (was["status"], was["redrive_of"]) == ("error", None)
    assert (await api.json("POST", f"{LETTERS}/{call_id}/redrive"))[1]["call_id"] == new_id


async def test_a_redriven_call_that_dies_again_is_a_letter_of_its_own(
    api: Api, runner: EchoRunner
) -> None:
    call_id = await dead(api, runner)
    new_id = (await api.json("POST", f"{LETTERS}/{call_id}/redrive"))[1]["call_id"]
    assert (await ended(api, new_id))["status"] == "error"
    assert await listed(api) == [new_id]


async def test_many_who_redrive_one_letter_make_one_call(
    api: Api, runner: EchoRunner, redis_server: str, database: str
) -> None:
    call_id = await dead(api, runner)
    runner.seen.clear()
    runner.function = EchoRunner(runner.redis).function
    async with serving(redis_server, database) as other:
        url = f"{LETTERS}/{call_id}/redrive"
        answers = await asyncio.gather(*((api, other)[n % 2].json("POST", url) for n in range(20)))
    assert {status for status, _ in answers} == {202}
    (new_id,) = {answer["call_id"] for _, answer in answers}
    assert (await ended(api, new_id))["status"] == "success"
    assert [head.call_id for head, _ in runner.seen] == [new_id]


async def test_all_of_an_app_are_redriven_in_pages(api: Api, runner: EchoRunner) -> None:
    made = [await dead(api, runner) for _ in range(5)]
    other = await dead(api, runner, "/g")
    runner.function = EchoRunner(runner.redis).function
    cursor, told = "", []
    while True:
        url = f"{LETTERS}/redrive?path=/f&limit=2&cursor={cursor}"
        status, answer = await api.json("POST", url)
        assert status == 202
        told += answer["redriven"]
        cursor = answer["next_cursor"]
        if not cursor:
            break
    assert [one["redrive_of"] for one in told] == made
    calls = [await ended(api, one["call_id"]) for one in told]
    assert [call["redrive_of"] for call in calls] == made
    assert {call["status"] for call in calls} == {"success"}
    assert await listed(api) == [other]


async def test_a_letter_whose_route_is_gone_stays_and_does_not_stop_the_others(
    api: Api, runner: EchoRunner
) -> None:
    gone, there = await dead(api, runner, "/gone"), await dead(api, runner, "/there")
    assert (await api.json("DELETE", "/v1/apps/a/routes/gone"))[0] == 200
    expected = (404, {"error": {"message": "Route not found"}})
    assert await api.json("POST", f"{LETTERS}/{gone}/redrive") == expected
    _, answer = await api.json("POST", f"{LETTERS}/redrive")
    first, second = answer["redriven"]
    assert first == {"redrive_of": gone, "error": "Route not found"}
    assert second["redrive_of"] == there
    assert gone in await listed(api)
    await api.make("/gone")
    runner.function = EchoRunner(runner.redis).function
    status, answer = await api.json("POST", f"{LETTERS}/{gone}/redrive")
    assert status == 202
    assert (await ended(api, answer["call_id"]))["status"] == "success"
    assert runner.seen[-1][0].mode == "async"


async def test_while_redis_takes_nothing_redriving_is_503_and_loses_nothing(
    api: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    made = [await dead(api, runner) for _ in range(2)]
    await redis.config_set("maxmemory", "1kb")
    try:
        status, answer = await api.json("POST", f"{LETTERS}/{made[0]}/redrive")
        assert status == 503, answer
        assert (await api.json("POST", f"{LETTERS}/redrive"))[0] == 503
        assert await listed(api) == made[::-1]
    finally:
        await redis.config_set("maxmemory", "0")
    runner.function = EchoRunner(runner.redis).function
    status, answer = await api.json("POST", f"{LETTERS}/redrive")
    assert [one["redrive_of"] for one in answer["redriven"]] == made
    for one in answer["redriven"]:
        assert (await ended(api, one["call_id"]))["status"] == "success"


async def test_a_full_queue_stops_a_redrive_and_says_how_far_it_came(
    redis: streams.Redis, redis_server: str, database: str
) -> None:
    async with (
        serving(redis_server, database, async_queue_max=1) as api,
        EchoRunner(redis) as runner,
    ):
        made = [await dead(api, runner) for _ in range(3)]
        runner.working.clear()
        status, answer = await api.json("POST", f"{LETTERS}/redrive")
        assert (status, answer["error"]["message"]) == (
            503,
            "1 async calls wait already; before, 1 dead letter had been redriven; the others stay",
        )
        assert await listed(api) == [made[2], made[1]]


# Whatever is killed in between.


@pytest.fixture
async def letters(redis: streams.Redis, database: str) -> AsyncIterator[Letters]:  # noqa: ARG001 (it empties Redis)
    await asyncio.to_thread(migrate, database)
    pool = Database(database)
    yield Letters(pool)
    await pool.close()


def a_record(**changes: Any) -> messages.Record:
    fields: dict[str, Any] = {
        "call_id": ids.new_call_id(), "status": "error", "mode": "async", "app": "a",
        "path": "/f", "image": "img", "queued_ms": 1, "finished_ms": clock.epoch_ms(),
        "code": "runner_lost", "message": "gone", "attempt": 3, **changes,
    }  # fmt: skip
    return messages.Record(**fields)


def a_head(record: messages.Record) -> bytes:
    return messages.encode(
        messages.CallHead(
            record.call_id, "async", record.app, record.path, "img", 1, 1.0, 0, 0, 0, "", 1
        )
    )


PARCEL = messages.encode(messages.Parcel({}, {}, b"in"))


async def keep(letters: Letters, parcel: bytes | None = PARCEL, **changes: Any) -> str:
    record = a_record(**changes)
    assert await letters.keep(record, a_head(record), parcel)
    return record.call_id


async def test_what_is_kept_twice_is_there_once_and_stays_as_it_was(letters: Letters) -> None:
    record = a_record()
    assert await letters.keep(record, a_head(record), PARCEL)
    assert not await letters.keep(record, a_head(record), b"other")
    (letter,) = await letters.listed("a", Filter(), 10)
    assert await letters.parcel(letter) == PARCEL
    await letters.redriven(record.call_id, 5)
    assert not await letters.keep(record, a_head(record), PARCEL)
    assert await letters.listed("a", Filter(), 10) == []


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 9 * PART_BYTES + 7])
async def test_parcels_of_any_size_are_kept_whole(letters: Letters, size: int) -> None:
    parcel = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    call_id = await keep(letters, parcel)
    letter = await letters.find("a", call_id)
    assert letter is not None
    assert letter.size_bytes == size
    assert await letters.parcel(letter) == parcel


async def test_a_call_under_way_of_a_letter_is_gone_on_with(
    letters: Letters, api: Api, redis: streams.Redis
) -> None:
    """The replica died after it had decided on the call's id, before Redis had the call."""
    await api.make(type="async")
    call_id, new_id = await keep(letters), ids.new_call_id()
    assert await letters.name(call_id, new_id) == new_id
    assert await listed(api) == [call_id]
    status, answer = await api.json("POST", f"{LETTERS}/{call_id}/redrive")
    assert (status, answer["call_id"]) == (202, new_id)
    assert await redis.xlen(keys.CALLS_ASYNC) == 1


async def test_a_call_that_redis_has_is_not_made_twice(
    letters: Letters, api: Api, redis: streams.Redis
) -> None:
    """The replica died, or MySQL went away, before the letter said that it is redriven."""
    await api.make(type="async")
    call_id = await keep(letters)
    _, first = await api.json("POST", f"{LETTERS}/{call_id}/redrive")
    assert await redis.pttl(keys.redriven(first["call_id"])) <= scripts.REDRIVEN_NOTED_KEPT_MS
    await redis.xtrim(keys.CALLS_ASYNC, maxlen=0)  # it is run by now
    pool = letters._database
    async with pool.transaction() as cursor:
        await cursor.execute("UPDATE dead_letters SET redriven_ms = NULL")
        await cursor.execute(
            "INSERT INTO dead_letter_parts (call_id, part, body) VALUES (%s, 0, UNHEX(%s))",
            (call_id, PARCEL.hex()),
        )
    assert await listed(api) == [call_id]
    assert (await api.json("POST", f"{LETTERS}/{call_id}/redrive"))[1] == first
    assert await redis.xlen(keys.CALLS_ASYNC) == 0
    assert await listed(api) == []


async def test_while_redis_is_away_a_letter_stays(
    letters: Letters, api: Api, redis: streams.Redis
) -> None:
    await api.make(type="async")
    call_id = await keep(letters)
    away = streams.connect("redis://127.0.0.1:1")
    async with streams.Outbox(redis) as there, streams.Outbox(away) as nowhere:
        versions = Versions(there.send)
        store = Store(letters._database, versions)
        catalog = Catalog(store.read_for_call, versions, ttl_s=10.0)
        with pytest.raises(Unavailable):
            await Redriving(letters, catalog, nowhere, 10).redrive("a", call_id)
        await catalog.close()
    await away.aclose()
    assert await listed(api) == [call_id]
    assert (await api.json("POST", f"{LETTERS}/{call_id}/redrive"))[0] == 202


async def test_a_letter_whose_input_is_lost_can_only_be_purged(letters: Letters, api: Api) -> None:
    await api.make(type="async")
    call_id = await keep(letters, None)
    letter = (await api.json("GET", f"{LETTERS}/{call_id}"))[1]["dead_letter"]
    assert (letter["size_bytes"], letter["request"]) == (None, None)
    status, answer = await api.json("POST", f"{LETTERS}/{call_id}/redrive")
    assert (status, Conflict.code) == (409, "conflict")
    assert "can only be purged" in answer["error"]["message"]
    assert (await api.json("DELETE", f"{LETTERS}/{call_id}"))[0] == 200


async def test_a_large_input_leaves_redis_once_it_is_kept(
    api: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    call_id = await dead(api, runner, body=b"x" * 100_000)

    async def gone() -> bool:
        return not await redis.exists(keys.parcel(call_id))

    await eventually(gone)
    assert (await api.json("GET", f"{LETTERS}/{call_id}"))[1]["dead_letter"]["size_bytes"] > 100_000


async def test_letters_too_old_or_too_many_go(letters: Letters) -> None:
    now_ms = clock.epoch_ms()
    old = await keep(letters, finished_ms=now_ms - 3 * DAY_MS)
    made = [await keep(letters) for _ in range(3)]
    other = await keep(letters, app="b")
    assert await Lifetime(letters, days=0, most=10).sweep(now_ms) == 0
    assert await Lifetime(letters, days=2, most=10).sweep(now_ms) == 1
    assert await letters.find("a", old) is None
    redriven = await keep(letters)
    await letters.redriven(redriven, now_ms)
    sweeps = (Lifetime(letters, days=2, most=2).sweep(now_ms) for _ in range(5))
    assert sum(await asyncio.gather(*sweeps)) == 1
    assert await letters.find("a", redriven)
    kept = await letters.listed("a", Filter(), 10)
    assert [letter.call_id for letter in kept] == [made[2], made[1]]
    assert await letters.find("b", other)
    async with letters._database.reading() as cursor:
        await cursor.execute("SELECT COUNT(*) AS count FROM dead_letter_parts")
        assert (await cursor.fetchone())["count"] == 3
