"""How does the scheduler run? The shell around the state: reads, decides, performs.

All it may not lose is in Redis. Whenever an outcome is unknown (Redis was away, another scheduler
took over), the reign ends and a new one begins by rebuilding the state.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog
from redis.exceptions import RedisError

from services.scheduler import ending, events, metrics, pages, rebuild
from services.scheduler.events import Event, Now, Waiting
from services.scheduler.intake import Intake, grant
from services.scheduler.lease import RENEW_S, TRY_S, Lease, LeaseLost
from services.scheduler.reclaim import Reclaimer
from services.scheduler.settings import Settings
from services.scheduler.state import State
from shared import clock, keys, messages, scripts, streams, tasks
from shared.batches import Landed
from shared.errors import Unavailable
from shared.streams import Backoff, Entry, Outbox, Redis

log = structlog.get_logger()

#: Entries of each stream in one read at most.
READ_COUNT = 512
#: Events decided about at one go; then what follows from them may be sent, before more are.
GO_MAX = 128
#: Seconds between two ticks; a deadline is noticed at most so late.
TICK_S = 0.25
#: Seconds since the last read, up to which the state counts as caught up.
CAUGHT_UP_S = 2.0
#: Seconds between two updates of gauges and trims of `events`.
SHOW_S = 1.0
#: Commands on their way to Redis, beyond which no more calls are read.
IN_FLIGHT_MAX = 4096
#: Seconds that commands on their way may take to end when the scheduler stops.
SETTLE_S = 2.0
#: A reign that lasted so many seconds began well: the next failure is waited out anew.
GOOD_REIGN_S = 10.0
_NOT_ASSIGNED = (scripts.GONE, scripts.LOST)


def now() -> Now:
    """Return the present, as the state wants it."""
    return Now(clock.monotonic_s(), clock.epoch_ms())


class Reign:
    """One term as the active scheduler, from rebuilding the state to the first failure.

    The state has one way in, `_take`, which never waits: so each event is dealt with whole, and
    what is decided about a batch goes to Redis in one write, in the same turn of the loop.
    """

    def __init__(
        self, settings: Settings, redis: Redis, outbox: Outbox, lease: Lease, epoch: int
    ) -> None:
        self._redis, self._outbox, self._lease, self._epoch = redis, outbox, lease, epoch
        self._state = State(settings, epoch)
        self._intake = Intake(outbox)
        outbox.follow(lambda: len(self._state.ledger))
        self._reclaimer = Reclaimer(redis, outbox, self._intake)
        self._events: deque[Event] = deque()
        self._deciding = False
        #: When the events were taken that are being decided about.
        self._now = now()
        self._positions = {keys.CALLS_SYNC: "0", keys.CALLS_ASYNC: "0"}
        self._caught_up_s = 0.0
        self._shown_s = 0.0
        #: Calls given to runners since the metrics were shown, by mode.
        self._assigned_of: Counter[str] = Counter()
        #: Commands sent and not answered.
        self._in_flight = 0
        self._landed = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deeds: dict[type, Callable[[Any], None]] = {
            events.AssignCall: self._assign,
            events.RefuseCall: self._refuse,
            events.CancelWaiting: self._cancel,
            events.TellLost: self._tell_lost,
            events.ForwardCancel: self._forward_cancel,
            events.ReclaimRunner: self._reclaim,
            events.AuditRunner: self._audit,
            events.GrantPlace: self._grant,
            events.RecallGrant: self._recall,
            events.ScanAsync: self._scan,
            events.ReportWait: self._report,
        }

    async def run(self) -> None:
        """Reign until something fails: raises what did.

        No task group: that asks its tasks to end only once, and the Redis client may lose it.
        """
        try:
            self._start(self._renew(), "renew")
            rebuilt, last_id = await rebuild.rebuild(self._redis, self._intake)
            self._positions[keys.EVENTS] = last_id
            self._take(rebuilt)
            self._caught_up_s = clock.monotonic_s()
            metrics.LEADER.set(1)
            metrics.REIGNS.inc()
            self._start(self._read(), "read")
            self._start(self._tick(), "tick")
            await self._failed
        finally:
            await tasks.end(*self._tasks)

    async def settle(self) -> None:
        """Wait a little for commands on their way, so that a successor finds them done."""
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._all_landed()
        self._show()
        if not self._failed.cancel() and not self._failed.cancelled():
            self._failed.exception()  # looked at, if nobody has: it may be one of several

    # -- tasks

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task of the reign, which ends when one of them fails."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._end_with(error)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._lease.renew()

    def _under_way(self) -> int:
        """Return how many entries are to come of calls under way; each call is read twice."""
        return 2 * len(self._state.ledger)

    async def _read(self) -> None:
        async with streams.Tail(self._redis, self._under_way) as tail:
            while True:
                while self._in_flight > IN_FLIGHT_MAX:
                    self._landed.clear()
                    await self._landed.wait()
                wanted = dict(self._positions)
                if not self._state.backlog.wants_async:
                    del wanted[keys.CALLS_ASYNC]
                found = await tail.read(wanted, count=READ_COUNT)
                self._positions.update(wanted)
                await self._read_in(found)

    async def _read_in(self, found: dict[str, list[Entry]]) -> None:
        # Reports first, and all of them. The race: a runner that hands a call back reports its
        # capacity free before it does. Read after the call, which may have been assigned again by
        # then, that report would free the new reservation.
        read: list[Event] = [*await self._all_reports(found.get(keys.EVENTS, []))]
        self._caught_up_s = clock.monotonic_s()
        for stream in (keys.CALLS_SYNC, keys.CALLS_ASYNC):
            calls = self._intake.calls(stream, found.get(stream, ()))
            goes = range(0, len(calls), GO_MAX)
            read += [events.CallsArrived(calls[first : first + GO_MAX]) for first in goes]
        for first in range(0, len(read), GO_MAX):
            if first:
                await asyncio.sleep(0)  # what has been decided is sent meanwhile
            self._take(*read[first : first + GO_MAX])

    async def _all_reports(self, first: list[Entry]) -> list[messages.Event]:
        """Return what `first` and the entries of `events` after it say, up to the present."""
        reports, page = self._intake.reports(first), first
        while len(page) == READ_COUNT:
            start = pages.after(page[-1][0]).decode()
            page = await pages.page(self._redis, keys.EVENTS, start, READ_COUNT)
            reports += self._intake.reports(page)
            if page:
                self._positions[keys.EVENTS] = page[-1][0].decode()
        return reports

    async def _tick(self) -> None:
        trimmed_s = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now_s = clock.monotonic_s()
            caught_up = now_s - self._caught_up_s < CAUGHT_UP_S
            self._take(events.Tick(caught_up=caught_up))
            if now_s - trimmed_s > SHOW_S:
                trimmed_s = now_s
                position = self._positions[keys.EVENTS]
                self._send(("XTRIM", keys.EVENTS, "MINID", "~", position))

    # -- deciding

    def _take(self, *arrived: Event) -> None:
        """Let the state decide about events, and do what it commands. A failure ends the reign."""
        self._events.extend(arrived)
        if self._deciding or self._failed.done():
            return
        self._deciding = True
        try:
            self._decide()
        except Exception as error:
            # Whatever it is: a state that has failed once is not to be trusted.
            log.exception("decision_failed")
            self._end_with(error)
        finally:
            self._deciding = False

    def _decide(self) -> None:
        if not self._lease.held:
            self._end_with(LeaseLost())
            return
        self._now = now()
        while self._events:
            for command in self._state.handle(self._events.popleft(), self._now):
                self._deeds[type(command)](command)
        ended_s = clock.monotonic_s()
        metrics.DECISION_SECONDS.observe(ended_s - self._now.s)
        if ended_s - self._shown_s > SHOW_S:
            self._shown_s = ended_s
            self._show()

    def _show(self) -> None:
        metrics.show(self._state)
        for mode, count in self._assigned_of.items():
            metrics.ASSIGNMENTS.labels(mode).inc(count)
        self._assigned_of.clear()

    # -- performing

    def _send(self, command: scripts.Command, landed: Landed | None = None) -> None:
        """Send a command; `landed` is told what became of it, and asks `_answer`."""
        self._in_flight += 1
        self._outbox.post(command, landed or self._answer)

    def _answer(self, answer: Any) -> Any:  # noqa: ANN401 (whatever Redis says)
        """Return Redis' answer to a command. An unknown outcome ends the reign: None."""
        self._in_flight -= 1
        if self._in_flight == IN_FLIGHT_MAX:
            self._landed.set()
        if isinstance(answer, Exception):
            self._end_with(answer)
            return None
        return answer

    async def _all_landed(self) -> None:
        """Wait until all is answered that has been sent: answers come in the commands' order."""
        if self._in_flight:
            await self._outbox.send(("PING",))

    def _end_with(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    def _assign(self, command: events.AssignCall) -> None:
        call, runner_id = command.call, command.runner_id
        source = keys.calls(call.head.mode)
        assignment = messages.Assignment(self._epoch, self._now.ms)
        self._send(
            scripts.assign(source, call.entry_id, runner_id, assignment),
            partial(self._assigned, command),
        )

    def _assigned(self, command: events.AssignCall, said: Any) -> None:  # noqa: ANN401
        answer = self._answer(said)
        if answer == scripts.FENCED:
            self._end_with(LeaseLost("a later reign has begun"))
        elif answer in _NOT_ASSIGNED:
            metrics.ASSIGN_FAILURES.labels(answer.decode()).inc()
            self._take(events.AssignFailed(command.call, command.runner_id, answer))
        elif answer is not None:
            self._assigned_of[command.call.head.mode] += 1

    def _refuse(self, command: events.RefuseCall) -> None:
        failed = messages.Failed(command.code, command.message)
        self._end(command.call, failed)
        head = command.call.head
        log.warning(
            "call_refused",
            call_id=head.call_id,
            app=head.app,
            code=command.code,
            why=command.message,
        )

    def _cancel(self, command: events.CancelWaiting) -> None:
        self._end(command.call, None)
        log.info("call_cancelled", call_id=command.call.head.call_id)

    def _tell_lost(self, command: events.TellLost) -> None:
        head = command.head
        metrics.LOST.inc()
        self._send(ending.lost(head))
        log.error("call_lost", call_id=head.call_id, app=head.app)

    def _end(self, call: Waiting, failed: messages.Failed | None) -> None:
        metrics.REFUSALS.labels(failed.code if failed else "cancelled").inc()
        stream = keys.calls(call.head.mode)
        now_ms = self._now.ms
        self._send(ending.ended(stream, call.entry_id, call.head, failed, now_ms=now_ms))

    def _forward_cancel(self, command: events.ForwardCancel) -> None:
        self._send(scripts.forward_cancel(command.runner_id, command.call_id))

    def _grant(self, command: events.GrantPlace) -> None:
        assignment = messages.Assignment(self._epoch, self._now.ms, command.grant_id)
        self._send(scripts.grant(command.kind, command.runner_id, assignment), self._granted)

    def _granted(self, said: Any) -> None:  # noqa: ANN401
        if self._answer(said) == scripts.FENCED:
            self._end_with(LeaseLost("a later reign has begun"))

    def _recall(self, command: events.RecallGrant) -> None:
        recall = scripts.recall(command.kind, command.grant_id, close=command.close)
        self._send(recall, partial(self._recalled, command.grant_id))

    def _recalled(self, grant_id: str, said: Any) -> None:  # noqa: ANN401
        free = self._answer(said)
        if free is not None and free < 0:
            self._end_with(LeaseLost("Redis has lost what was granted, or a later reign has begun"))
        elif free is not None:
            self._take(events.GrantRecalled(grant_id, free))

    def _report(self, command: events.ReportWait) -> None:
        head = command.call.head
        log.warning(
            "call_waits",
            call_id=head.call_id,
            app=head.app,
            reason=command.reason,
            why=command.message,
            waited_ms=self._now.ms - head.accepted_ms,
        )

    # -- longer deeds, each a task of the reign

    def _reclaim(self, command: events.ReclaimRunner) -> None:
        log.warning("runner_leaves", runner_id=command.runner_id)
        self._start(self._do_reclaim(command), f"reclaim {command.runner_id}")

    async def _do_reclaim(self, command: events.ReclaimRunner) -> None:
        await self._reclaimer.reclaim(command.runner_id, unstarted=command.unstarted)
        self._take(events.RunnerReclaimed(command.runner_id))

    def _audit(self, command: events.AuditRunner) -> None:
        self._start(self._do_audit(command), f"audit {command.runner_id}")

    async def _do_audit(self, command: events.AuditRunner) -> None:
        stream = keys.runner(command.runner_id)
        await self._all_landed()  # what was given to the runner just now must be in its stream
        there: set[str] = set()
        granted: Counter[str] = Counter()
        async for entry in pages.entries(self._redis, stream):
            head = self._intake.head(stream, entry) if entry[1].get(b"k") == b"assign" else None
            if head is not None:
                there.add(head.call_id)
                granted[grant(entry)] += 1
        missing = frozenset(command.call_ids) - there
        self._take(events.RunnerAudited(command.runner_id, missing, dict(granted)))

    def _scan(self, command: events.ScanAsync) -> None:
        self._start(self._do_scan(command), f"scan {command.app}")

    async def _do_scan(self, command: events.ScanAsync) -> None:
        start = command.from_id.decode()
        found = await pages.page(self._redis, keys.CALLS_ASYNC, start, READ_COUNT)
        calls = self._intake.calls(keys.CALLS_ASYNC, found)
        mine = tuple(call for call in calls if call.head.app == command.app)
        next_id = pages.after(found[-1][0]) if len(found) == READ_COUNT else None
        self._take(events.AsyncScanned(command.app, mine, next_id))


class Service:
    """A scheduler process: stands by, reigns, stands by again."""

    def __init__(self, settings: Settings, redis: Redis, outbox: Outbox, owner: str) -> None:
        """`owner` is the id of this process."""
        self._settings, self._redis, self._outbox = settings, redis, outbox
        self._lease = Lease(redis, owner)

    async def readiness(self) -> str | None:
        """Say what is missing. A standby is ready too."""
        try:
            async with asyncio.timeout(2):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            return f"Redis does not answer: {error or type(error).__name__}"
        return None

    async def run(self) -> None:
        """Be a scheduler until cancelled; then let go of the lease, so that a standby goes on."""
        backoff = Backoff()
        try:
            while True:
                began_s = clock.monotonic_s()
                try:
                    if not await self._lease.acquire():
                        await asyncio.sleep(TRY_S)
                        continue
                    await self._reign()
                except (RedisError, OSError, Unavailable, LeaseLost) as error:
                    log.warning("reign_ended", why=str(error) or repr(error))
                if clock.monotonic_s() - began_s > GOOD_REIGN_S:
                    backoff.reset()
                await backoff.wait()
        finally:
            await self._let_go()

    async def _reign(self) -> None:
        epoch = await self._lease.begin_reign()
        log.info("reign_begins", epoch=epoch)
        reign = Reign(self._settings, self._redis, self._outbox, self._lease, epoch)
        try:
            await reign.run()
        finally:
            await reign.settle()
            metrics.show_nothing()

    async def _let_go(self) -> None:
        if not self._lease.held:
            return
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._lease.release()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("lease_not_released", why=str(error))
