"""Does a whole runner do what the scheduler and the api rely on? Real Redis, real engine."""

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiodocker
import msgspec
import pytest

from services.runner import __main__ as process
from services.runner import containers, engine, janitor, sandbox
from services.runner.holders import Holders
from services.runner.service import Runner
from services.runner.settings import Settings
from services.runner.upkeep import Upkeep
from shared import clock, ids, keys, messages, scripts, streams
from tests.conftest import eventually
from tests.integration.runner.bench import DOCKER_HOST, NETWORK, PARCEL, head
from tests.integration.runner.functions import shell

API = "api-test"
MEMORY_MB = 2048
EVENT: Any = messages.Event


@dataclass
class Life:
    """A runner that lives in this process, and what the others see of it."""

    runner_id: str
    platform: str
    folder: Path
    runner: Runner
    holders: Holders
    redis: streams.Redis
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    left: bool = field(default=False)

    async def assign(
        self,
        call: messages.CallHead,
        parcel: messages.Parcel = PARCEL,
        *,
        epoch: int = 1,
        inline: bool = True,
    ) -> bytes:
        """Put a call into the runner's stream, as the scheduler's script does."""
        fields: dict[Any, Any] = {
            "k": "assign",
            "a": messages.encode(messages.Assignment(epoch, clock.epoch_ms())),
            "h": messages.encode(call),
        }
        if inline:
            fields["p"] = messages.encode(parcel)
        else:
            await self.redis.set(keys.parcel(call.call_id), messages.encode(parcel))
        entry_id: Any = await self.redis.xadd(keys.runner(self.runner_id), fields)
        return bytes(entry_id)

    async def cancel(self, call_id: str) -> None:
        message = messages.encode(messages.Cancel(call_id))
        await self.redis.xadd(keys.runner(self.runner_id), {"k": "cancel", "m": message})

    async def reply(self, call_id: str) -> messages.Reply:
        """Return the only reply to a call."""

        async def replies() -> list[messages.Reply]:
            raw: Any = await self.redis.xrange(keys.reply(API))
            found = [messages.decode(f[b"m"], messages.Reply) for _, f in raw if b"m" in f]
            return [reply for reply in found if reply.call_id == call_id]

        found: Any = await eventually(replies, 30)
        (only,) = found
        return only

    async def records(self, call_id: str) -> list[messages.Record]:
        raw: Any = await self.redis.xrange(keys.FINISHED)
        found = [messages.decode(f[b"m"], messages.Record) for _, f in raw]
        return [record for record in found if record.call_id == call_id]

    async def end(self, call_id: str) -> messages.Record:
        """Return the only last record of a call."""

        async def ends() -> list[messages.Record]:
            return [r for r in await self.records(call_id) if r.status in messages.ENDED]

        found: Any = await eventually(ends, 30)
        (only,) = found
        return only

    async def events(self, kind: type[Any]) -> list[Any]:
        raw: Any = await self.redis.xrange(keys.EVENTS)
        found = [messages.decode(f[b"m"], EVENT) for _, f in raw]
        return [event for event in found if isinstance(event, kind)]

    async def freed(self, call_id: str) -> None:
        """Wait until the call's capacity is free, and everything of it gone."""

        async def free() -> bool:
            events = await self.events(messages.ExecutionFinished)
            return call_id in [event.call_id for event in events]

        await eventually(free, 30)
        assert call_id not in self.runner.state.calls

    async def stream_is_empty(self) -> bool:
        stream = keys.runner(self.runner_id)
        pending: Any = await self.redis.xpending(stream, keys.RUNNER_GROUP)
        return await self.redis.xlen(stream) == 0 and pending["pending"] == 0

    async def heartbeat(self, wanted: Callable[[messages.Heartbeat], bool]) -> None:
        async def seen() -> bool:
            raw: Any = await self.redis.hget(keys.RUNNERS, self.runner_id)
            return raw is not None and wanted(messages.decode(raw, messages.Heartbeat))

        await eventually(seen, 20)

    async def leave(self) -> None:
        """Stop the runner as SIGTERM does."""
        self.stop.set()
        await self.task
        self.left = True


