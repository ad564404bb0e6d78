"""What do tests of invocation share? An api replica on real stores, and a fake of the far side."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web

from services.api import entrance
from services.api.app import build_app
from services.api.settings import Settings
from shared import clock, keys, messages, retrying, scripts, streams, tasks
from tests.conftest import eventually

RUNNER_ID = "r1"

#: What a fake function answers to a call.
Function = Callable[[messages.CallHead, messages.Parcel], messages.Outcome]


def echo(_: messages.CallHead, parcel: messages.Parcel) -> messages.Outcome:
    """Answer with what came in."""
    return messages.Answered(parcel.payload)


@dataclass
class EchoRunner:
    """Scheduler and runner in one: takes calls in order and ends each as `function` says.

    Only those whose mode is in `modes`; while it is not `working`, calls wait.
    """

    redis: streams.Redis
    function: Function = echo
    modes: tuple[str, ...] = ("sync", "async")
    seen: list[tuple[messages.CallHead, messages.Parcel]] = field(default_factory=list)
    working: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self.working.set()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await tasks.end(self._task)

    async def _run(self) -> None:
        positions = {keys.calls(mode): "0-0" for mode in self.modes}
        async with streams.Tail(self.redis) as tail:
            while True:
                found = await tail.read(positions, count=100)
                for stream, entries in found.items():
                    for entry in entries:
                        await self.working.wait()
                        await self._end(stream, entry)

    async def _end(self, stream: str, entry: streams.Entry) -> None:
        head = messages.decode(entry[1][b"h"], messages.CallHead)
        raw = entry[1].get(b"p") or await self.redis.get(keys.parcel(head.call_id))
        parcel = messages.decode(raw, messages.Parcel)
        self.seen.append((head, parcel))
        command = self._command(stream, entry[0], head, self.function(head, parcel))
        if not await self.redis.execute_command(*command):
            self.seen.pop()  # somebody else has taken it

    def _command(
        self, stream: str, entry_id: bytes, head: messages.CallHead, outcome: messages.Outcome
    ) -> scripts.Command:
        record = _record(head, outcome)
        if isinstance(outcome, messages.Failed):
            if again := retrying.next_attempt(head, outcome.code):
                failure = messages.Attempt(
                    head.attempt, outcome.code, outcome.message, clock.epoch_ms(), log=b"noted\n"
                )
                waiting, due_ms = retrying.waiting_record(again, failure), clock.epoch_ms()
                return scripts.try_again(stream, entry_id, again, waiting, due_ms=due_ms)
            if retrying.is_kept(head, outcome.code):
                return scripts.bury(stream, entry_id, record)
        reply = messages.Reply(head.call_id, outcome, start_ms=1.0, run_ms=2.0)
        return scripts.end(
            stream, entry_id, record, reply, head.reply_to, once=head.once, counted=head.counted
        )


@dataclass
class Streaming:
    """A sync call that a test answers part by part, as a runner would."""

    redis: streams.Redis
    entry_id: bytes
    head: messages.CallHead
    sent_bytes: int = 0

    @classmethod
    async def next(cls, redis: streams.Redis) -> "Streaming":
        """Return the call that has waited longest, as soon as there is one."""

        async def waiting() -> Any:
            return await redis.xrange(keys.CALLS_SYNC, count=1)

        found: Any = await eventually(waiting)
        [(entry_id, fields)] = found
        await streams.make_group(redis, keys.runner(RUNNER_ID), keys.RUNNER_GROUP)
        return cls(redis, entry_id, messages.decode(fields[b"h"], messages.CallHead))

    async def begin(self, status: int = 200, *headers: tuple[str, str]) -> None:
        """Send the answer's head."""
        await self._send(messages.StreamHead(self.head.call_id, RUNNER_ID, status, headers))

    async def send(self, *chunks: bytes) -> None:
        """Send bytes, whatever the caller has taken."""
        for data in chunks:
            await self._send(messages.StreamChunk(self.head.call_id, data))
            self.sent_bytes += len(data)

    async def _send(self, part: messages.StreamHead | messages.StreamChunk) -> None:
        await self.redis.execute_command(*scripts.reply_part(self.head.reply_to, part))

    async def end(self, outcome: messages.Outcome | None = None) -> None:
        """End the answer, well if nothing else is said."""
        outcome = outcome or messages.Answered(b"")
        reply = messages.Reply(self.head.call_id, outcome)
        record = _record(self.head, outcome)
        await self.redis.execute_command(
            *scripts.end(keys.CALLS_SYNC, self.entry_id, record, reply, self.head.reply_to)
        )

    async def taken_bytes(self) -> int:
        """Return how much the api says that the caller has taken."""
        entries: Any = await self.redis.xrange(keys.runner(RUNNER_ID))
        said = [messages.decode(fields[b"m"], messages.More) for _, fields in entries]
        assert {more.call_id for more in said} <= {self.head.call_id}
        return max((more.taken_bytes for more in said), default=0)

    async def was_cancelled(self) -> bool:
        """Tell whether the scheduler was told to stop the call."""
        told: Any = await self.redis.xrange(keys.EVENTS)
        events: list[messages.Event] = [
            messages.decode(fields[b"m"], messages.Event) for _, fields in told
        ]
        return messages.CancelCall(self.head.call_id, RUNNER_ID) in events


def _record(head: messages.CallHead, outcome: messages.Outcome) -> messages.Record:
    failed = isinstance(outcome, messages.Failed)
    return messages.Record(
        call_id=head.call_id,
        status="error" if failed else "success",
        mode=head.mode,
        app=head.app,
        path=head.path,
        image=head.image,
        queued_ms=head.accepted_ms,
        started_ms=head.accepted_ms,
        finished_ms=clock.epoch_ms(),
        code=outcome.code if isinstance(outcome, messages.Failed) else "",
        attempt=head.attempt,
        message=outcome.message if isinstance(outcome, messages.Failed) else "",
        log=b"noted\n",
        callback=head.callback,
        result=outcome.body
        if isinstance(outcome, messages.Answered) and head.mode == "async"
        else None,
    )


@dataclass
class Api:
    """One replica, as a client sees it."""

    url: str
    session: aiohttp.ClientSession

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Return a request to be awaited or entered."""
        return self.session.request(method, self.url + path, **more)

    async def json(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        """Return status and JSON of the answer."""
        async with self.ask(method, path, **more) as response:
            return response.status, await response.json(content_type=None)

    async def make(self, path: str = "/f", app: str = "a", **route: Any) -> str:
        """Make a route; return the path that calls it."""
        body = {"route": {"path": path, "image": "img", **route}}
        status, answer = await self.json("POST", f"/v1/apps/{app}/routes", json=body)
        assert status == 200, answer
        return f"/r/{app}{path}"


@asynccontextmanager
async def serving(redis_url: str, database: str, **settings: Any) -> AsyncIterator[Api]:
    """Run an api replica until left."""
    app = build_app(Settings(mq_url=redis_url, db_url=database, **settings))
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        max_line_size=65536,
        max_field_size=262144,
        shutdown_timeout=1,
    )
    await entrance.set_up(runner)
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Api(f"http://127.0.0.1:{port}", session)
    finally:
        await runner.cleanup()
