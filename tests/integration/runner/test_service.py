"""Does a whole runner do what the scheduler and the api rely on? Real Redis, real engine."""

import asyncio
import json
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
from shared import clock, ids, keys, messages, scripts, streaming, streams
from tests.conftest import eventually
from tests.integration.runner.bench import DOCKER_HOST, NETWORK, PARCEL, head
from tests.integration.runner.functions import program, shell

API = "api-test"
MEMORY_MB = 2048
EVENT: Any = messages.Event
PART: Any = messages.ReplyPart


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

    async def more(self, call_id: str, taken_bytes: int) -> None:
        message = messages.encode(messages.More(call_id, taken_bytes))
        await self.redis.xadd(keys.runner(self.runner_id), {"k": "more", "m": message})

    async def cancel(self, call_id: str) -> None:
        message = messages.encode(messages.Cancel(call_id))
        await self.redis.xadd(keys.runner(self.runner_id), {"k": "cancel", "m": message})

    async def reply(self, call_id: str) -> messages.Reply:
        """Return the only reply to a call."""

        async def replies() -> list[messages.Reply]:
            parts = await self.parts(call_id)
            return [part for part in parts if isinstance(part, messages.Reply)]

        found: Any = await eventually(replies, 30)
        (only,) = found
        return only

    async def parts(self, call_id: str) -> list[messages.ReplyPart]:
        """Return what the api has been told of the answer to a call, in its order."""
        raw: Any = await self.redis.xrange(keys.reply(API))
        found = [messages.decode(f[b"m"], PART) for _, f in raw if b"m" in f]
        return [part for part in found if part.call_id == call_id]

    async def body(self, call_id: str) -> bytes:
        """Return what has come of a streamed answer."""
        parts = await self.parts(call_id)
        return b"".join(part.data for part in parts if isinstance(part, messages.StreamChunk))

    async def answer(self, image: str, **changes: Any) -> bytes:
        """Return the answer of a function to a call."""
        call = sync(image, **changes)
        await self.assign(call)
        outcome = (await self.reply(call.call_id)).outcome
        assert isinstance(outcome, messages.Answered), outcome
        await self.freed(call.call_id)
        return outcome.body

    async def code(self, image: str, payload: bytes, **changes: Any) -> str:
        """Return how a call ends: the code of its failure, or "ok"."""
        call = sync(image, **changes)
        await self.assign(call, msgspec.structs.replace(PARCEL, payload=payload))
        outcome = (await self.reply(call.call_id)).outcome
        return outcome.code if isinstance(outcome, messages.Failed) else "ok"

    async def running(self, call_id: str) -> None:
        """Wait until a call runs, and has done so for a while."""

        async def told() -> bool:
            return bool(await self.records(call_id))

        await eventually(told, 20)

    async def sandboxes(self, count: int) -> list[str]:
        """Wait until there are so many sandboxes in the engine; return their containers."""

        async def so_many() -> list[str] | None:
            async with engine_of(DOCKER_HOST) as real:
                found = await real.labelled(self.platform)
            ids = [one.container_id for one in found if one.sandbox_id]
            return [*ids, "all"] if len(ids) == count else None

        found: Any = await eventually(so_many, 20)
        return list(found[:-1])

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


@asynccontextmanager
async def engine_of(docker_host: str) -> AsyncIterator[engine.Engine]:
    real = engine.Engine(docker_host)
    yield real
    await real.close()


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
    assert outcome.code == "internal" or outcome.code.startswith("image_pull")


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
    await life.running(call.call_id)
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


async def test_a_stream_that_is_deleted_under_its_runner_costs_no_answer(
    life: Life, docker: aiodocker.Docker
) -> None:
    image = await shell(docker, "sleep 1; echo done")
    running = sync(image)
    await life.assign(running)
    await life.running(running.call_id)
    await life.redis.delete(keys.runner(life.runner_id))
    assert (await life.reply(running.call_id)).outcome == messages.Answered(b"done\n")
    assert await life.answer(image) == b"done\n"


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
    await life.running(call.call_id)
    leaving = asyncio.create_task(life.leave())
    await life.heartbeat(lambda beat: beat.draining)
    late = sync(call.image)
    await life.assign(late)
    assert (await life.reply(call.call_id)).outcome == messages.Answered(b"done\n")
    await leaving
    assert await life.redis.xlen(keys.CALLS_SYNC) == 1
    gone = [messages.RunnerGone(life.runner_id, unstarted=True)]
    assert await life.events(messages.RunnerGone) == gone