@asynccontextmanager
async def living(
    redis: streams.Redis, folder: sandbox.Places, docker_host: str = DOCKER_HOST, **changes: Any
) -> AsyncIterator[Life]:
    pool = redis.connection_pool.connection_kwargs
    configured = msgspec.convert(
        {
            "mq_url": f"redis://{pool['host']}:{pool['port']}",
            "platform_name": f"test-{secrets.token_hex(4)}",
            "docker_host": docker_host,
            "runner_folder": str(folder.here),
            "runner_network": NETWORK,
            "namespace_spares": 0,
            "drain_grace_s": 10.0,
            **changes,
        },
        Settings,
    )
    runner_id = ids.new_process_id("runner")
    owner = containers.Owner(configured.platform_name, runner_id)
    where = own_place(folder, runner_id)
    stop = asyncio.Event()
    async with process.connected_engine(configured) as real:
        info = await process.first_info(real, stop)
        async with process.world(configured, [], owner, real, starts=4, where=where) as world:
            runner = Runner(runner_id, configured, world, MEMORY_MB)
            upkeep = Upkeep(runner_id, configured, world, info, runner)
            task = asyncio.create_task(
                process.live(runner, upkeep, world, configured.drain_grace_s, stop)
            )
            life = Life(
                runner_id,
                configured.platform_name,
                where.here,
                runner,
                world.holders,
                redis,
                stop,
                task,
            )
            await redis.xadd(keys.reply(API), {"start": "1"})
            await life.heartbeat(lambda beat: beat.able)
            yield life
            if not life.left:
                await life.leave()
        assert await real.labelled(configured.platform_name) == []
    assert sorted(path.name for path in where.here.iterdir()) == ["init"]


def own_place(folder: sandbox.Places, runner_id: str) -> sandbox.Places:
    """Return a runner's own folder, made as its process makes it."""
    here = folder.here / janitor.folder_name(runner_id)
    here.mkdir()
    (here / "init").hardlink_to(folder.here / "init")
    return sandbox.Places(here, here)


@pytest.fixture
async def life(redis: streams.Redis, places: sandbox.Places) -> AsyncIterator[Life]:
    async with living(redis, places) as made:
        yield made


async def waiting(redis: streams.Redis) -> list[messages.CallHead]:
    """Return the async calls that wait."""
    raw: Any = await redis.xrange(keys.CALLS_ASYNC)
    return [messages.decode(fields[b"h"], messages.CallHead) for _, fields in raw]


def sync(image: str, **changes: Any) -> messages.CallHead:
    deadline_ms = clock.epoch_ms() + 60_000
    return head(image=image, **{"reply_to": API, "deadline_ms": deadline_ms, **changes})


def asynchronous(image: str, **changes: Any) -> messages.CallHead:
    return head(image=image, **{"mode": "async", "reply_to": "", **changes})


@pytest.mark.parametrize("inline", [True, False])
async def test_a_call_from_entry_to_reply(
    life: Life, docker: aiodocker.Docker, *, inline: bool
) -> None:
    call = sync(await shell(docker, "echo log >&2; cat"))
    payload = secrets.token_bytes(100_000)
    await life.assign(call, msgspec.structs.replace(PARCEL, payload=payload), inline=inline)
    reply = await life.reply(call.call_id)
    assert reply.outcome == messages.Answered(payload)
    assert reply.start_ms > 0
    record = await life.end(call.call_id)
    assert (record.status, record.log, record.attempt) == ("success", b"log\n", 1)
    assert record.digest.startswith("sha256:")
    assert record.runner_id == life.runner_id
    assert record.started_ms is not None
    assert record.finished_ms is not None
    await life.freed(call.call_id)
    await eventually(life.stream_is_empty)
    assert await life.redis.get(keys.parcel(call.call_id)) is None
    assert await life.redis.get(keys.COMPLETE) == b"1"


async def test_a_parcel_that_is_gone(life: Life) -> None:
    call = sync("x")
    await life.assign(call, inline=False)
    await life.redis.delete(keys.parcel(call.call_id))
    outcome = (await life.reply(call.call_id)).outcome
    assert isinstance(outcome, messages.Failed)
    assert outcome.code in {"internal", "image_pull"}


async def test_an_async_call_is_recorded_running_and_then_with_its_result(
    life: Life, docker: aiodocker.Docker
) -> None:
    call = asynchronous(await shell(docker, "sleep 0.1; echo result"))
    await life.assign(call)
    record = await life.end(call.call_id)
    assert (record.result, record.result_truncated) == (b"result\n", False)
    assert [r.status for r in await life.records(call.call_id)] == ["running", "success"]


async def test_a_timeout_is_answered_at_once(life: Life, docker: aiodocker.Docker) -> None:
    call = sync(await shell(docker, "echo waiting >&2; sleep 600"), timeout_ms=1500)
    await life.assign(call)
    reply = await life.reply(call.call_id)
    assert reply.outcome == messages.Failed("timeout", "Timed out")
    assert 1500 <= reply.run_ms < 2500
    record = await life.end(call.call_id)
    assert (record.code, record.log) == ("timeout", b"waiting\n")
    assert [r.status for r in await life.records(call.call_id)] == ["running", "error"]
    await life.freed(call.call_id)


