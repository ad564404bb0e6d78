"""Do three hosts make one platform? Each has an engine and a network of its own (`hosts`).

The api, the scheduler and the data stores are on this machine. One play for all of these tests;
each leaves all hosts as it found them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import redis.asyncio as redis_asyncio

from services.runner.containers import SANDBOX_LABEL
from shared import clock, keys, timestamps
from tests.chaos import stores
from tests.conftest import MysqlServer, eventually
from tests.e2e import hosts, registries
from tests.e2e.callers import SLACK_S, calling
from tests.e2e.client import Answer, Client
from tests.e2e.conftest import show
from tests.e2e.hosts import Host, Lan
from tests.e2e.packed import Fn
from tests.e2e.platforms import Platform, Role, database

HOSTS = 3
#: What each host offers: room for four calls of 128 MB.
MEMORY_MB = 512
#: A host that is cut off is taken for lost after so long, and noticed a quarter second later.
LOST_S = 5.0
#: Of sync calls: the longest wait for a runner (the default) and the longest run; and how long an
#: engine is away.
CAPACITY_WAIT_S, TIMEOUT_S, AWAY_S = 30, 10, 4.0
#: Within so long it is known that an engine does not answer: a question, its patience, a heartbeat.
NOTICED_S = 5.0
#: A call that was given to a sandbox just when the runner was told as unable may begin later by so
#: much, by the clocks of two processes.
BOUNCE_MS = 200
SLEEP = 'read -r seconds; cat /proc/sys/kernel/random/uuid; exec sleep "$seconds"'


@dataclass
class Play:
    """The hosts and their platform."""

    lan: Lan
    platform: Platform
    hub: registries.Registry

    def push(self, image: str, name: str) -> str:
        """Push an image of this machine's to the hub; return its name on the hosts."""
        self.hub.push(image, f"{self.hub.address}/{name}")
        return f"{self.lan.gateway}:{self.hub.address.rpartition(':')[2]}/{name}"


@pytest.fixture(scope="module")
def play(
    _engine: None, mysql_server: MysqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Play]:
    """Three hosts, whose runners have joined by the address of Redis alone."""
    hosts.require()
    folder = tmp_path_factory.mktemp("hosts")
    with (
        stores.redis() as redis,
        database(mysql_server) as db_url,
        registries.running(folder) as hub,
        hosts.lan(HOSTS) as lan,
    ):
        at = urlsplit(redis.url)
        settings = {"RUNNER_MEMORY_MB": str(MEMORY_MB)}
        with Platform(db_url, f"redis://{lan.gateway}:{at.port}/0", folder, settings) as platform:
            services = [platform.add("api"), platform.add("scheduler")]
            services += [host.join(platform) for host in lan.hosts]
            for service in services:
                service.wait_ready()
            show(platform)
            yield Play(lan, platform, hub)
            for host in lan.hosts:
                host.mend()


@pytest.fixture
def client(play: Play, http: aiohttp.ClientSession) -> Client:
    return Client(http, play.platform.url)


@pytest.fixture
def fn(play: Play, tmp_path: Path) -> Fn:
    return Fn(tmp_path, {"API_URL": play.platform.url})


async def runners(client: Client) -> dict[str, dict[str, Any]]:
    """Return the runners by their names."""
    answer = await client.get("/v1/runners")
    return {runner["name"]: runner for runner in answer.json()["runners"]}


async def where(client: Client, answer: Answer) -> str:
    """Return the name of the host on which a call was run."""
    record = await client.ended(answer.call_id)
    return next(n for n, r in (await runners(client)).items() if r["id"] == record["runner"])


async def drained(fn: Fn, *drains: Host) -> None:
    """Have some hosts empty."""
    for host in drains:
        done = await asyncio.to_thread(fn, "runners", "drain", host.name, "--wait")
        assert done.code == 0, done.err
        assert done.out == f"{host.name} is empty\n"


async def undrained(fn: Fn, client: Client, *back: Host) -> None:
    """Have hosts take calls again."""
    for host in back:
        await asyncio.to_thread(fn.ok, "runners", "undrain", host.name)

    async def take_calls() -> bool:
        found = await runners(client)
        return not any(found[host.name]["draining"] for host in back)

    await eventually(take_calls, 10)


