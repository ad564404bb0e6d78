"""How does the runner's state meet the world? Reads, calls the one door, performs, acknowledges.

Decides nothing: `state` does. One loop, so all of this is one task at a time, and the state has
one writer.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from redis.exceptions import RedisError

from services.runner import metrics, runs, state
from services.runner.delivery import Delivery
from services.runner.entries import decode
from services.runner.settings import Settings
from services.runner.state import State
from services.runner.world import World
from shared import clock, keys, messages, scripts, streams
from shared.errors import Undecodable
from shared.metrics import UNDECODABLE

log = structlog.get_logger()

_READ_COUNT = 64
#: How long the last stopped runs may take to be cleared away when the runner leaves, in seconds.
_CLEAR_S = 15.0
_FAREWELL_S = 5.0


@dataclass(slots=True)
class _Hand:
    """What the service holds of one call."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    alarms: list[asyncio.TimerHandle] = field(default_factory=list)


class Runner:
    """One runner: owns its state and all tasks of its calls."""

    def __init__(self, runner_id: str, settings: Settings, world: World) -> None:
        """`runner_id` is new with each start of the process."""
        self._id, self._settings, self._world = runner_id, settings, world
        self._delivery = Delivery(world.outbox)
        #: Written here alone; others only look.
        self.state = State(
            runner_id,
            async_attempts=settings.async_attempts,
            result_max_bytes=settings.result_max_bytes,
        )
        self._hands: dict[str, _Hand] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()
        #: Set when what a heartbeat says has changed.
        self.changed = asyncio.Event()

    # Life.

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, finish or hand back what is here, and say goodbye."""
        log.info("draining", calls=len(self.state.calls), grace_s=grace_s)
        self.apply(state.DrainAsked())
        if not await self._gone_within(grace_s):
            self.apply(state.GraceOver())
            if not await self._gone_within(_CLEAR_S):
                log.error("calls_abandoned", call_ids=sorted(self.state.calls))

    async def farewell(self) -> None:
        """Tell the scheduler that this runner is gone; to be called when no heartbeats go out."""
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._settled()
                gone = messages.RunnerGone(self._id)
                await self._delivery.deliver(scripts.tell(gone))
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
        """Wait until all that was to be delivered is."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def missing(self) -> str | None:
        """Say what is missing for this runner to be ready."""
        if self.state.draining:
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
        stream = keys.runner(self._id)
        batches = streams.read_group(
            self._world.redis, stream, keys.RUNNER_GROUP, self._id, count=_READ_COUNT
        )
        async for batch in batches:
            for entry in batch:
                try:
                    event = decode(entry)
                except Undecodable as error:
                    self._set_aside(stream, entry, error)
                else:
                    self.apply(event)

    def _set_aside(self, stream: str, entry: streams.Entry, error: Undecodable) -> None:
        UNDECODABLE.labels(stream).inc()
        log.error("entry_undecodable", stream=stream, entry_id=entry[0], error=error.message)
        aside = streams.set_aside(stream, entry, error.message)
        self._spawn(self._delivered(aside, *self._deletion(entry[0])), "aside")

    # The door.

    def apply(self, event: state.Event) -> None:
        """Take an event through the door and do what the state commands."""
        for command in self.state.handle(event, clock.epoch_ms()):
            self._perform(command)
        metrics.IN_PROGRESS.set(len(self.state.calls))

    def _perform(self, command: state.Command) -> None:
        match command:
            case state.StopSandbox(call_id):
                self._hands[call_id].stop.set()
            case state.SetAlarm(call_id, alarm, delay_ms):
                self._set_alarm(call_id, alarm, delay_ms)
            case state.Beat():
                self.changed.set()
            case state.Leave():
                self._left.set()
            case _:
                self._spawn(self._work_of(command), type(command).__name__)

    def _work_of(self, command: state.WorkCommand) -> Coroutine[Any, Any, None]:
        """Return what takes a while of a command."""
        match command:
            case state.StartSandbox(head, parcel):
                self._hands[head.call_id] = _Hand()
                return self._execute(head, parcel)
            case state.EndCall():
                return self._end(command)
            case state.SendRecord(record):
                return self._delivered(_finished(record))
            case state.FreeCapacity(call_id):
                self._drop_hand(call_id)
                return self._delivered(self._freed(call_id))
            case state.HandBack(entry_id, head, why):
                if head.call_id not in self.state.calls:
                    self._drop_hand(head.call_id)
                return self._hand_back(entry_id, head, why)
            case state.DropEntry(entry_id):
                return self._delivered(*self._deletion(entry_id))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", task=task.get_name(), exc_info=task.exception())

    def _set_alarm(self, call_id: str, alarm: state.Alarm, delay_ms: int) -> None:
        rang = state.AlarmRang(call_id, alarm)
        loop = asyncio.get_running_loop()
        self._hands[call_id].alarms.append(loop.call_later(delay_ms / 1000, self.apply, rang))

    def _drop_hand(self, call_id: str) -> None:
        hand = self._hands.pop(call_id, None)
        for alarm in hand.alarms if hand else ():
            alarm.cancel()

    # Calls.

    async def _execute(self, head: messages.CallHead, inline: messages.Parcel | None) -> None:
        """Run one call and report what comes of it."""
        call_id = head.call_id
        hand = self._hands[call_id]
        parcel = inline or await self._fetch(call_id, hand.stop)
        if isinstance(parcel, runs.Result):
            self.apply(state.Ended(call_id, parcel))
        else:
            await self._run(runs.Job(head, parcel), hand)
        self.apply(state.Removed(call_id))

    async def _run(self, job: runs.Job, hand: _Hand) -> None:
        call_id = job.head.call_id

        def started() -> None:
            self.apply(state.Started(call_id))

        async with self._world.sandboxes.run(job, started, hand.stop) as result:
            if isinstance(result.ending, runs.EngineFailed):
                log.warning("engine_failed", call_id=call_id, error=result.ending.why)
            if result.started_ms is not None:
                metrics.START_SECONDS.observe(result.start_ms / 1000)
                metrics.RUN_SECONDS.observe(result.run_ms / 1000)
            self.apply(state.Ended(call_id, result))

    async def _fetch(self, call_id: str, stop: asyncio.Event) -> messages.Parcel | runs.Result:
        """Return the parcel that was too large for its entry, or why there is none."""
        backoff = streams.Backoff()
        while not stop.is_set():
            try:
                raw: Any = await self._world.redis.get(keys.parcel(call_id))
                return messages.decode(raw, messages.Parcel)
            except Undecodable as error:
                log.exception("parcel_missing", call_id=call_id, error=error.message)
                return runs.Result(runs.Broken("The call's input is not there any more."))
            except (RedisError, OSError):
                await backoff.wait()
        return runs.Result(runs.Stopped())

    async def _end(self, command: state.EndCall) -> None:
        head, record, reply = command.head, command.record, command.reply
        if self._delivery.held_bytes > self._settings.held_max_bytes:
            record, reply = _lightened(record, reply)
        ending = scripts.end(keys.runner(self._id), command.entry_id, record, reply, head.reply_to)
        answer, _ = await self._delivery.deliver(ending, self._acknowledgement(command.entry_id))
        metrics.ENDED.labels(record.code or "ok").inc()
        if answer == 0:
            metrics.RECLAIMED.inc()
        log.info(
            "call_ended",
            call_id=head.call_id,
            app=head.app,
            path=head.path,
            code=record.code or "ok",
            exit_code=record.exit_code,
            owned=answer != 0,
        )

    async def _hand_back(self, entry_id: bytes, head: messages.CallHead, why: str) -> None:
        """Put a call back among the waiting.

        That its capacity is free is told first: were it told after, the scheduler could have
        assigned the call again by then, and would free the new reservation.
        """
        log.info("call_handed_back", call_id=head.call_id, why=why)
        metrics.HANDED_BACK.inc()
        back = scripts.move_back(self._id, entry_id, head)
        free = self._freed(head.call_id)
        await self._delivery.deliver(free, back, self._acknowledgement(entry_id))

    async def _delivered(self, *commands: scripts.Command) -> None:
        await self._delivery.deliver(*commands)

    def _freed(self, call_id: str) -> scripts.Command:
        return scripts.tell(messages.ExecutionFinished(self._id, call_id))

    def _acknowledgement(self, entry_id: bytes) -> scripts.Command:
        """Return what takes a deleted entry off the list of delivered ones as well."""
        return ("XACK", keys.runner(self._id), keys.RUNNER_GROUP, entry_id)

    def _deletion(self, entry_id: bytes) -> list[scripts.Command]:
        stream = keys.runner(self._id)
        return [self._acknowledgement(entry_id), ("XDEL", stream, entry_id)]


def _finished(record: messages.Record) -> scripts.Command:
    return ("XADD", keys.FINISHED, "*", "m", messages.encode(record))


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
