"""A scheduler on a real Redis, with runners and an api that do no more than speak the protocol."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from services.scheduler.service import Service
from services.scheduler.settings import Settings
from shared import clock, ids, keys, messages, scripts, streams, tasks
from tests.conftest import eventually


class FakeRunner:
    """Beats, reads its stream, and answers when told to."""

    def __init__(self, redis: streams.Redis, **said: Any) -> None:
        self.redis = redis
        self.runner_id = ids.new_process_id("runner")
        self.said = {"engine_id": self.runner_id, "memory_mb": 1000, "cpus": 10.0, **said}
        self.stream = keys.runner(self.runner_id)
        self.got: dict[str, tuple[bytes, messages.CallHead, messages.Assignment]] = {}
        self.cancelled: list[str] = []
        self.reading = True
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await streams.make_group(self.redis, self.stream, keys.RUNNER_GROUP)
        self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._read())]

    async def die(self) -> None:
        """Stop at once, as by kill -9."""
        await tasks.end(*self._tasks)

    async def beat(self) -> None:
        said = messages.Heartbeat(
            runner_id=self.runner_id,
            sent_ms=clock.epoch_ms(),
            arch="amd64",
            running=len(self.got),
            **self.said,
        )
        raw = messages.encode(said)
        await self.redis.hset(keys.RUNNERS, self.runner_id, raw)
        await self.redis.xadd(keys.EVENTS, {"m": raw})

    async def finish(self, call_id: str) -> None:
        entry_id, head, _ = self.got.pop(call_id)
        record = messages.Record(
            call_id, "success", head.mode, head.app, head.path, head.image, head.accepted_ms
        )
        reply = messages.Reply(call_id, messages.Answered(b"ok"))
        await self.redis.execute_command(
            *scripts.end(self.stream, entry_id, record, reply, head.reply_to)
        )
        finished = messages.ExecutionFinished(self.runner_id, call_id)
        await self.redis.xadd(keys.EVENTS, {"m": messages.encode(finished)})

    async def _beat(self) -> None:
        while True:
            with contextlib.suppress(RedisConnectionError):
                await self.beat()
            await asyncio.sleep(0.5)

    async def _read(self) -> None:
        while True:
            if not self.reading:
                await asyncio.sleep(0.02)
                continue
            found: Any = None
            with contextlib.suppress(RedisConnectionError):
                found = await self.redis.xreadgroup(
                    keys.RUNNER_GROUP, "only", {self.stream: ">"}, count=100, block=20
                )
            for entry_id, fields in found[0][1] if found else []:
                self._take(entry_id, fields)

    def _take(self, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        if fields[b"k"] == b"cancel":
            self.cancelled.append(messages.decode(fields[b"m"], messages.Cancel).call_id)
            return
        head = messages.decode(fields[b"h"], messages.CallHead)
        assignment = messages.decode(fields[b"a"], messages.Assignment)
        messages.decode(fields[b"p"], messages.Parcel)
        assert head.call_id not in self.got
        self.got[head.call_id] = (entry_id, head, assignment)


class Bench:
    """What a test has at hand: an api's calls, runners, schedulers."""

    def __init__(self, redis: streams.Redis, url: str) -> None:
        self.redis, self.url = redis, url
        self.runners: list[FakeRunner] = []
        self.processes: list[asyncio.subprocess.Process] = []
        self.schedulers: list[tuple[asyncio.Task[None], streams.Outbox, streams.Redis]] = []

    async def call(self, mode: messages.Mode = "sync", **other: Any) -> str:
        now_ms = clock.epoch_ms()
        fields: dict[str, Any] = {
            "call_id": ids.new_call_id(),
            "app": "app",
            "path": "/p",
            "image": "image",
            "memory_mb": 100,
            "cpus": 1.0,
            "wait_until_ms": now_ms + 30_000 if mode == "sync" else 0,
            "deadline_ms": now_ms + 60_000 if mode == "sync" else 0,
            "reply_to": "api-1" if mode == "sync" else "",
        }
        head = messages.CallHead(
            mode=mode, accepted_ms=now_ms, timeout_ms=30_000, **{**fields, **other}
        )
        parcel = messages.Parcel({}, {}, b"payload")
        command = scripts.enqueue(
            head, parcel, catalog_version="0", queue_max=10**6, record=None, parcel_ttl_ms=0
        )
        assert await self.redis.execute_command(*command) not in (scripts.STALE, scripts.FULL)
        return head.call_id

    async def runner(self, **said: Any) -> FakeRunner:
        runner = FakeRunner(self.redis, **said)
        self.runners.append(runner)
        await runner.start()
        return runner

    async def scheduler(self, **settings: Any) -> asyncio.Task[None]:
        redis = streams.connect(self.url)
        outbox = await streams.Outbox(redis).__aenter__()
        service = Service(Settings(**settings), redis, outbox, ids.new_process_id("scheduler"))
        assert await service.readiness() is None
        task = asyncio.create_task(service.run())
        self.schedulers.append((task, outbox, redis))
        return task

    async def stop(self, task: asyncio.Task[None]) -> None:
        """Stop a scheduler as SIGTERM does."""
        await tasks.end(task)

    async def process(self, **environ: str) -> asyncio.subprocess.Process:
        """Start a scheduler as a process of its own."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.scheduler"),
            env={**os.environ, "MQ_URL": self.url, "PORT": "0", **environ},
            stderr=asyncio.subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    async def record_of(self, call_id: str) -> messages.Record | None:
        """The last record of a call."""
        found = None
        entries: Any = await self.redis.xrange(keys.FINISHED)
        for _, fields in entries:
            record = messages.decode(fields[b"m"], messages.Record)
            found = record if record.call_id == call_id else found
        return found

    async def dead(self) -> list[str]:
        """The calls that are to be kept as dead letters, each of them whole."""
        entries: Any = await self.redis.xrange(keys.FINISHED)
        found = [fields for _, fields in entries if b"h" in fields]
        for fields in found:
            messages.decode(fields[b"p"], messages.Parcel)
        return [messages.decode(fields[b"h"], messages.CallHead).call_id for fields in found]

    async def reply_to(self, call_id: str) -> messages.Reply | None:
        entries: Any = await self.redis.xrange(keys.reply("api-1"))
        for _, fields in entries:
            reply = messages.decode(fields[b"m"], messages.Reply)
            if reply.call_id == call_id:
                return reply
        return None

    async def tell(self, event: messages.Wire) -> None:
        await self.redis.xadd(keys.EVENTS, {"m": messages.encode(event)})

    async def failed(self, call_id: str) -> messages.Failed:
        """The error a caller got, once it is there."""
        reply = await eventually(lambda: self.reply_to(call_id))
        assert isinstance(reply, messages.Reply)
        assert isinstance(reply.outcome, messages.Failed)
        return reply.outcome


@pytest.fixture
async def bench(redis: streams.Redis, redis_server: str) -> AsyncIterator[Bench]:
    await redis.xadd(keys.reply("api-1"), {"m": messages.encode(messages.Cancel("none"))})
    await redis.xtrim(keys.reply("api-1"), maxlen=0)
    made = Bench(redis, redis_server)
    yield made
    for runner in made.runners:
        await runner.die()
    for process in made.processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    for task, outbox, client in made.schedulers:
        await made.stop(task)
        await outbox.__aexit__(None, None, None)
        await client.aclose()
