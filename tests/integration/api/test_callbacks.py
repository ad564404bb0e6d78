"""Who asked to be called back is, once the call has ended, whatever dies; and nobody else."""

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from services.api import guarded
from services.api.addresses import networks
from services.api.callback_rules import Next, Try
from services.api.callbacks import Callbacks
from services.api.database import Database
from services.api.migrating import migrate
from services.api.records import Records
from shared import ids, messages, streams
from tests.conftest import eventually
from tests.integration.api.invoking import Api, EchoRunner, serving

HERE = "127.0.0.1/32"


@dataclass
class Receiver:
    """Who is called back; answers as told first, and then with 204."""

    url: str = ""
    answers: list[web.Response] = field(default_factory=list)
    requests: list[tuple[str, Any, bytes]] = field(default_factory=list)
    #: Requests wait for this before they are answered.
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append((request.path_qs, request.headers, await request.read()))
        await self.open.wait()
        return self.answers.pop(0) if self.answers else web.Response(status=204)

    async def taken(self, count: int = 1) -> list[tuple[str, Any, bytes]]:
        async def enough() -> bool:
            return len(self.requests) >= count

        await eventually(enough, 15)
        return self.requests


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    made.open.set()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/done?a=b"
    yield made
    made.open.set()
    await runner.cleanup()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again after a moment."""
    monkeypatch.setattr("services.api.callback_rules.FIRST_PAUSE_MS", 50)
    monkeypatch.setattr("services.api.courier.LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("services.api.courier.LEASE_SLACK_MS", 500)


@pytest.fixture
async def calling(
    redis: streams.Redis,  # noqa: ARG001 (it empties Redis)
    redis_server: str,
    database: str,
) -> AsyncIterator[Api]:
    """A replica that may call back to this machine."""
    async with serving(redis_server, database, callback_allow_networks=HERE) as running:
        yield running


async def call(api: Api, path: str, url: str, body: bytes = b"b") -> str:
    headers = {"X-Callback-Url": url}
    status, answer = await api.json("POST", path, data=body, headers=headers)
    assert status == 202, answer
    return str(answer["call_id"])


async def shown(api: Api, call_id: str) -> Any:
    _, answer = await api.json("GET", f"/v1/calls/{call_id}?wait=10")
    return answer["call"]["callback"]


async def settled(api: Api, call_id: str, state: str = "delivered") -> Any:
    async def reached() -> Any:
        callback = await shown(api, call_id)
        return callback if callback and callback["state"] == state else None

    return await eventually(reached, 15)


def verified(secret: str, headers: Any, body: bytes) -> bool:
    """As docs/callbacks.md shows it."""
    stamp, *signatures = headers["X-Millrace-Signature"].split(",")
    signed = stamp.removeprefix("t=").encode() + b"." + body
    mine = "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(mine, each) for each in signatures)


async def test_the_result_is_posted_and_signed(
    calling: Api, runner: EchoRunner, receiver: Receiver
) -> None:
    path = await calling.make(type="async", headers={"Content-Type": ["application/json"]})
    call_id = await call(calling, path, receiver.url, b'{"a": 1}')
    [(target, headers, body)] = await receiver.taken()
    assert (target, body) == ("/done?a=b", b'{"a": 1}')
    expected = {
        "Content-Type": "application/json",
        "X-Call-Id": call_id,
        "X-Millrace-Delivery": call_id,
        "X-Millrace-Delivery-Attempt": "1",
        "X-Millrace-App": "a",
        "X-Millrace-Path": "/f",
        "X-Millrace-Status": "success",
        "X-Millrace-Attempt": "1",
    }
    assert {name: headers[name] for name in expected} == expected
    _, answer = await calling.json("GET", "/v1/apps/a/callback-secret")
    secret = answer["callback_secret"]["secret"]
    assert verified(secret, headers, body)
    assert not verified("another", headers, body)
    assert not verified(secret, headers, body + b" ")
    callback = await settled(calling, call_id)
    assert (callback["url"], callback["attempts"], callback["next_at"]) == (receiver.url, 1, None)
    assert [(one["status"], one["error"]) for one in callback["tries"]] == [(204, None)]
    assert len(runner.seen) == len(receiver.requests) == 1
    # The function knows nothing of it but the header.
    assert runner.seen[0][1].call_env["HEADER_X_CALLBACK_URL"] == receiver.url


async def test_a_failure_is_posted_as_a_problem(
    calling: Api, runner: EchoRunner, receiver: Receiver
) -> None:
    runner.function = lambda *_: messages.Failed("exit", "exit code 3", 3)
    call_id = await call(calling, await calling.make(type="async"), receiver.url)
    [(_, headers, body)] = await receiver.taken()
    assert json.loads(body) == {
        "request_id": call_id,
        "error": {"message": "exit code 3", "code": "exit", "fault": "function"},
    }
    assert (headers["X-Millrace-Status"], headers["X-Millrace-Code"]) == ("error", "exit")


async def test_a_busy_receiver_is_asked_again(
    calling: Api, runner: EchoRunner, receiver: Receiver
) -> None:
    assert runner.modes
    receiver.answers = [
        web.Response(status=503),
        web.Response(status=302, headers={"Location": receiver.url}),
        web.Response(status=429, headers={"Retry-After": "1"}),
    ]
    call_id = await call(calling, await calling.make(type="async"), receiver.url)
    callback = await settled(calling, call_id)
    assert [one["status"] for one in callback["tries"]] == [503, 302, 429, 204]
    assert "redirects are not followed" in callback["tries"][1]["error"]
    assert [r[1]["X-Millrace-Delivery-Attempt"] for r in receiver.requests] == ["1", "2", "3", "4"]
    assert len({r[1]["X-Millrace-Delivery"] for r in receiver.requests}) == 1
    waited = callback["tries"][3]["at"], callback["tries"][2]["at"]
    assert waited[0] > waited[1]


async def test_who_is_gone_is_left_alone(
    calling: Api, runner: EchoRunner, receiver: Receiver
) -> None:
    assert runner.modes
    receiver.answers = [web.Response(status=410)]
    call_id = await call(calling, await calling.make(type="async"), receiver.url)
    callback = await settled(calling, call_id, "failed")
    assert callback["tries"][0]["status"] == 410
    assert len(receiver.requests) == 1


async def test_nobody_is_asked_for_ever(
    redis_server: str, database: str, runner: EchoRunner, receiver: Receiver
) -> None:
    assert runner.modes
    receiver.answers = [web.Response(status=500)] * 100
    settings: dict[str, Any] = {"callback_allow_networks": HERE, "callback_retry_s": 0.4}
    async with serving(redis_server, database, **settings) as api:
        call_id = await call(api, await api.make(type="async"), receiver.url)
        callback = await settled(api, call_id, "failed")
    assert 2 <= len(callback["tries"]) == len(receiver.requests) <= 8


async def test_a_receiver_that_does_not_answer(
    redis_server: str, database: str, runner: EchoRunner, receiver: Receiver
) -> None:
    assert runner.modes
    receiver.open.clear()
    settings: dict[str, Any] = {"callback_allow_networks": HERE, "callback_timeout_s": 0.3}
    async with serving(redis_server, database, **settings) as api:
        call_id = await call(api, await api.make(type="async"), receiver.url)
        await receiver.taken(2)
        receiver.open.set()
        callback = await settled(api, call_id)
        assert callback["tries"][0]["error"] == "the receiver did not answer in time"


async def test_a_replica_dies_while_it_calls_back(
    redis_server: str, database: str, runner: EchoRunner, receiver: Receiver, redis: streams.Redis
) -> None:
    assert runner.modes
    assert await redis.ping()
    receiver.open.clear()
    settings: dict[str, Any] = {"callback_allow_networks": HERE, "callback_timeout_s": 0.5}
    async with serving(redis_server, database, **settings) as dying:
        call_id = await call(dying, await dying.make(type="async"), receiver.url)
        await receiver.taken(1)
    receiver.open.set()
    async with serving(redis_server, database, **settings) as other:
        callback = await settled(other, call_id)
    assert callback["attempts"] == 2
    assert [r[1]["X-Millrace-Delivery"] for r in receiver.requests] == [call_id, call_id]


async def test_each_of_many_is_called_back_once_by_two_replicas(
    calling: Api, redis_server: str, database: str, runner: EchoRunner, receiver: Receiver
) -> None:
    assert runner.modes
    async with serving(redis_server, database, callback_allow_networks=HERE) as other:
        path = await calling.make(type="async")
        made = [await call(calling if n % 2 else other, path, receiver.url) for n in range(60)]
        await receiver.taken(60)
        for call_id in made:
            await settled(calling, call_id)
    told = [headers["X-Call-Id"] for _, headers, _ in receiver.requests]
    assert sorted(told) == sorted(made)


async def test_a_slow_app_does_not_hold_up_another(
    redis_server: str, database: str, runner: EchoRunner, receiver: Receiver
) -> None:
    assert runner.modes
    quick = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", quick.take)
    quick.open.set()
    behind = web.AppRunner(application, access_log=None)
    await behind.setup()
    await web.TCPSite(behind, "127.0.0.1", 0).start()
    receiver.open.clear()
    settings: dict[str, Any] = {"callback_allow_networks": HERE, "callback_concurrency": 4}
    try:
        async with serving(redis_server, database, **settings) as api:
            slow = await api.make(type="async", app="slow")
            for _ in range(10):
                await call(api, slow, receiver.url)
            await receiver.taken(1)
            url = f"http://127.0.0.1:{behind.addresses[0][1]}/"
            await call(api, await api.make(type="async", app="quick"), url)
            await quick.taken(1)
            assert len(receiver.requests) == 1
            receiver.open.set()
            await receiver.taken(10)
    finally:
        await behind.cleanup()


async def test_where_callbacks_may_not_go(api: Api, runner: EchoRunner, receiver: Receiver) -> None:
    """By default not to this machine: not by figures, and not by a name that leads here."""
    path = await api.make(type="async")
    for url in (receiver.url, "ftp://example.com/", "https://user:pw@example.com/"):
        status, answer = await api.json("POST", path, headers={"X-Callback-Url": url})
        assert (status, answer["error"]["code"]) == (400, "callback_url")
        assert answer["error"]["message"].startswith("X-Callback-Url: ")
    assert not runner.seen
    call_id = await call(api, path, receiver.url.replace("127.0.0.1", "localhost"))

    async def tried() -> Any:
        callback = await shown(api, call_id)
        return callback if callback and callback["tries"] else None

    callback: Any = await eventually(tried, 15)
    assert "this machine, where callbacks do not go" in callback["tries"][0]["error"]
    assert callback["state"] == "due"
    assert not receiver.requests


async def test_a_sync_calls_header_is_the_functions_own(api: Api, runner: EchoRunner) -> None:
    path = await api.make()
    headers = {"X-Callback-Url": "file:///x"}
    async with api.ask("POST", path, data=b"b", headers=headers) as response:
        assert response.status == 200
    assert runner.seen[0][0].callback is None


async def test_with_a_key_there_is_one_callback(
    calling: Api, runner: EchoRunner, receiver: Receiver
) -> None:
    path = await calling.make(type="async")
    headers = {"X-Callback-Url": receiver.url, "Idempotency-Key": "k"}
    ids_ = set()
    for _ in range(3):
        status, answer = await calling.json("POST", path, data=b"b", headers=headers)
        assert status == 202
        ids_.add(answer["call_id"])
    [call_id] = ids_
    await settled(calling, call_id)
    assert len(runner.seen) == len(receiver.requests) == 1


async def test_secrets_are_changed_without_a_gap(calling: Api) -> None:
    assert (await calling.json("GET", "/v1/apps/a/callback-secret"))[0] == 404
    await calling.make()
    place = "/v1/apps/a/callback-secret"
    first = (await calling.json("GET", place))[1]["callback_secret"]
    assert first["secret"].startswith("mcs_")
    assert (first["previous"], first["previous_until"]) == (None, None)
    second = (await calling.json("POST", place))[1]["callback_secret"]
    assert (await calling.json("GET", place))[1]["callback_secret"] == second
    assert second["previous"] == first["secret"] != second["secret"]


# Below the API.


@pytest.fixture
async def opened(database: str) -> AsyncIterator[Database]:
    await asyncio.to_thread(migrate, database)
    pool = Database(database)
    yield pool
    await pool.close()


def a_record(**fields: Any) -> messages.Record:
    given = {
        "call_id": ids.new_call_id(),
        "status": "queued",
        "mode": "async",
        "app": "a",
        "path": "/p",
        "image": "img",
        "queued_ms": 1_700_000_000_000,
        "callback": messages.Callback("https://example.com/"),
    }
    return messages.Record(**{**given, **fields})


async def take(callbacks: Callbacks, now_ms: int, lease_ms: int = 1000) -> Any:
    return await callbacks.take(now_ms, lease_ms, most=10, of_each_app=10)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (2, 0, 2), (0, 2, 0)])
async def test_a_callback_is_due_at_the_end_whatever_the_order(
    opened: Database, order: tuple[int, ...]
) -> None:
    records, callbacks = Records(opened), Callbacks(opened)
    call_id = ids.new_call_id()
    queued = a_record(call_id=call_id)
    running = a_record(call_id=call_id, status="running", callback=None)
    told = messages.Callback("https://example.com/", "text/x")
    ended = a_record(call_id=call_id, status="success", finished_ms=5, callback=told)
    for number in order:
        await records.write([(queued, running, ended)[number]])
    assert await take(callbacks, 4) == []
    [taken] = await take(callbacks, 5)
    assert (taken.call_id, taken.number, taken.content_type) == (call_id, 1, "text/x")
    assert await callbacks.tried(taken, Try(6, 204), Next("delivered"))
    await records.write([ended])
    assert await take(callbacks, 10**15) == []


async def test_an_end_that_forgot_the_callback_is_found(opened: Database) -> None:
    records, callbacks = Records(opened), Callbacks(opened)
    queued = a_record()
    await records.write([queued])
    assert await callbacks.rouse_overlooked(9) == 0
    await records.write([a_record(call_id=queued.call_id, status="error", callback=None)])
    assert await take(callbacks, 10) == []
    assert await callbacks.rouse_overlooked(9) == 1
    assert [one.call_id for one in await take(callbacks, 10)] == [queued.call_id]


async def test_who_took_it_last_says_what_became_of_it(opened: Database) -> None:
    records, callbacks = Records(opened), Callbacks(opened)
    await records.write([a_record(status="success", finished_ms=5)])
    [slow] = await take(callbacks, 10)
    assert await take(callbacks, 1009) == []
    [quick] = await take(callbacks, 1010)
    assert (slow.number, quick.number) == (1, 2)
    assert not await callbacks.tried(slow, Try(11, 500, "no"), Next("failed"))
    assert await callbacks.tried(quick, Try(1011, 500, "no"), Next("due", 5000))
    assert await take(callbacks, 4999) == []
    [again] = await take(callbacks, 5000)
    assert again.tries == [Try(1011, 500, "no")]


async def test_two_take_no_row_twice(opened: Database) -> None:
    records, callbacks = Records(opened), Callbacks(opened)
    await records.write([a_record(status="success", finished_ms=5) for _ in range(40)])
    takings = await asyncio.gather(
        *(callbacks.take(10, 1000, most=10, of_each_app=10) for _ in range(8))
    )
    taken = [one.call_id for taking in takings for one in taking]
    assert len(taken) == len(set(taken))
    assert len(await take(callbacks, 10)) <= 40 - len(taken)


async def test_many_tries_are_remembered_by_their_ends(opened: Database) -> None:
    records, callbacks = Records(opened), Callbacks(opened)
    record = a_record(status="success", finished_ms=1)
    await records.write([record])
    for number in range(1, 61):
        [taken] = await take(callbacks, number)
        assert await callbacks.tried(taken, Try(number, 500, "no"), Next("due", number + 1))
    found = await callbacks.find(record.call_id)
    assert found is not None
    assert found.attempts == 60
    assert [one.at_ms for one in found.tries] == [*range(1, 6), *range(16, 61)]


# What a name leads to.


@pytest.fixture
def leading(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let names lead to these addresses, one after the other; gives the names asked for."""

    def lead(*answers: str) -> list[str]:
        asked: list[str] = []

        def look_up(host: str, port: int, _: int) -> list[Any]:
            address = answers[min(len(asked), len(answers) - 1)]
            asked.append(host)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            where = (address, port, 0, 0) if ":" in address else (address, port)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]

        monkeypatch.setattr("services.api.guarded.look_up", look_up)
        return asked

    return lead


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1", "fe80::1"],  # noqa: S104 (refused)
)
async def test_a_name_that_leads_inside(
    leading: Callable[..., list[str]], receiver: Receiver, address: str
) -> None:
    asked = leading(address)
    port = receiver.url.split(":")[2].split("/")[0]
    async with guarded.session((), 5) as session:
        with pytest.raises(aiohttp.ClientConnectorError, match="where callbacks do not go"):
            await session.post(f"http://innocent.example:{port}/", data=b"x")
    assert asked == ["innocent.example"]
    assert not receiver.requests