async def test_what_does_not_finish_in_the_grace_goes_back_or_fails(
    redis: streams.Redis, docker: aiodocker.Docker, places: sandbox.Places
) -> None:
    async with living(redis, places, drain_grace_s=0.5) as life:
        image = await shell(docker, "sleep 600")
        kept, lost = asynchronous(image), sync(image)
        await life.assign(kept)
        await life.assign(lost)
        await life.running(kept.call_id)
        await life.running(lost.call_id)
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
    """What runs goes on, for the engine is not on its way; what waits goes back at once."""
    way = CuttableEngine(tmp_path / "docker.sock")
    await way.connect()
    async with living(redis, places, docker_host=f"unix://{way.path}") as life:
        runs = sync(await shell(docker, "until test -e /tmp/go; do sleep 0.05; done; echo done"))
        await life.assign(runs)
        await life.running(runs.call_id)
        (container_id,) = await life.sandboxes(1)
        await way.cut()
        await life.heartbeat(lambda beat: not beat.able)
        image = await shell(docker, "echo fine")
        await life.assign(sync(image, path="/waits"))
        await life.assign(asynchronous(image, path="/waits"))
        await eventually(lambda: both_back(redis))
        await inside(docker, container_id, "touch /tmp/go")
        assert (await life.reply(runs.call_id)).outcome == messages.Answered(b"done\n")
        await way.connect()
        await life.heartbeat(lambda beat: beat.able)
        assert await life.answer(image, path="/again") == b"fine\n"
        await remove_left_behind(life)
    await way.cut()


async def both_back(redis: streams.Redis) -> bool:
    """Return whether a sync and an async call wait to be given to some runner, as they came."""
    there = [call.attempt for call in await waiting(redis)] == [1]
    return there and await redis.xlen(keys.CALLS_SYNC) == 1


async def test_calls_that_find_the_engine_gone_before_it_is_noticed_go_back(
    redis: streams.Redis, docker: aiodocker.Docker, tmp_path: Path, places: sandbox.Places
) -> None:
    way = CuttableEngine(tmp_path / "docker.sock")
    await way.connect()
    image = await shell(docker, "echo fine")
    async with living(redis, places, docker_host=f"unix://{way.path}") as life:
        await life.heartbeat(lambda beat: beat.able)
        assert await life.answer(image, path="/before") == b"fine\n"
        await way.cut()
        await life.assign(sync(image, path="/waits"))
        await life.assign(asynchronous(image, path="/waits"))
        await eventually(lambda: both_back(redis))
        await life.heartbeat(lambda beat: not beat.able)
        await way.connect()
        await life.heartbeat(lambda beat: beat.able)
        assert await life.answer(image, path="/again") == b"fine\n"
        await remove_left_behind(life)
    await way.cut()


async def inside(docker: aiodocker.Docker, container_id: str, script: str) -> None:
    """Do something in a sandbox from the outside."""
    done = await docker.containers.container(container_id).exec(["sh", "-c", script])
    await done.start(detach=True)


async def test_calls_whose_sandboxes_end_under_them(life: Life, docker: aiodocker.Docker) -> None:
    """As when their engine dies: the async one is run again, the sync one never."""
    image = await shell(docker, "sleep 600")
    kept, lost = asynchronous(image, path="/kept"), sync(image, path="/lost")
    for call in (kept, lost):
        await life.assign(call)
        await life.running(call.call_id)
    for container_id in await life.sandboxes(2):
        await docker.containers.container(container_id).kill()
    outcome = (await life.reply(lost.call_id)).outcome
    assert isinstance(outcome, messages.Failed)
    assert outcome.code == "unavailable"

    async def back() -> bool:
        raw = await life.redis.hget(keys.RETRIES, kept.call_id)
        return raw is not None and messages.decode(raw, messages.CallHead).attempt == 2

    await eventually(back, 20)
    await life.freed(kept.call_id)
    await life.freed(lost.call_id)
    await life.sandboxes(0)


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


# Sandboxes.


