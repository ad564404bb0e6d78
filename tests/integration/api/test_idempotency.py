"""Calls with an `Idempotency-Key`: run once, answered alike, whoever asks and whatever dies."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from shared import clock, keys, messages, scripts, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving

KEY = {"Idempotency-Key": "order 17"}


@pytest.fixture
async def other(api: Api, redis_server: str, database: str) -> AsyncIterator[Api]:
    """One more replica on the same stores."""
    assert api.url
    async with serving(redis_server, database) as running:
        yield running


async def told(api: Api, path: str, body: bytes = b"b", **more: Any) -> tuple[int, Any, bytes]:
    """Call; return status, headers and body of the answer."""
    given = {"headers": KEY, **more}
    async with api.ask("POST", path, data=body, **given) as response:
        return response.status, response.headers, await response.read()


async def code(api: Api, path: str, body: bytes = b"b", **more: Any) -> tuple[int, str]:
    given = {"headers": KEY, **more}
    status, answer = await api.json("POST", path, data=body, **given)
    return status, answer["error"]["code"]


async def test_the_first_answer_is_told_again(api: Api, other: Api, runner: EchoRunner) -> None:
    runner.function = lambda *_: messages.Answered(b"made\xff", 201, (("X-B", "2"),))
    path = await api.make(headers={"X-A": ["1", "2"]})
    status, headers, body = await told(api, path + "?q=1")
    assert (status, body, headers.getall("X-A")) == (201, b"made\xff", ["1", "2"])
    assert "Idempotent-Replayed" not in headers
    changed = {"route": {"headers": {"X-A": ["3"]}}}
    await api.json("PATCH", "/v1/apps/a/routes/f", json=changed)
    for replica in (api, other):
        again_status, again, again_body = await told(replica, path + "?q=1")
        assert (again_status, again_body) == (status, body)
        assert again["Idempotent-Replayed"] == "true"
        for name in ("X-Call-Id", "X-A", "X-B", "Content-Type"):
            assert again.getall(name) == headers.getall(name), name
    assert len(runner.seen) == 1


async def test_another_request_with_the_key_is_refused(api: Api, runner: EchoRunner) -> None:
    path = await api.make()
    elsewhere = await api.make("/g")
    assert (await told(api, path))[0] == 200
    refused = (409, "idempotency_mismatch")
    assert await code(api, path, b"other") == refused
    assert await code(api, path + "?q=1") == refused
    status, answer = await api.json("PUT", path, data=b"b", headers=KEY)
    assert (status, answer["error"]["code"]) == refused
    assert "'order 17'" in answer["error"]["message"]
    assert (await told(api, elsewhere))[0] == 200
    assert (await told(api, path, headers={"Idempotency-Key": "order 18"}))[0] == 200
    assert len(runner.seen) == 3


@pytest.mark.parametrize("key", ["", "k" * 256, "schlüssel"])
async def test_a_key_that_is_none(api: Api, runner: EchoRunner, key: str) -> None:
    path = await api.make()
    status, answer = await api.json("POST", path, headers={"Idempotency-Key": key})
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "Idempotency-Key" in answer["error"]["message"]
    assert not runner.seen


async def test_who_asks_while_the_first_runs_gets_its_answer(
    api: Api, other: Api, runner: EchoRunner
) -> None:
    runner.working.clear()
    path = await api.make()
    asking = [asyncio.create_task(told(api if n % 2 else other, path)) for n in range(20)]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in asking)
    runner.working.set()
    answers = await asyncio.gather(*asking)
    assert {(status, body) for status, _, body in answers} == {(200, b"b")}
    assert len({headers["X-Call-Id"] for _, headers, _ in answers}) == 1
    assert Counter("Idempotent-Replayed" in headers for _, headers, _ in answers)[False] == 1
    assert len(runner.seen) == 1


async def test_who_waits_too_long_is_told_so(
    redis_server: str, database: str, redis: streams.Redis
) -> None:
    async with serving(redis_server, database, capacity_wait_s=0.2) as api:
        path = await api.make(timeout=1)
        first = asyncio.create_task(told(api, path))
        await eventually(lambda: redis.xlen(keys.CALLS_SYNC))
        # The first one's deadline is over, and it is not known to have ended.
        assert (await code(api, path))[1] in {"idempotency_running", "idempotency_no_answer"}
        assert (await first)[0] == 504


async def test_an_unknown_end_is_not_run_again(
    api: Api, redis: streams.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.gateway.CLAIM_SLACK_MS", -40_000)
    path = await api.make()
    first = asyncio.create_task(told(api, path))
    await eventually(lambda: redis.xlen(keys.CALLS_SYNC))
    await asyncio.sleep(0.05)
    assert await code(api, path) == (409, "idempotency_no_answer") or first.done()
    assert await redis.xlen(keys.CALLS_SYNC) == 1
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("failure", ["timeout", "exit", "runner_lost"])
async def test_a_failure_is_an_answer_too(api: Api, runner: EchoRunner, failure: str) -> None:
    runner.function = lambda *_: messages.Failed(failure, "why")
    path = await api.make()
    first, again = await told(api, path), await told(api, path)
    assert (first[0], first[2]) == (again[0], again[2])
    assert again[1]["Idempotent-Replayed"] == "true"
    assert len(runner.seen) == 1


@pytest.mark.parametrize("refusal", ["capacity", "unavailable", "overloaded"])
async def test_a_call_that_could_not_run_leaves_its_key_free(
    api: Api, redis: streams.Redis, refusal: str
) -> None:
    path = await api.make()
    asking = [asyncio.create_task(told(api, path)) for _ in range(2)]

    async def next_call() -> tuple[bytes, messages.CallHead]:
        found: Any = await eventually(lambda: redis.xrange(keys.CALLS_SYNC))
        assert len(found) == 1
        return found[0][0], messages.decode(found[0][1][b"h"], messages.CallHead)

    async def end(outcome: messages.Outcome, started_ms: int | None) -> None:
        entry_id, head = await next_call()
        failed = outcome if isinstance(outcome, messages.Failed) else None
        record = messages.Record(
            head.call_id, "error" if failed else "success", "sync", head.app, head.path,
            head.image, head.accepted_ms, started_ms=started_ms, finished_ms=clock.epoch_ms(),
            code=failed.code if failed else "",
        )  # fmt: skip
        reply = messages.Reply(head.call_id, outcome)
        command = scripts.end(
            keys.CALLS_SYNC, entry_id, record, reply, head.reply_to, once=head.once
        )
        assert await redis.execute_command(*command) == 1
        assert await redis.execute_command(*command) == 0

    await end(messages.Failed(refusal, "no"), None)
    # The other one waits no more: it runs.
    await end(messages.Answered(b"ran"), 1)
    answers = await asyncio.gather(*asking)
    assert sorted((status, body == b"ran") for status, _, body in answers) == [
        (200, True),
        (503, False),
    ]
    again = await told(api, path)
    assert (again[0], again[2]) == (200, b"ran")
    assert await redis.zcard(keys.CLAIMS_DUE) == 1


async def test_a_full_queue_leaves_the_key_free(
    redis_server: str, database: str, redis: streams.Redis
) -> None:
    await redis.xadd(keys.CALLS_SYNC, {"h": "x"})
    async with serving(redis_server, database, sync_queue_max=1) as api:
        path = await api.make()
        assert await code(api, path) == (503, "overloaded")
        assert await redis.zcard(keys.CLAIMS_DUE) == 0
        assert await redis.get(keys.CLAIMS_BYTES) is None


async def test_a_caller_who_leaves_may_come_back_for_the_answer(
    api: Api, other: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    runner.working.clear()
    path = await api.make()
    first = asyncio.create_task(told(api, path))
    await eventually(lambda: redis.xlen(keys.CALLS_SYNC))
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    await asyncio.sleep(0.1)
    events: Any = await redis.xrange(keys.EVENTS)
    assert not events
    runner.working.set()
    status, headers, body = await told(other, path)
    assert (status, body, headers["Idempotent-Replayed"]) == (200, b"b", "true")
    assert len(runner.seen) == 1


async def test_a_replica_that_dies_takes_no_answer_along(
    redis_server: str, database: str, redis: streams.Redis, other: Api, runner: EchoRunner
) -> None:
    runner.working.clear()
    async with serving(redis_server, database) as dying:
        path = await dying.make()
        first = asyncio.create_task(told(dying, path))
        await eventually(lambda: redis.xlen(keys.CALLS_SYNC))
    with suppress(Exception, asyncio.CancelledError):
        await first
    waiting = asyncio.create_task(told(other, path))
    await asyncio.sleep(0.1)
    await redis.delete(*[key async for key in redis.scan_iter(f"{keys.reply('')}*")])
    runner.working.set()
    status, headers, body = await waiting
    assert (status, body, headers["Idempotent-Replayed"]) == (200, b"b", "true")
    assert len(runner.seen) == 1


async def test_an_async_call_is_accepted_once(api: Api, other: Api, redis: streams.Redis) -> None:
    path = await api.make(type="async")
    answers = await asyncio.gather(*(told(api if n % 2 else other, path) for n in range(20)))
    assert {status for status, _, _ in answers} == {202}
    assert len({body for _, _, body in answers}) == 1
    assert len({headers["X-Call-Id"] for _, headers, _ in answers}) == 1
    assert await redis.xlen(keys.CALLS_ASYNC) == 1
    assert await code(api, path, b"other") == (409, "idempotency_mismatch")
    assert await redis.xlen(keys.CALLS_ASYNC) == 1


async def test_a_large_parcel_with_a_key(api: Api, runner: EchoRunner) -> None:
    path = await api.make(type="async")
    body = b"x" * 100_000
    first, again = await told(api, path, body), await told(api, path, body)
    assert first[2] == again[2]

    async def ran() -> bool:
        return len(runner.seen) == 1 and runner.seen[0][1].payload == body

    await eventually(ran)


async def test_a_large_answer_is_not_kept_and_not_made_again(
    redis_server: str, database: str, runner: EchoRunner
) -> None:
    async with serving(redis_server, database, idempotency_answer_max_bytes=1000) as api:
        path = await api.make()
        assert (await told(api, path, b"x" * 2000))[0] == 200
        assert await code(api, path, b"x" * 2000) == (409, "idempotency_no_answer")
        small = {"Idempotency-Key": "small"}
        assert (await told(api, path, b"x" * 500, headers=small))[0] == 200
        assert (await told(api, path, b"x" * 500, headers=small))[0] == 200
    assert len(runner.seen) == 2


async def test_memory_is_bounded(
    redis_server: str, database: str, runner: EchoRunner, redis: streams.Redis
) -> None:
    async with serving(redis_server, database, idempotency_max_bytes=3000) as api:
        path = await api.make()
        statuses = [
            (await told(api, path, b"x" * 900, headers={"Idempotency-Key": f"k{n}"}))[0]
            for n in range(4)
        ]
        assert statuses == [200, 200, 503, 503]
        # The first answer is kept, the second was too much.
        assert (await told(api, path, b"x" * 900, headers={"Idempotency-Key": "k0"}))[0] == 200
        second = {"headers": {"Idempotency-Key": "k1"}}
        assert await code(api, path, b"x" * 900, **second) == (409, "idempotency_no_answer")
        assert (await told(api, path, headers={}))[0] == 200
    assert len(runner.seen) == 3
    await redis.execute_command(*scripts.sweep_claims(clock.epoch_ms() + 90_000_000, 1))
    assert await redis.zcard(keys.CLAIMS_DUE) == 1
    await redis.execute_command(*scripts.sweep_claims(clock.epoch_ms() + 90_000_000, 10))
    assert int(await redis.get(keys.CLAIMS_BYTES)) == 0
    assert [key async for key in redis.scan_iter(f"{keys.claim('')}*")] == []


async def test_a_key_is_forgotten_in_time(
    redis_server: str, database: str, runner: EchoRunner, redis: streams.Redis
) -> None:
    async with serving(redis_server, database, idempotency_ttl_s=1.0) as api:
        path = await api.make()
        first = await told(api, path)
        assert (await told(api, path))[1]["X-Call-Id"] == first[1]["X-Call-Id"]
        await asyncio.sleep(1.0)
        assert (await told(api, path, b"other"))[0] == 200
    assert len(runner.seen) == 2
    assert await redis.zcard(keys.CLAIMS_DUE) == 1


async def test_a_changed_app_is_read_anew(api: Api, other: Api, runner: EchoRunner) -> None:
    path = await api.make()
    assert (await told(other, path, headers={}))[0] == 200
    await api.json("PATCH", "/v1/apps/a", json={"app": {"config": {"A": "1"}}})
    assert (await told(other, path))[0] == 200
    assert runner.seen[-1][1].config_env == {"A": "1"}


async def test_calls_without_a_key_leave_nothing(
    api: Api, runner: EchoRunner, redis: streams.Redis
) -> None:
    path = await api.make()
    assert (await told(api, path, headers={}))[0] == 200
    assert runner.seen[0][0].once == ""
    assert await redis.exists(keys.CLAIMS_DUE, keys.CLAIMS_BYTES) == 0