async def test_a_deadline_holds_although_the_timeout_is_later(
    life: Life, docker: aiodocker.Docker
) -> None:
    call = sync(await shell(docker, "sleep 600"), deadline_ms=clock.epoch_ms() + 2000)
    await life.assign(call)
    outcome = (await life.reply(call.call_id)).outcome
    assert isinstance(outcome, messages.Failed)
    assert outcome.code == "deadline"
    await life.freed(call.call_id)


async def test_a_caller_who_leaves_stops_the_function(life: Life, docker: aiodocker.Docker) -> None:
    call = sync(await shell(docker, "sleep 600"))
    await life.assign(call)

    async def running() -> bool:
        return bool(await life.records(call.call_id))

    await eventually(running, 20)
    await life.cancel(call.call_id)
    record = await life.end(call.call_id)
    assert (record.status, record.code) == ("cancelled", "cancelled")
    await life.freed(call.call_id)
    await eventually(life.stream_is_empty)


async def test_an_entry_nobody_can_read_is_set_aside(life: Life, docker: aiodocker.Docker) -> None:
    await life.redis.xadd(keys.runner(life.runner_id), {"k": "nonsense"})

    async def aside() -> bool:
        return bool(await life.redis.xlen(keys.ASIDE))

    await eventually(aside)
    call = sync(await shell(docker, "echo fine"))
    await life.assign(call)
    assert (await life.reply(call.call_id)).outcome == messages.Answered(b"fine\n")
    await eventually(life.stream_is_empty)


async def test_an_assignment_of_an_older_reign_goes_back(
    life: Life, docker: aiodocker.Docker
) -> None:
    image = await shell(docker, "echo fine")
    first, second = sync(image), sync(image)
    await life.assign(first, epoch=5)
    await life.reply(first.call_id)
    await life.assign(second, epoch=4)

    async def back() -> Any:
        return await life.redis.xrange(keys.CALLS_SYNC)

    found: Any = await eventually(back)
    ((_, fields),) = found
    assert messages.decode(fields[b"h"], messages.CallHead) == second
    assert messages.decode(fields[b"p"], messages.Parcel) == PARCEL
    await life.freed(second.call_id)


async def test_draining_finishes_what_runs_and_hands_back_what_comes(
    life: Life, docker: aiodocker.Docker
) -> None:
    call = sync(await shell(docker, "sleep 3; echo done"))
    await life.assign(call)

    async def running() -> bool:
        return bool(await life.records(call.call_id))

    await eventually(running, 20)
    leaving = asyncio.create_task(life.leave())
    await life.heartbeat(lambda beat: beat.draining)
    late = sync(call.image)
    await life.assign(late)
    assert (await life.reply(call.call_id)).outcome == messages.Answered(b"done\n")
    await leaving
    assert await life.redis.xlen(keys.CALLS_SYNC) == 1
    assert [e.runner_id for e in await life.events(messages.RunnerGone)] == [life.runner_id]


async def test_what_does_not_finish_in_the_grace_goes_back_or_fails(
    redis: streams.Redis, docker: aiodocker.Docker, places: sandbox.Places
) -> None:
    async with living(redis, places, drain_grace_s=0.5) as life:
        image = await shell(docker, "sleep 600")
        kept, lost = asynchronous(image), sync(image)
        await life.assign(kept)
        await life.assign(lost)

        async def running() -> bool:
            return bool(await life.records(kept.call_id) and await life.records(lost.call_id))

        await eventually(running, 20)
        await life.leave()
        outcome = (await life.reply(lost.call_id)).outcome
        assert isinstance(outcome, messages.Failed)
        assert outcome.code == "runner_lost"
        assert [call.attempt for call in await waiting(redis)] == [2]