async def test_runners_join_by_the_address_of_redis_alone(
    play: Play, client: Client, fn: Fn
) -> None:
    found = await runners(client)
    assert {name: r["engine_id"] for name, r in found.items()} == {
        host.name: hosts.engine_id(host) for host in play.lan.hosts
    }
    assert len({r["engine_id"] for r in found.values()}) == HOSTS
    shown = await asyncio.to_thread(fn.ok, "runners")
    for host in play.lan.hosts:
        [line] = [line.split() for line in shown.splitlines() if host.name in line.split()]
        assert hosts.engine_id(host)[:12] in line
        assert "ready" in line


async def test_calls_are_spread_over_hosts_that_pull_the_image_from_the_hub(
    play: Play, client: Client, app: str, function_image: Callable[[str], str]
) -> None:
    """Calls of several routes go to who has most room; those of one, when its own host is full."""
    image = play.push(function_image(SLEEP), "spread:1")
    paths = [await client.deploy(app, f"/{number}", image) for number in range(HOSTS)]
    answers = await asyncio.gather(*(client.post(path, data=b"2\n") for path in paths))
    assert [a.status for a in answers] == [200] * HOSTS, [a.text for a in answers]
    assert len({await where(client, a) for a in answers}) == HOSTS
    many = HOSTS * MEMORY_MB // 128
    answers = await asyncio.gather(*(client.post(paths[0], data=b"2\n") for _ in range(many)))
    assert {a.status for a in answers} == {200}, [a.text for a in answers]
    counts = Counter([await where(client, a) for a in answers])
    assert set(counts.values()) == {many // HOSTS}, counts
    for host in play.lan.hosts:
        assert image in host.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()


async def test_a_warm_call_stays_where_its_sandbox_is(
    play: Play, client: Client, app: str, function_image: Callable[[str], str]
) -> None:
    image = play.push(function_image("exec cat"), "warm:1")
    path = await client.deploy(app, "/x", image)
    first = await where(client, await client.post(path, data=b"0"))
    for number in range(1, 10):
        answer = await client.post(path, data=b"%d" % number)
        assert (answer.status, answer.body) == (200, b"%d" % number)
        assert await where(client, answer) == first


async def test_a_call_goes_where_its_image_is_though_others_have_more_room(
    play: Play, client: Client, fn: Fn, app: str, function_image: Callable[[str], str]
) -> None:
    """No registry has it: on another host the call would fail."""
    image, there = function_image("exec cat # here alone"), play.lan.hosts[1]
    others = [host for host in play.lan.hosts if host is not there]
    busy = await client.deploy(app, "/busy", play.push(function_image(SLEEP), "busy:1"))
    await drained(fn, *others)
    held = [asyncio.create_task(client.post(busy, data=b"8\n")) for _ in range(2)]

    async def fuller() -> bool:
        return (await runners(client))[there.name]["running"] == len(held)

    await eventually(fuller, 20)
    await undrained(fn, client, *others)
    there.load(image)

    async def known() -> bool:
        return image in (await runners(client))[there.name]["images"]

    await eventually(known, 10)
    path = await client.deploy(app, "/x", image)
    answer = await client.post(path, data=b"hello")
    assert (answer.status, answer.body) == (200, b"hello"), answer.text
    assert await where(client, answer) == there.name
    assert {a.status for a in await asyncio.gather(*held)} == {200}


@dataclass
class Load:
    """Callers who call on and on."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        return [a.text for a in self.answers if a.status != 200]


@asynccontextmanager
async def load(client: Client, path: str, callers: int) -> AsyncIterator[Load]:
    """Have callers call one after the other while inside."""
    seen, over = Load(), asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            seen.answers.append(await client.post(path, data=b"0.2\n"))

    tasks = [asyncio.create_task(caller()) for _ in range(callers)]
    try:
        yield seen
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def restarted(play: Play, role: Role) -> None:
    """Stop a service and start it again."""
    service = play.platform.first(role)
    await asyncio.to_thread(play.platform.remove, service)
    service.start()
    await asyncio.to_thread(service.wait_ready)


async def has_sandboxes(client: Client, host: Host, path: str) -> bool:
    boxes = (await runners(client))[host.name]["sandboxes"]
    return any(box["path"] == path and box["idle"] for box in boxes)


async def test_a_host_is_emptied_under_load_and_no_call_fails(
    play: Play, client: Client, fn: Fn, app: str, function_image: Callable[[str], str]
) -> None:
    host, *others = play.lan.hosts
    image = play.push(function_image(SLEEP), "drain:1")
    await client.deploy(app, "/ready", image, memory=64, min_sandboxes=1)
    path = await client.deploy(app, "/x", image, memory=64)
    for each in play.lan.hosts:
        await eventually(lambda each=each: has_sandboxes(client, each, "/ready"), 30)
    async with load(client, path, callers=9) as seen:
        await eventually(lambda: asyncio.sleep(0, len(seen.answers) > 30), 30)
        await drained(fn, host)
        assert host.containers(SANDBOX_LABEL) == []
        await restarted(play, "scheduler")
        before = len(seen.answers)
        await eventually(lambda: asyncio.sleep(0, len(seen.answers) > before + 30), 30)
        assert (await runners(client))[host.name]["running"] == 0
        assert host.containers(SANDBOX_LABEL) == []
    assert not seen.failed
    await restarted(play, "api")
    found = await runners(client)
    assert {name: r["draining"] for name, r in found.items()} == {
        host.name: True, **{other.name: False for other in others},
    }  # fmt: skip
    await undrained(fn, client, host)
    await eventually(lambda: has_sandboxes(client, host, "/ready"), 30)
    await client.delete(f"/v1/apps/{app}/routes/ready")


@contextmanager
def cut_off(host: Host) -> Iterator[None]:
    host.cut()
    try:
        yield
    finally:
        host.mend()


@dataclass
class Watch:
    """On which hosts a call runs, as it was seen again and again."""

    lan: Lan
    seconds: str
    #: When, and where, in monotonic seconds.
    seen: list[tuple[float, set[str]]] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            found = await asyncio.to_thread(hosts.sleeping, self.lan, self.seconds)
            self.seen.append((clock.monotonic_s(), found))
            await asyncio.sleep(0.03)

    def last_s(self, host: Host) -> float:
        """Return when it was last seen on a host."""
        return max(at_s for at_s, found in self.seen if host.name in found)

    def first_elsewhere_s(self, host: Host) -> float:
        """Return when it was first seen on another host."""
        return min(at_s for at_s, found in self.seen if found - {host.name})


async def test_a_host_that_is_cut_off_stops_its_calls_before_others_take_them(
    play: Play, client: Client, fn: Fn, app: str, function_image: Callable[[str], str]
) -> None:
    host, *others = play.lan.hosts
    image = play.push(function_image(SLEEP), "cut:1")
    sync = await client.deploy(app, "/sync", image, memory=64, timeout=60)
    path = await client.deploy(app, "/async", image, memory=64, timeout=60, type="async")
    await drained(fn, *others)
    # One that lasts longer than the host may go unheard, one that ends on it meanwhile, unheard.
    long, short = [
        (await client.post(path, data=seconds)).json()["call_id"]
        for seconds in (b"12.345\n", b"2.345\n")
    ]
    caller = asyncio.create_task(client.post(sync, data=b"23.456\n"))
    watch = Watch(play.lan, "12.345")
    watching = asyncio.create_task(watch.run())
    for seconds in ("12.345", "2.345", "23.456"):
        await eventually(lambda seconds=seconds: runs(play, seconds), 20)
    with cut_off(host):
        cut_s = clock.monotonic_s()
        await undrained(fn, client, *others)
        answer = await caller
        took_s = clock.monotonic_s() - cut_s
        assert (answer.status, answer.code) == (502, "runner_lost"), answer.text
        assert took_s < LOST_S + 1.5
        done = [await client.ended(call_id) for call_id in (long, short)]
        watching.cancel()
        results = [(await client.get(f"/v1/calls/{i}/result")).body for i in (long, short)]
    assert [(d["status"], d["attempt"]) for d in done] == [("success", 2)] * 2, done
    assert watch.last_s(host) < watch.first_elsewhere_s(host)
    assert not any(len(found) > 1 for _, found in watch.seen), "two attempts ran at one time"
    lost = await client.ended(answer.call_id)

    async def is_back() -> bool:
        found = (await runners(client)).get(host.name, {})
        return bool(found) and found["seen_ago_ms"] < 3000 and found["running"] == 0

    await eventually(is_back, 20)
    await drained(fn, *others)
    back = await client.post(sync, data=b"0\n")
    assert back.status == 200, back.text
    assert await where(client, back) == host.name
    await undrained(fn, client, *others)
    # What the host had held of its late result is told by now, and changed nothing.
    await eventually(lambda: reclaimed(client, host), 20)
    assert [await client.ended(call_id) for call_id in (long, short)] == done
    assert [(await client.get(f"/v1/calls/{i}/result")).body for i in (long, short)] == results
    assert await client.ended(answer.call_id) == lost
    assert len(await client.calls(app)) == 4
    await eventually(lambda: balanced(play, client), 20)


@dataclass
class Accepted:
    """Async calls that are made all the time, and the ids of those that were accepted."""

    ids: list[str] = field(default_factory=list)


@asynccontextmanager
async def accepting(client: Client, path: str, body: bytes) -> AsyncIterator[Accepted]:
    """Make an async call ten times a second while inside; each must be accepted."""
    found, over = Accepted(), asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            answer = await client.post(path, data=body)
            assert answer.status == 202, answer.text
            found.ids.append(answer.json()["call_id"])
            await asyncio.sleep(0.1)

    task = asyncio.create_task(caller())
    try:
        yield found
    finally:
        over.set()
        await task


async def is_able(client: Client, host: Host) -> bool:
    return bool((await runners(client))[host.name]["able"])


async def begun_there(client: Client, app: str, host: Host, **query: str) -> list[int]:
    """Return when the calls that ran on a host were begun, in epoch milliseconds."""
    runner_id = (await runners(client))[host.name]["id"]
    found = await client.calls(app, limit="1000", **query)
    starts = [c["started_at"] for c in found if c["runner"] == runner_id and c["started_at"]]
    return [timestamps.parse(start) for start in starts]


async def takes_calls(client: Client, app: str, host: Host, since_ms: int) -> bool:
    begun_ms = await begun_there(client, app, host, path="/async")
    return max(begun_ms, default=0) > since_ms


@pytest.mark.parametrize("how", ["kill", "restart"])
async def test_an_engine_that_goes_under_load_loses_no_call_and_is_used_again(
    play: Play, client: Client, fn: Fn, app: str, function_image: Callable[[str], str], *, how: str
) -> None:
    host, *others = play.lan.hosts
    image = play.push(function_image(SLEEP), "engine:1")
    fields: dict[str, Any] = {"memory": 64, "timeout": TIMEOUT_S}
    later = fields | {"type": "async", "retry_delay": 1}
    sync = await client.deploy(app, "/sync", image, **fields)
    path = await client.deploy(app, "/async", image, **later)
    # Two that run for longer than the engine lets containers live.
    long_sync = await client.deploy(app, "/long", image, **fields | {"timeout": 60})
    long_path = await client.deploy(app, "/long-async", image, **later | {"timeout": 60})
    await drained(fn, *others)
    caller = asyncio.create_task(client.post(long_sync, data=b"35.25\n"))
    long_id = (await client.post(long_path, data=b"35.75\n")).json()["call_id"]
    for seconds in ("35.25", "35.75"):
        await eventually(lambda seconds=seconds: runs(play, seconds), 20)
    await undrained(fn, client, *others)
    async with (
        calling(client, sync, 9, b"0.5\n") as callers,
        accepting(client, path, b"1\n") as accepted,
    ):
        # Until something of both runs there.
        await eventually(lambda: takes_calls(client, app, host, 0), 30)
        await eventually(lambda: asyncio.sleep(0, len(accepted.ids) > 40), 30)
        gone_s = clock.monotonic_s()
        stop = host.kill_engine if how == "kill" else host.stop_engine
        stopping = asyncio.create_task(asyncio.to_thread(stop))
        # Before it has ended: Docker does so only when all containers have.
        await eventually(lambda: is_not_able(client, host), NOTICED_S)
        unable_s, unable_ms = clock.monotonic_s(), clock.wall_ms()
        answered_s = await callers.answered(CAPACITY_WAIT_S)
        await stopping
        stopped_s = clock.monotonic_s()
        await asyncio.sleep(AWAY_S)
        assert not await is_able(client, host)
        started_s, started_ms = clock.monotonic_s(), clock.wall_ms()
        await asyncio.to_thread(host.start_engine)
        await asyncio.to_thread(host.wait_for_engine)
        engine_s = clock.monotonic_s()
        await eventually(lambda: is_able(client, host), 20)
        able_s = clock.monotonic_s()
        await eventually(lambda: takes_calls(client, app, host, started_ms), 60)
        calls_s = clock.monotonic_s()
        await callers.answered(CAPACITY_WAIT_S)
    print(  # noqa: T201
        f"\n{how}: engine ended after {stopped_s - gone_s:.1f} s, unable after"
        f" {unable_s - gone_s:.1f} s, calls answered {answered_s:.1f} s later; from its start on:"
        f" it answered after {engine_s - started_s:.1f} s, able after {able_s - started_s:.1f} s,"
        f" calls run there after {calls_s - started_s:.1f} s; callers got"
        f" {Counter(call.answer.status for call in callers.went)},"
        f" slowest {callers.slowest_s():.1f} s; {len(accepted.ids)} async calls"
    )
    failed = [call.answer for call in callers.went if call.answer.status != 200]
    assert {answer.fault for answer in failed} <= {"platform"}, [a.text for a in failed]
    assert callers.slowest_s() < CAPACITY_WAIT_S + TIMEOUT_S + SLACK_S
    answer = await caller
    assert (answer.status, answer.code, answer.fault) == (503, "unavailable", "platform")
    again = await client.ended(long_id)
    assert (again["status"], again["attempt"]) == ("success", 2), again
    await all_succeeded(client, app, accepted)
    begun_ms = await begun_there(client, app, host)
    assert not [ms for ms in begun_ms if unable_ms + BOUNCE_MS < ms < started_ms]
    await eventually(lambda: nothing_ended(host), 150)
    await eventually(lambda: balanced(play, client), 30)


async def all_succeeded(client: Client, app: str, accepted: Accepted) -> None:
    """Check that each accepted call has run, and that all of an app are listed once."""
    done = [await client.ended(call_id) for call_id in accepted.ids]
    assert {d["status"] for d in done} == {"success"}, [d for d in done if d["status"] != "success"]
    listed = Counter(call["id"] for call in await client.calls(app, limit="1000"))
    assert set(accepted.ids) <= set(listed)
    assert set(listed.values()) == {1}


async def is_not_able(client: Client, host: Host) -> bool:
    return not await is_able(client, host)


async def nothing_ended(host: Host) -> bool:
    """Return whether its engine has no container that does not run: nobody needs such a one."""
    states = ("created", "exited", "dead")
    filters = [part for state in states for part in ("--filter", f"status={state}")]
    return not await asyncio.to_thread(host.docker, "ps", "-aq", *filters)


async def runs(play: Play, seconds: str) -> bool:
    return bool(await asyncio.to_thread(hosts.sleeping, play.lan, seconds))


async def reclaimed(client: Client, host: Host) -> bool:
    """Return whether a host's runner has told an outcome that was somebody else's by then."""
    assert host.runner is not None
    lines = (await client.at(host.runner.url).get("/metrics")).text.splitlines()
    count = next(li for li in lines if li.startswith("millrace_runner_reclaimed_total "))
    return float(count.split()[1]) >= 1


async def balanced(play: Play, client: Client) -> bool:
    """Return whether nothing is given out or under way any more, and nothing is left of it."""
    scheduler = play.platform.first("scheduler")
    lines = (await client.at(scheduler.url).get("/metrics")).text.splitlines()
    given = [
        line for line in lines
        if line.startswith(("millrace_engine_memory_mb", "millrace_engine_cpus"))
        and 'kind="reserved"' in line and not line.endswith(" 0.0")
    ]  # fmt: skip
    known = {runner["id"] for runner in (await runners(client)).values()}
    async with redis_asyncio.Redis.from_url(play.platform.mq_url) as redis:
        streams = [name.decode() async for name in redis.scan_iter(match=keys.runner("*"))]
        waiting = [await redis.xlen(s) for s in (*streams, keys.CALLS_ASYNC, keys.FINISHED)]
        parcels = [name async for name in redis.scan_iter(match=keys.parcel("*"))]
    boxes = sum(len(host.containers(SANDBOX_LABEL)) for host in play.lan.hosts)
    told = sum(
        box[state] for r in (await runners(client)).values()
        for box in r["sandboxes"] for state in ("idle", "busy", "starting")
    )  # fmt: skip
    return (
        not given
        and not any(waiting)
        and not parcels
        and {keys.runner(i) for i in known} == set(streams)
        and len(known) == HOSTS
        and boxes == told
    )
