"""How does the runner's state meet the world? Reads, calls the one door, performs, acknowledges.

Decides nothing: `state` does. One loop, so all of this is one task at a time, and the state has
one writer.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ClassVar

import msgspec
import structlog
from redis.exceptions import RedisError

from services.runner import environment, metrics, runs, state
from services.runner.alarms import Alarms
from services.runner.delivery import Delivery
from services.runner.entries import Taken, decode
from services.runner.sandbox import Sandbox, Unopened
from services.runner.settings import Settings
from services.runner.state import State
from services.runner.streamed import Sink
from services.runner.world import World
from shared import clock, keys, messages, retrying, scripts, streams
from shared.errors import Undecodable
from shared.metrics import UNDECODABLE

log = structlog.get_logger()

_READ_COUNT = 256
#: How long the last stopped runs may take to be cleared away when the runner leaves, in seconds.
_CLEAR_S = 15.0
_FAREWELL_S = 5.0
#: How often it is looked which alarms ring; so often the state is told that time passes while calls
#: wait for a sandbox, and after the second number otherwise.
_HURRIED_S, _CALM_S = 0.025, 0.25


class Runner:
    """One runner: owns its state, its sandboxes and all tasks."""

    def __init__(self, runner_id: str, settings: Settings, world: World, memory_mb: int) -> None:
        """`runner_id` is new with each start of the process; `memory_mb` is for sandboxes."""
        self._id, self._settings, self._world = runner_id, settings, world
        self._stream = keys.runner(runner_id)
        self._delivery = Delivery(world.outbox)
        #: Written here alone; others only look.
        self.state = State(
            runner_id,
            memory_mb=memory_mb,
            result_max_bytes=settings.result_max_bytes,
        )
        metrics.IN_PROGRESS.set_function(lambda: len(self.state.calls))
        metrics.ABLE.set_function(lambda: int(self.state.able))
        world.outbox.follow(lambda: len(self.state.calls))
        self._events: deque[state.Event] = deque()
        self._applying = False
        #: Monotonic seconds at which each call came whose outcome is not told yet.
        self._asked_s: dict[str, float] = {}
        self._alarms = Alarms()
        self._sandboxes: dict[str, Sandbox] = {}
        #: Entries whose calls have ended, until Redis knows.
        self._ending: set[bytes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._openings: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()
        #: Set when what a heartbeat says has changed.
        self.changed = asyncio.Event()

    # Life.

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, finish or hand back what is here."""
        log.info("draining", calls=len(self.state.calls), grace_s=grace_s)
        self.apply(state.DrainAsked())
        if not await self._gone_within(grace_s):
            self.apply(state.GraceOver())
            if not await self._gone_within(_CLEAR_S):
                log.error("calls_abandoned", call_ids=sorted(self.state.calls))

    async def farewell(self) -> None:
        """Let go of all sandboxes, and tell the scheduler that this runner is gone.

        To be called when no heartbeats go out any more.
        """
        for opening in self._openings:
            opening.cancel()
        await asyncio.gather(*self._openings, return_exceptions=True)
        removals = [self._world.sandboxes.remove(s) for s in self._sandboxes.values()]
        await asyncio.gather(*removals)
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._settled()
                gone = messages.RunnerGone(self._id, unstarted=not self.state.calls)
                forgotten = ("HDEL", keys.DRAINS, self._id)
                await self._delivery.deliver(forgotten, scripts.tell(gone))
        except TimeoutError:
            log.warning("farewell_unsent")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _gone_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._left.wait()
        except TimeoutError:
            return False
        return True

    async def _settled(self) -> None:
        """Wait until all that was to be delivered is; tasks may post as they end."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._delivery.settled()

    async def missing(self) -> str | None:
        """Say what is missing for this runner to be ready."""
        if self.state.leaving:
            return "draining"
        if not self.state.able:
            return "the container engine does not answer"
        try:
            async with asyncio.timeout(1.0):
                await self._world.redis.ping()
        except (RedisError, OSError):
            return "Redis does not answer"
        return None

    # Long-lived tasks.

    async def read(self) -> None:
        """Take entries of this runner's stream, for ever."""
        batches = streams.read_group(
            self._world.redis,
            self._stream,
            keys.RUNNER_GROUP,
            self._id,
            count=_READ_COUNT,
            own=True,
            crowd=lambda: len(self.state.calls),
        )
        async for batch in batches:
            self._take([entry for entry in batch if entry[0] not in self._ending])

    async def tick(self) -> None:
        """Tell the state that time passes, and for which call it is time, for ever."""
        calm_s = 0.0
        while True:
            await asyncio.sleep(_HURRIED_S)
            now_s = clock.monotonic_s()
            for call_id, alarm in self._alarms.due(now_s):
                self.apply(state.AlarmRang(call_id, alarm))
            if self.state.pool.hurried or now_s - calm_s > _CALM_S:
                calm_s = now_s
                self.apply(state.Ticked())

    def _take(self, entries: list[streams.Entry]) -> None:
        """Take entries in their order; of calls that come together it is decided together."""
        now_s = clock.monotonic_s()
        assigned: list[state.Assigned] = []
        for entry in entries:
            event = self._decoded(entry)
            if isinstance(event, state.Assigned):
                self._asked_s.setdefault(event.head.call_id, now_s)
                assigned.append(event)
                continue
            if assigned:
                self._assign(assigned)
                assigned = []
            if isinstance(event, Taken):
                self._go_on(event.more)
                self._delivery.post(self._deletion(entry[0]))
            elif event is not None:
                self.apply(event)
        if assigned:
            self._assign(assigned)

    def _decoded(self, entry: streams.Entry) -> state.Assigned | state.CallerLeft | Taken | None:
        try:
            return decode(entry)
        except Undecodable as error:
            self._set_aside(entry, error)
            return None

    def _assign(self, events: list[state.Assigned]) -> None:
        if len(events) == 1:
            self.apply(events[0])
        else:
            self.apply(state.AssignedTogether(tuple(events)))

    def _go_on(self, more: messages.More) -> None:
        execution = self.state.calls.get(more.call_id)
        sandbox = self._sandboxes.get(execution.sandbox_id) if execution else None
        if sandbox is not None:
            sandbox.more(more.taken_bytes)

    def _set_aside(self, entry: streams.Entry, error: Undecodable) -> None:
        UNDECODABLE.labels(self._stream).inc()
        log.error("entry_undecodable", entry_id=entry[0], error=error.message)
        self._delivery.post(streams.set_aside(self._stream, entry, error.message))
        self._delivery.post(self._deletion(entry[0]))

    # The door.

    def apply(self, event: state.Event) -> None:
        """Take an event through the door and do what the state commands.

        What happens while that is done waits for its turn, so that commands are never mixed.
        """
        self._events.append(event)
        if self._applying:
            return
        self._applying = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._applying = False

    def _handle(self, event: state.Event) -> None:
        try:
            commands = self.state.handle(event, clock.epoch_ms())
        except state.Impossible as error:
            log.exception("impossible", error=error.message)
            return
        for command in commands:
            self._deeds[type(command)](self, command)

    # Deeds.

    def _fetch(self, command: state.FetchParcel) -> None:
        self._spawn(self._do_fetch(command.call_id), "fetch")

    def _start(self, command: state.StartSandbox) -> None:
        opening = self._spawn(self._open(command), f"open {command.kind.app}{command.kind.path}")
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)
        self.changed.set()

    def _run(self, command: state.RunCall) -> None:
        head = command.head
        ends_ms = environment.ends_at_ms(clock.epoch_ms(), head.timeout_ms, head.deadline_ms)
        told_ms = clock.as_wall_ms(ends_ms)
        job = runs.Job(head, command.parcel, self._asked_s[head.call_id], told_ms)
        sink = Sink(self._id, head, self._world.outbox, self._ended, self._refused)
        self._sandboxes[command.sandbox_id].run(job, sink)

    def _ended(self, call_id: str, result: runs.Result, reusable: bool) -> None:  # noqa: FBT001
        if result.started_ms is not None:
            metrics.START_SECONDS.observe(result.start_ms / 1000)
            metrics.RUN_SECONDS.observe(result.run_ms / 1000)
        self.apply(state.RunEnded(call_id, result, reusable))

    def _refused(self, call_id: str) -> None:
        self.apply(state.RunRefused(call_id))

    def _stop(self, command: state.StopSandbox) -> None:
        self._sandboxes[command.sandbox_id].stop()

    def _remove(self, command: state.RemoveSandbox) -> None:
        sandbox = self._sandboxes.pop(command.sandbox_id, None)
        if sandbox is None:
            self.apply(state.SandboxGone(command.sandbox_id))
        else:
            self._spawn(self._do_remove(command.sandbox_id, sandbox), "remove")

    def _set_alarm(self, command: state.SetAlarm) -> None:
        due_s = clock.monotonic_s() + command.delay_ms / 1000
        self._alarms.set(command.call_id, command.alarm, due_s)

    def _send_record(self, command: state.SendRecord) -> None:
        self._delivery.post(scripts.note(command.record))

    def _end(self, command: state.EndCall) -> None:
        head, record, reply = command.head, command.record, command.reply
        self._let_go(head.call_id)
        if self._delivery.held_bytes > self._settings.held_max_bytes:
            record, reply = _lightened(record, reply)
        if command.dead:
            freed = messages.ExecutionFinished(self._id, head.call_id) if command.freed else None
            ending = scripts.bury(self._stream, command.entry_id, record, freed=freed)
        else:
            told, place = self._told_of(command)
            ending = scripts.end(
                self._stream,
                command.entry_id,
                record,
                reply,
                head.reply_to,
                told=told,
                place=place,
                once=head.once,
                counted=head.counted,
                has_run=True,
            )
        self._ending.add(command.entry_id)
        self._delivery.post(ending, partial(self._told, command))

    def _told_of(
        self, command: state.EndCall
    ) -> tuple[messages.ExecutionFinished | messages.PlaceKept | None, scripts.Place | None]:
        """Return what the scheduler is to know of an ended call, and the place that it leaves."""
        head, grant = command.head, command.grant
        if command.freed:
            place = scripts.Place(grant, head.sandbox_key) if grant else None
            return messages.ExecutionFinished(self._id, head.call_id, grant), place
        if not grant:
            return None, None
        return messages.PlaceKept(self._id, head.call_id, grant), scripts.Place(grant, "")

    def _told(self, command: state.EndCall, answer: Any) -> None:  # noqa: ANN401 (what Redis says)
        """Note that Redis knows of the end of a call; answer 0: it was somebody else's by then."""
        self._ending.discard(command.entry_id)
        head, code = command.head, command.record.code or "ok"
        metrics.ended(code).inc()
        if answer == 0:
            metrics.RECLAIMED.inc()
        elif answer == scripts.UNRECORDED:
            metrics.UNRECORDED.inc()
        if code != "ok":
            log.info(
                "call_ended",
                call_id=head.call_id,
                app=head.app,
                path=head.path,
                code=code,
                exit_code=command.record.exit_code,
                owned=answer != 0,
            )

    def _free(self, command: state.FreeCapacity) -> None:
        freed = messages.ExecutionFinished(self._id, command.call_id)
        self._delivery.post(scripts.tell(freed))

    def _hand_back(self, command: state.HandBack) -> None:
        """Put a call back among the waiting.

        That its capacity is free is told in the same step: were it told after, the scheduler could
        have assigned the call again by then, and would free the new reservation.
        """
        log.info("call_handed_back", call_id=command.head.call_id, why=command.why)
        metrics.HANDED_BACK.inc()
        execution = self.state.calls.get(command.head.call_id)
        if execution is None or execution.entry_id == command.entry_id:
            self._let_go(command.head.call_id)
        freed = messages.ExecutionFinished(self._id, command.head.call_id, command.grant)
        back = scripts.move_back(self._id, command.entry_id, command.head, freed)
        self._ending.add(command.entry_id)
        self._spawn(self._do_hand_back(command.entry_id, back), "hand back")

    def _try_again(self, command: state.TryAgain) -> None:
        head, failure = command.head, command.record.failures[0]
        log.info(
            "call_tried_again",
            call_id=head.call_id,
            app=head.app,
            path=head.path,
            code=failure.code,
            why=failure.message,
            attempt=head.attempt,
        )
        metrics.RETRIES.labels(failure.code).inc()
        if head.call_id not in self.state.calls:
            self._let_go(head.call_id)
        due_ms = 0
        if command.delayed:
            due_ms = retrying.due_ms(clock.epoch_ms(), head, random.random())  # noqa: S311 (jitter)
        freed = messages.ExecutionFinished(self._id, head.call_id)
        self._ending.add(command.entry_id)
        self._delivery.post(
            scripts.try_again(
                self._stream, command.entry_id, head, command.record, due_ms=due_ms, freed=freed
            ),
            lambda _: self._ending.discard(command.entry_id),
        )

    def _drop(self, command: state.DropEntry) -> None:
        self._delivery.post(self._deletion(command.entry_id))

    def _beat(self, _: state.Beat) -> None:
        self.changed.set()

    def _leave(self, _: state.Leave) -> None:
        self._left.set()

    _deeds: ClassVar[dict[type, Callable[["Runner", Any], None]]] = {
        state.FetchParcel: _fetch,
        state.StartSandbox: _start,
        state.RunCall: _run,
        state.StopSandbox: _stop,
        state.RemoveSandbox: _remove,
        state.SetAlarm: _set_alarm,
        state.SendRecord: _send_record,
        state.EndCall: _end,
        state.FreeCapacity: _free,
        state.HandBack: _hand_back,
        state.TryAgain: _try_again,
        state.DropEntry: _drop,
        state.Beat: _beat,
        state.Leave: _leave,
    }

    # Longer deeds, each a task.

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", task=task.get_name(), exc_info=task.exception())

    async def _open(self, command: state.StartSandbox) -> None:
        sandbox_id = command.sandbox_id
        useless = partial(self.apply, state.SandboxLost(sandbox_id))
        try:
            sandbox = await self._world.sandboxes.open(
                sandbox_id, command.kind, command.mode, useless
            )
        except Unopened as error:
            metrics.SANDBOXES_FAILED.inc()
            log.warning("sandbox_failed", image=command.kind.image, why=str(error.ending))
            self.apply(state.SandboxFailed(sandbox_id, error.ending, error.log))
            return
        self._sandboxes[sandbox_id] = sandbox
        metrics.SANDBOX_SECONDS.observe(sandbox.start_s)
        self.apply(state.SandboxReady(sandbox_id, sandbox.digest, sandbox.start_s * 1000))

    async def _do_remove(self, sandbox_id: str, sandbox: Sandbox) -> None:
        await self._world.sandboxes.remove(sandbox)
        self.apply(state.SandboxGone(sandbox_id))

    async def _do_fetch(self, call_id: str) -> None:
        """Get the parcel that was too large for its entry; as long as its call wants it."""
        backoff = streams.Backoff()
        while call_id in self.state.calls:
            try:
                raw: Any = await self._world.redis.get(keys.parcel(call_id))
                parcel = messages.decode(raw, messages.Parcel)
            except Undecodable as error:
                log.exception("parcel_missing", call_id=call_id, error=error.message)
                self.apply(state.ParcelFetched(call_id, None))
                return
            except (RedisError, OSError):
                await backoff.wait()
            else:
                self.apply(state.ParcelFetched(call_id, parcel))
                return

    async def _do_hand_back(self, entry_id: bytes, back: scripts.Command) -> None:
        await self._delivery.deliver(back)
        self._ending.discard(entry_id)

    def _let_go(self, call_id: str) -> None:
        """Forget what is only known of calls whose outcome is not told yet."""
        self._asked_s.pop(call_id, None)
        self._alarms.drop(call_id)

    def _deletion(self, entry_id: bytes) -> scripts.Command:
        return ("XDEL", self._stream, entry_id)


def _lightened(
    record: messages.Record, reply: messages.Reply | None
) -> tuple[messages.Record, messages.Reply | None]:
    """Return what is sent of an outcome when too many are held: all but what the function wrote."""
    lost = messages.Failed("unavailable", "Redis was away for so long that the answer was dropped.")
    record = msgspec.structs.replace(
        record, result=b"" if record.result else record.result,
        result_truncated=record.result_truncated or bool(record.result),
    )  # fmt: skip
    return record, msgspec.structs.replace(reply, outcome=lost) if reply else None