async def test_leftovers_are_removed_at_the_start_but_not_a_siblings(
    redis: streams.Redis,
    container_engine: engine.Engine,
    docker: aiodocker.Docker,
    places: sandbox.Places,
) -> None:
    platform = f"test-{secrets.token_hex(4)}"
    image = await shell(docker, "sleep 600")
    made = {}
    for runner_id in ("dead", "sibling"):
        labels = containers.Owner(platform, runner_id).labels()
        made[runner_id] = await container_engine.create({"Image": image, "Labels": labels})
        await container_engine.start(made[runner_id])
    beat = messages.Heartbeat("sibling", "e", clock.epoch_ms() + 60_000, 1, 1.0, "amd64")
    await redis.hset(keys.RUNNERS, "sibling", messages.encode(beat))
    try:
        async with living(redis, places, platform_name=platform):

            async def swept() -> bool:
                found = {f.container_id for f in await container_engine.labelled(platform)}
                assert made["sibling"] in found
                return made["dead"] not in found

            await eventually(swept)
            await container_engine.remove(made["sibling"])
    finally:
        for container_id in made.values():
            await container_engine.remove(container_id)


async def test_an_outcome_survives_an_absence_of_redis(
    life: Life, docker: aiodocker.Docker
) -> None:
    """Redis answers nothing for longer than a write waits: it is sent twice, and counts once."""
    call = sync(await shell(docker, "sleep 0.2; echo answer"))
    await life.assign(call)

    async def started() -> bool:
        return any(e.started_ms for e in life.runner.state.calls.values())

    await eventually(started, 20)
    await life.redis.execute_command("CLIENT", "PAUSE", "5700", "ALL")
    assert (await life.reply(call.call_id)).outcome == messages.Answered(b"answer\n")
    await life.freed(call.call_id)
    await life.end(call.call_id)
    await eventually(life.stream_is_empty)


class CuttableEngine:
    """A way to the engine that can be cut."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(DOCKER_HOST.removeprefix("unix://"))
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            for end in (back, writer):
                end.transport.abort()

    @staticmethod
    async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        if target.can_write_eof() and not target.is_closing():
            target.write_eof()


@pytest.mark.skipif(not DOCKER_HOST.startswith("unix://"), reason="cuts a unix socket")
async def test_an_engine_that_goes_and_comes_back(
    redis: streams.Redis, docker: aiodocker.Docker, tmp_path: Path, places: sandbox.Places
) -> None:
    way = CuttableEngine(tmp_path / "docker.sock")
    await way.connect()
    async with living(redis, places, docker_host=f"unix://{way.path}") as life:
        image = await shell(docker, "sleep 600")
        kept, lost = asynchronous(image), sync(image)
        await life.assign(kept)
        await life.assign(lost)

        async def running() -> bool:
            return bool(await life.records(kept.call_id) and await life.records(lost.call_id))

        await eventually(running, 20)
        await way.cut()
        outcome = (await life.reply(lost.call_id)).outcome
        assert isinstance(outcome, messages.Failed)
        assert outcome.code == "unavailable"
        await life.heartbeat(lambda beat: not beat.able)
        await life.freed(kept.call_id)
        assert [call.attempt for call in await waiting(redis)] == [2]
        await way.connect()
        await life.heartbeat(lambda beat: beat.able)
        again = sync(await shell(docker, "echo fine"))
        await life.assign(again)
        assert (await life.reply(again.call_id)).outcome == messages.Answered(b"fine\n")
        await remove_left_behind(life)
    await way.cut()


async def remove_left_behind(life: Life) -> None:
    """Remove what a runner could not while its engine was away; a later sweep would."""
    real = engine.Engine(DOCKER_HOST)
    for found in await real.labelled(life.platform):
        if found.container_id not in life.holders.known():
            await real.remove(found.container_id)
    await real.close()


async def test_an_entry_that_was_reclaimed_gets_no_second_end(
    life: Life, docker: aiodocker.Docker
) -> None:
    call = sync(await shell(docker, "sleep 1; echo late"))
    entry_id = await life.assign(call)

    async def started() -> bool:
        return any(e.started_ms for e in life.runner.state.calls.values())

    await eventually(started, 20)
    await life.redis.execute_command(*scripts.move_back(life.runner_id, entry_id, call))
    await life.freed(call.call_id)
    assert [r for r in await life.records(call.call_id) if r.status in messages.ENDED] == []


def test_bad_settings_end_the_process_with_one_line() -> None:
    environ = {"PATH": "/usr/bin", "PORT": "no", "RUNNER_PIDS": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "services.runner"], env=environ, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"PORT" in done.stderr
    assert b"RUNNER_PIDS" in done.stderr


def test_a_bad_docker_auth_is_not_shown() -> None:
    environ = {"PATH": "/usr/bin", "DOCKER_AUTH": "p4ssw0rd"}
    done = subprocess.run(
        [sys.executable, "-m", "services.runner"], env=environ, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"DOCKER_AUTH" in done.stderr
    assert b"p4ssw0rd" not in done.stderr