async def test_calls_of_a_route_follow_each_other_in_one_sandbox(
    life: Life, docker: aiodocker.Docker
) -> None:
    image = await shell(docker, "cat /tmp/left 2>/dev/null; echo $CALL >> /tmp/left")
    assert [await life.answer(image) for _ in range(3)] == [b"", b"\n", b"\n\n"]
    await life.sandboxes(1)
    await life.heartbeat(lambda beat: [s.idle for s in beat.sandboxes] == [1])


async def test_each_call_gets_a_sandbox_of_its_own_if_its_route_says_so(
    life: Life, docker: aiodocker.Docker
) -> None:
    image = await shell(docker, "cat /tmp/left 2>/dev/null; echo x > /tmp/left")
    answers = [await life.answer(image, isolation="call") for _ in range(4)]
    assert answers == [b""] * 4


async def test_an_idle_sandbox_goes_after_its_time(life: Life, docker: aiodocker.Docker) -> None:
    call = sync(await shell(docker, "echo fine"))
    await life.assign(call, msgspec.structs.replace(PARCEL, idle_timeout_s=1))
    await life.reply(call.call_id)
    await life.sandboxes(1)
    await life.sandboxes(0)
    await life.heartbeat(lambda beat: not beat.sandboxes)


async def test_sandboxes_are_kept_ready(life: Life, docker: aiodocker.Docker) -> None:
    image = await shell(docker, "echo fine")
    wanted = messages.Wanted(
        "app", "/p", image, 64, 1.0, "default", "sandbox", 0, "key", 1, {}, 1, 2
    )
    await life.redis.hset(keys.WANTED, "app\n/p", messages.encode(wanted))
    await life.heartbeat(lambda beat: [s.idle for s in beat.sandboxes] == [2])
    made = set(await life.sandboxes(2))
    assert await life.answer(image, sandbox_key="key", revision=1) == b"fine\n"
    for container_id in made:
        await docker.containers.container(container_id).kill()

    async def made_anew() -> bool:
        return not made & set(await life.sandboxes(2))

    await eventually(made_anew, 20)
    await life.redis.hdel(keys.WANTED, "app\n/p")
    await life.sandboxes(0)


async def test_a_changed_route_gets_new_sandboxes(life: Life, docker: aiodocker.Docker) -> None:
    """Calls of the old one that run are not disturbed."""
    image = await shell(docker, "sleep $S; echo $A")
    old = sync(image, sandbox_key="old", revision=1)
    await life.assign(old, msgspec.structs.replace(PARCEL, config_env={"A": "1", "S": "2"}))
    await life.running(old.call_id)
    new = sync(image, sandbox_key="new", revision=2)
    await life.assign(new, msgspec.structs.replace(PARCEL, config_env={"A": "2", "S": "0"}))
    assert (await life.reply(new.call_id)).outcome == messages.Answered(b"2\n")
    assert (await life.reply(old.call_id)).outcome == messages.Answered(b"1\n")
    await life.heartbeat(lambda beat: [s.sandbox_key for s in beat.sandboxes] == ["new"])
    await life.sandboxes(1)


async def test_an_image_built_anew_gets_new_sandboxes(life: Life, docker: aiodocker.Docker) -> None:
    name = f"millrace-test/anew-{secrets.token_hex(4)}"
    for word in ("one", "two"):
        made = await shell(docker, f"echo {word}")
        await docker.images.tag(made, name, tag="1")

        async def answers(expected: bytes = f"{word}\n".encode()) -> bool:
            return await life.answer(f"{name}:1") == expected

        await eventually(answers, 20)
    await life.sandboxes(1)
    await docker.images.delete(f"{name}:1")


async def test_a_caller_who_leaves_before_the_sandbox_is_there(
    life: Life, docker: aiodocker.Docker
) -> None:
    """Nothing of its call is run."""
    image = await program(docker, "puppet")
    config = {"PUPPET_START": json.dumps([("sleep", 1.0)])}
    call = sync(image, format="http-stream")
    await life.assign(call, msgspec.structs.replace(PARCEL, config_env=config))
    await life.sandboxes(1)
    await life.cancel(call.call_id)
    record = await life.end(call.call_id)
    assert (record.status, record.code, record.started_ms) == ("cancelled", "cancelled", None)
    await life.freed(call.call_id)