async def test_a_name_is_asked_once_and_its_address_kept(
    leading: Callable[..., list[str]], receiver: Receiver
) -> None:
    """What a name says a moment later (DNS rebinding) leads nowhere."""
    asked = leading("127.0.0.1", "10.0.0.1")
    port = receiver.url.split(":")[2].split("/")[0]
    async with guarded.session(networks(HERE), 5) as session:
        async with session.post(f"http://innocent.example:{port}/", data=b"x") as response:
            assert response.status == 204
        assert asked == ["innocent.example"]
        with pytest.raises(aiohttp.ClientConnectorError, match=r"10\.0\.0\.1 is a private"):
            await session.post(f"http://innocent.example:{port}/", data=b"x")
    assert asked == ["innocent.example"] * 2
    assert receiver.requests[0][1]["Host"] == f"innocent.example:{port}"


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost"])
async def test_other_ways_to_write_this_machine(receiver: Receiver, host: str) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    async with guarded.session((), 5) as session:
        with pytest.raises(aiohttp.ClientError, match=r"do not go|not a canonical"):
            await session.post(f"http://{host}:{port}/", data=b"x")
    assert not receiver.requests


async def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", receiver.url)
    monkeypatch.setenv("http_proxy", receiver.url)
    async with guarded.session(networks(HERE), 5) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post("http://10.0.0.1/", data=b"x")
    assert not receiver.requests