async def test_a_burst_of_calls_to_a_new_route(life: Life, docker: aiodocker.Docker) -> None:
    image = await shell(docker, "cat")
    calls = [sync(image) for _ in range(64)]
    for call in calls:
        parcel = msgspec.structs.replace(PARCEL, payload=call.call_id.encode())
        await life.assign(call, parcel)
    for call in calls:
        reply = await life.reply(call.call_id)
        assert reply.outcome == messages.Answered(call.call_id.encode())


# Functions that live on.


def does(*steps: tuple[str, Any]) -> bytes:
    return json.dumps({"steps": steps}).encode()


@pytest.mark.parametrize("how", ["http", "json", "http-stream"])
async def test_how_calls_of_a_function_that_lives_on_may_end(
    life: Life, docker: aiodocker.Docker, how: str
) -> None:
    """Each has its code, and none harms the call after it."""
    image = await program(docker, "puppet")
    nonsense = ("write", "bm9uc2Vuc2UK")
    harms = {
        "exit": does(("exit", 3)),
        "signal": does(("kill", 9)),
        "out_of_memory": does(("memory", 0)),
        "bad_answer": does(nonsense),
        "timeout": does(("sleep", 600)),
    }
    for code, payload in harms.items():
        timeout_ms = 1000 if code == "timeout" else 30_000
        assert await life.code(image, payload, format=how, timeout_ms=timeout_ms) == code
        assert await life.code(image, b"fine", format=how) == "ok"


@pytest.mark.parametrize("how", ["http", "json", "http-stream"])
async def test_a_function_that_exits_when_it_is_idle_is_started_again(
    life: Life, docker: aiodocker.Docker, how: str
) -> None:
    """Also if a call has been given to it by then."""
    image = await program(docker, "puppet")
    for delay_s in (0.0, 0.001, 0.003, 0.01, 0.03):
        leaving = does(("answer", "fine"), ("sleep", delay_s), ("exit", 3))
        assert await life.code(image, leaving, format=how) == "ok"
        if how != "http-stream":
            assert await life.code(image, b"next", format=how) == "ok"
        else:
            # A connection does not say whether what went into it was read.
            assert await life.code(image, b"next", format=how) in {"ok", "exit"}


async def test_a_function_that_cannot_even_start_is_not_tried_for_ever(
    life: Life, docker: aiodocker.Docker
) -> None:
    image = await program(docker, "puppet", "ENV PUPPET_START='[[\"exit\", 3]]'")
    for how in ("http", "json", "http-stream"):
        assert await life.code(image, b"x", format=how, path=f"/{how}") == "exit"


@pytest.mark.parametrize("how", ["http", "http-stream"])
async def test_a_streamed_answer_goes_on_as_it_is_taken(
    life: Life, docker: aiodocker.Docker, how: str
) -> None:
    call = sync(await program(docker, "puppet"), format=how)
    size = 4 * 1024 * 1024
    payload = does(("begin", "a/b"), ("chunks", (size // 1024, 1024)), ("write", "MA0KDQo="))
    await life.assign(call, msgspec.structs.replace(PARCEL, payload=payload))
    taken = 0
    while taken < size:

        async def stopped(before: int = taken) -> int | None:
            got = len(await life.body(call.call_id))
            return got if got >= min(before + streaming.WINDOW_BYTES, size) else None

        got: Any = await eventually(stopped, 20)
        assert got < taken + streaming.UNTAKEN_MAX_BYTES
        taken = got
        await life.more(call.call_id, taken)
    begun, *_ = await life.parts(call.call_id)
    assert isinstance(begun, messages.StreamHead)
    assert (begun.runner_id, begun.status) == (life.runner_id, 200)
    assert (await life.reply(call.call_id)).outcome == messages.Answered(b"", 200, begun.headers)
    await life.freed(call.call_id)
    await eventually(life.stream_is_empty)


async def test_a_caller_who_leaves_stops_a_streamed_answer(
    life: Life, docker: aiodocker.Docker
) -> None:
    call = sync(await program(docker, "puppet"), format="http")
    payload = does(("begin", "a/b"), ("chunks", (99_999, 1024)))
    await life.assign(call, msgspec.structs.replace(PARCEL, payload=payload))

    async def begun() -> bool:
        return len(await life.body(call.call_id)) >= streaming.WINDOW_BYTES

    await eventually(begun, 20)
    await life.cancel(call.call_id)
    assert (await life.end(call.call_id)).code == "cancelled"
    await life.freed(call.call_id)


# The process.


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
