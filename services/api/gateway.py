"""How does a call get into the platform, and its outcome back to who waits?

The only place of the api that writes calls to Redis and reads replies. Knows no HTTP: a handler
brings what a caller asked, and makes a response of what comes back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog

from services.api import idempotency, invocation, metrics
from services.api.catalog import Catalog, Found
from services.api.delays import Delay
from services.api.settings import Settings
from services.api.trimming import Trimming
from services.api.waiters import AnswerStream, Overloaded, Overrun, Waiter, Waiters
from shared import clock, keys, logs, messages, scripts, streams
from shared.errors import MillraceError, Unavailable, Undecodable
from shared.metrics import UNDECODABLE

log = structlog.get_logger()

#: Finds the route anew and checks that the caller may use it.
Find = Callable[[], Awaitable[Found]]

#: Replies read in one go.
REPLIES_AT_ONCE = 512
#: How long a reply stream outlives its replica, and how often a living one says so.
STREAM_TTL_MS = 60_000
STREAM_KEPT_EVERY_S = 10.0
#: A sync call that waits longer is worth a record before it ends.
NOTICE_AFTER_S = 0.2
#: What moving a reply may take beyond the call's deadline.
DEADLINE_SLACK_MS = 1_500
#: A parcel outlives the call's deadline by this, should nobody remove it.
PARCEL_SLACK_MS = 60_000
#: Beyond a call's deadline it surely does not run any more; and pauses between looks at whether the
#: first call with a key has ended, growing from the first to the longest.
CLAIM_SLACK_MS = 10_000
_FIRST_LOOK_S, _LONGEST_LOOK_S, _LOOKS_GROW = 0.02, 0.5, 1.5
#: How often an app may change under one call before we give up.
STALE_MAX = 5

_message_lost = logs.Seldom("message_lost")
_REPLY_PART: Any = messages.ReplyPart


class Late(MillraceError):
    """No answer arrived by the call's deadline."""

    code = "deadline"


class InflightLimit(MillraceError):
    """The app has as many calls under way as its max_inflight allows; one must end first."""

    code = "inflight_limit"


class RateLimit(MillraceError):
    """The app is called more often than its rate allows."""

    code = "rate_limit"

    def __init__(self, early_s: float) -> None:
        """`early_s`: after so many seconds it may be called again."""
        super().__init__()
        self.retry_after_s = early_s


class _Stale(Exception):
    """The route was read before its app changed."""


class Wishes(NamedTuple):
    """What few callers ask for beside their call."""

    once: idempotency.Asked | None = None
    #: Who is told the outcome of an async call.
    callback: messages.Callback | None = None


class Performed(NamedTuple):
    """A call that was accepted, and its answer unless it is async."""

    #: A stream is to be given back with `Gateway.leave`.
    answer: messages.Reply | AnswerStream | idempotency.Replay | None
    #: Seconds within which a caller has its answer, whole; 0: however long it takes.
    longest_s: float


class _ClaimLimits(NamedTuple):
    """How long claims are kept, and what they may take."""

    ttl_ms: int
    answer_max_bytes: int
    total_max_bytes: int


class Gateway:
    """Accepts calls, and answers those who wait for them.

    One per replica. Two long-lived tasks belong to it: `read_replies` alone hands answers to
    waiters, `keep_stream` alone makes the stream that replies come through.
    """

    def __init__(
        self,
        redis: streams.Redis,
        outbox: streams.Outbox,
        catalog: Catalog,
        settings: Settings,
        api_id: str,
    ) -> None:
        """`api_id` names this start of this replica; its reply stream bears it."""
        self._redis, self._outbox, self._catalog = redis, outbox, catalog
        self._queue_max = {"sync": settings.sync_queue_max, "async": settings.async_queue_max}
        self._limits = invocation.Limits(
            settings.environment_max_bytes, round(settings.capacity_wait_s * 1000)
        )
        self._claims = _ClaimLimits(
            round(settings.idempotency_ttl_s * 1000),
            settings.idempotency_answer_max_bytes,
            settings.idempotency_max_bytes,
        )
        self._api_id = api_id
        self._waiters = Waiters(settings.max_waiting)
        metrics.WAITING.set_function(lambda: len(self._waiters))
        outbox.follow(lambda: len(self._waiters))
        self._stream = keys.reply(api_id)
        self._positions = {self._stream: "0-0"}
        #: What was read up to here may come again.
        self._read_before = b"0-0"
        self._trimming = Trimming()
        self._noticing = Delay(NOTICE_AFTER_S, self._notice)
        self._kept = self._ever_kept = False
        self._look_now = asyncio.Event()

    async def call(
        self,
        call_id: str,
        found: Found,
        caller: invocation.Caller,
        find: Find,
        wishes: Wishes | None = None,
    ) -> Performed:
        """Perform a call: return its answer, or None once an async one is safe in the queue.

        `found` is what `find` gave; it is asked again if the app has changed meanwhile. Raises
        `TooLarge`, `Overloaded`, `InflightLimit`, `RateLimit`, `Unavailable`, `Late`, and whatever
        `find` raises. A caller who leaves cancels this; then, and whenever a sync call ends without
        a reply, the scheduler is told to stop it; but a call with a key goes on, for those who ask
        again. Of that, also raises what `idempotency` does.
        """
        for _ in range(STALE_MAX):
            plan = found.plan
            parcel = invocation.parcel(call_id, plan, caller, self._limits)
            call = invocation.head(
                call_id,
                plan,
                accepted_ms=clock.epoch_ms(),
                reply_to=self._api_id,
                limits=self._limits,
            )
            try:
                if wishes is not None:
                    return await self._wished(call, parcel, found, wishes)
                if call.mode == "sync":
                    answer = await self._run(call, parcel, found)
                    return Performed(answer, _longest_s(call))
                await self._accept(call, parcel, found)
                return Performed(None, 0)
            except _Stale:
                self._catalog.forget(found)
                found = await find()
                if found.plan.head.mode != plan.head.mode:  # what was wished for is another's
                    raise Unavailable("The route's type was changed under this call") from None
        raise Unavailable("This app changes faster than a call can start")

    async def _run(
        self, call: messages.CallHead, parcel: messages.Parcel, found: Found
    ) -> messages.Reply | AnswerStream:
        """Return a call's answer. The one place where this waits is the waiter's future.

        The waiter is there before the call is: its reply may be read before Redis' answer to the
        enqueue. A refusal by Redis and the passing of time end the wait through the same future.
        """
        waiter = self._waiters.register(call.call_id)
        try:
            self._start(waiter, call, parcel, found)
            answer = await waiter.answer
        except BaseException as error:
            self._waiters.forget(call.call_id)
            if isinstance(error, asyncio.CancelledError | Unavailable | Late):
                # `Unavailable` too: nobody knows whether Redis took the call. The outbox keeps
                # the order, so the cancel is never ahead of its call.
                self._cancel(call.call_id, waiter.runner_id)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
        return answer

    async def _wished(
        self, call: messages.CallHead, parcel: messages.Parcel, found: Found, wishes: Wishes
    ) -> Performed:
        """Perform a call with wishes."""
        if wishes.callback is not None and call.mode == "async":
            call = msgspec.structs.replace(call, callback=wishes.callback)
        if wishes.once is not None:
            return await self._once(call, parcel, found, wishes.once)
        await self._accept(call, parcel, found)
        return Performed(None, 0)

    async def _once(
        self,
        call: messages.CallHead,
        parcel: messages.Parcel,
        found: Found,
        asked: idempotency.Asked,
    ) -> Performed:
        """Perform a call unless one with its key has been, and return what that was answered.

        As long as the first call runs, this waits for it; if its key is free again, because it
        could not run, this takes the key.
        """
        patience_ms = self._limits.capacity_wait_ms + call.timeout_ms
        until_s = clock.monotonic_s() + (patience_ms + DEADLINE_SLACK_MS) / 1000
        # Who waits counts among those who wait, and also for its own reply, which may be quick.
        waiter = self._waiters.register(call.call_id)
        pause_s = _FIRST_LOOK_S
        try:
            claiming = self._claiming(call, parcel, found, asked)
            fields = await self._claimed(claiming, call)
            while fields is not None:
                held = idempotency.held(fields)
                if held is None:  # the key is free again
                    fields = await self._claimed(claiming, call)
                    continue
                if replay := idempotency.answer(held, asked, clock.epoch_ms()):
                    return Performed(replay, 0)
                left_s = until_s - clock.monotonic_s()
                if left_s <= 0:
                    raise idempotency.running(held, asked)
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * _LOOKS_GROW, _LONGEST_LOOK_S)
                fields = await self._outbox.send(scripts.look_at_claim(asked.digest))
            if call.mode == "async":
                return Performed(None, 0)
            self._notice_later(waiter, call)
            return Performed(await waiter.answer, _longest_s(call))
        except Late:
            self._cancel(call.call_id, waiter.runner_id)
            raise
        finally:
            if waiter.stream is None:
                self._waiters.forget(call.call_id)
            if waiter.timer is not None:
                waiter.timer.cancel()

    def _claiming(
        self,
        call: messages.CallHead,
        parcel: messages.Parcel,
        found: Found,
        asked: idempotency.Asked,
    ) -> scripts.Command:
        sync = call.mode == "sync"
        life_ms = call.deadline_ms - call.accepted_ms + PARCEL_SLACK_MS if sync else 0
        record = None if sync else invocation.queued_record(call)
        claim = scripts.Claim(
            digest=asked.digest,
            fingerprint=asked.fingerprint,
            expires_ms=call.accepted_ms + self._claims.ttl_ms,
            until_ms=call.deadline_ms + CLAIM_SLACK_MS,
            route_headers=idempotency.packed(found.plan.headers),
            answer_max_bytes=self._claims.answer_max_bytes,
            total_max_bytes=self._claims.total_max_bytes,
        )
        step = self._enqueue(call, parcel, found, record, life_ms)
        head = msgspec.structs.replace(call, once=asked.digest) if sync else call
        return scripts.enqueue_once(step, head, claim, call.accepted_ms)

    async def _claimed(self, claiming: scripts.Command, call: messages.CallHead) -> Any:  # noqa: ANN401 (as Redis has it)
        """Accept a call with a key; return the claim that was there before it, or None."""
        try:
            answer = await self._outbox.send(claiming)
        except Unavailable:
            # Nobody knows whether it was accepted. If so it runs, and a retry gets its answer.
            self._look_now.set()
            raise
        if isinstance(answer, list):
            return answer
        if answer == scripts.CLAIMS_FULL:
            raise Overloaded("Too many keys are remembered already (IDEMPOTENCY_MAX_BYTES)")
        if refusal := self._refusal(call, answer):
            raise refusal
        return None

    def _start(
        self, waiter: Waiter, call: messages.CallHead, parcel: messages.Parcel, found: Found
    ) -> None:
        life_ms = call.deadline_ms - call.accepted_ms + PARCEL_SLACK_MS
        command = self._enqueue(call, parcel, found, None, life_ms)
        self._outbox.post(command, partial(self._check_enqueued, waiter, call))
        self._notice_later(waiter, call)

    def _check_enqueued(self, waiter: Waiter, call: messages.CallHead, answer: object) -> None:
        if isinstance(answer, list):
            waiter.runner_id = answer[1].decode()
            return
        error = answer if isinstance(answer, Exception) else self._refusal(call, answer)
        if isinstance(error, Unavailable):
            self._look_now.set()
        if error is not None:
            waiter.refuse(error)

    def _refusal(self, call: messages.CallHead, answer: object) -> Exception | None:
        """Return what it means if Redis has not taken a call; None if it has."""
        if answer == scripts.STALE:
            return _Stale()
        if answer == scripts.FULL:
            return Overloaded(f"{self._queue_max[call.mode]} {call.mode} calls wait already")
        if answer == scripts.BUSY:
            return InflightLimit()
        if isinstance(answer, bytes) and answer.startswith(scripts.EARLY):
            return RateLimit(int(answer.removeprefix(scripts.EARLY)) / 1e6)
        return None

    def _notice_later(self, waiter: Waiter, call: messages.CallHead) -> None:
        """Remember a call by its id alone: all else goes with its answer, and is soon used again.

        Memory that is kept for long has left the processor's caches when it is used again.
        """
        waiter.call = call
        self._noticing.add(call.call_id)

    def _notice(self, call_id: str) -> None:
        """Record that a call waits, if it still does; from now on a timer watches its deadline.

        That can be no earlier: a call has a second at least. One that has waited for its key has
        less of it left.
        """
        waiter = self._waiters.waiting(call_id)
        if waiter is None or waiter.call is None or waiter.timer is not None:
            return  # It is over; or this is a second try, which was noticed instead of the first.
        call = waiter.call
        self._outbox.post(scripts.note(invocation.queued_record(call)), _log_loss)
        loop = asyncio.get_running_loop()
        rest_s = max(0, call.deadline_ms + DEADLINE_SLACK_MS - clock.epoch_ms()) / 1000
        waiter.timer = loop.call_later(rest_s, waiter.refuse, Late())

    async def _accept(self, call: messages.CallHead, parcel: messages.Parcel, found: Found) -> None:
        """Enqueue an async call; return when it is safe there."""
        try:
            record = invocation.queued_record(call)
            answer = await self._outbox.send(self._enqueue(call, parcel, found, record, 0))
        except Unavailable:
            self._look_now.set()
            raise
        if refusal := self._refusal(call, answer):
            raise refusal

    def _enqueue(
        self,
        call: messages.CallHead,
        parcel: messages.Parcel,
        found: Found,
        record: messages.Record | None,
        parcel_ttl_ms: int,
    ) -> scripts.Step:
        return scripts.enqueue(
            call,
            parcel,
            catalog_version=found.version,
            queue_max=self._queue_max[call.mode],
            record=record,
            parcel_ttl_ms=parcel_ttl_ms,
            limits=found.plan.limits,
        )

    def took(self, stream: AnswerStream, count: int) -> None:
        """Note that a caller has taken `count` more bytes of a streamed answer; tell its runner."""
        more = stream.taken(count)
        if more is not None:
            self._outbox.post(scripts.more(stream.head.runner_id, more), _log_loss)

    def leave(self, stream: AnswerStream) -> None:
        """Let go of a streamed answer; if its call has not ended, it is stopped."""
        self._waiters.forget(stream.head.call_id)
        if not stream.replied:
            self._cancel(stream.head.call_id, stream.head.runner_id)

    def record_lost(self, call_id: str, found: Found, failed: messages.Failed) -> None:
        """Record a call that nobody else can: Redis has lost it, and its caller was told."""
        record = invocation.lost_record(call_id, found.plan, failed, clock.epoch_ms())
        self._post(keys.FINISHED, record)

    def _cancel(self, call_id: str, runner_id: str) -> None:
        """Have a call stopped: by the scheduler, who may need to be told where it went."""
        self._outbox.post(scripts.cancel(call_id, runner_id), _log_loss)

    def _post(self, stream: str, message: messages.Wire) -> None:
        """Append a message that nobody waits for; if it is lost, the log says so."""
        self._outbox.post(("XADD", stream, "*", "m", messages.encode(message)), _log_loss)

    async def read_replies(self) -> None:
        """Bring replies to their waiters, for ever; waits out Redis' absences."""
        backoff = streams.Backoff()
        async with streams.Tail(self._redis, lambda: len(self._waiters)) as tail:
            while True:
                try:
                    found = await tail.read(self._positions, count=REPLIES_AT_ONCE)
                except Unavailable as error:
                    log.warning("replies_unreadable", error=error.message)
                    # A Redis that was restarted may lack what it last told a runner it had, and
                    # an answer must not lack its middle.
                    self._waiters.break_streams(error)
                    self._start_anew()
                    self._look_now.set()
                    await backoff.wait()
                    continue
                backoff.reset()
                if not found and self._waiters:
                    # Those who answer may find the stream lost; a read waits without an error.
                    self._look_now.set()
                for stream, entries in found.items():
                    for entry in entries:
                        self._take(stream, entry)
                    self._read(entries)
                self._trim()

    def _take(self, stream: str, entry: streams.Entry) -> None:
        try:
            part: messages.ReplyPart = messages.decode(entry[1].get(b"m"), _REPLY_PART)
        except Undecodable as error:
            UNDECODABLE.labels(stream="reply").inc()
            log.warning("reply_undecodable", id=entry[0].decode(), error=str(error))
            self._outbox.post(streams.set_aside(stream, entry, str(error)), _log_loss)
            return
        try:
            wanted = self._waiters.hand_over(part)
        except Overrun as error:
            # Its writer may be held up by the caller's connection; the function stops at once.
            log.error("answer_overruns", call_id=part.call_id, error=error.message)  # noqa: TRY400
            self._cancel(part.call_id, self._waiters.runner_of(part.call_id))
            return
        if wanted or isinstance(part, messages.StreamChunk):
            return
        if not streams.is_after(entry[0], self._read_before):
            return  # read once more, after an outage
        metrics.LATE_REPLIES.inc()
        log.info("reply_unwanted", call_id=part.call_id)

    def _start_anew(self) -> None:
        """Read the stream from its beginning: at a new master, what is new may have smaller ids."""
        self._read_before = self._positions[self._stream].encode()
        self._positions[self._stream] = "0-0"

    def _read(self, entries: list[streams.Entry]) -> None:
        size_bytes = sum([len(value) for _, fields in entries for value in fields.values()])
        self._trimming.read(entries[-1][0], len(entries), size_bytes, clock.monotonic_s())

    def _trim(self) -> None:
        """Drop what has been read of the reply stream, if it is time."""
        first_kept = self._trimming.due(clock.monotonic_s())
        if first_kept is not None:
            trim = ("XTRIM", keys.reply(self._api_id), "MINID", first_kept)
            self._outbox.post(trim, _log_loss)

    async def keep_stream(self) -> None:
        """Keep the reply stream there, for ever: make it anew soon after Redis has lost it."""
        while True:
            self._look_now.clear()
            try:
                await self._keep()
            except Unavailable as error:
                self._kept = False
                log.warning("reply_stream_unkept", error=str(error))
                await asyncio.sleep(1.0)
                continue
            try:
                async with asyncio.timeout(STREAM_KEPT_EVERY_S):
                    await self._look_now.wait()
            except TimeoutError:
                pass

    async def _keep(self) -> None:
        made = await self._outbox.send(scripts.keep_reply_stream(self._api_id, STREAM_TTL_MS))
        self._kept = True
        if made:
            log.info("reply_stream_made", api_id=self._api_id)
            self._start_anew()
        if made and self._ever_kept:
            # What was in the lost stream never comes.
            self._waiters.break_streams(Unavailable("Redis has lost a part of the answer"))
        self._ever_kept = True

    async def ready(self) -> str | None:
        """Return what is missing for calls to be answered; None if nothing is."""
        return None if self._kept else "redis: no reply stream"


def _longest_s(call: messages.CallHead) -> float:
    """Return within how many seconds from its acceptance the caller has an answer."""
    return (call.deadline_ms - call.accepted_ms + DEADLINE_SLACK_MS) / 1000


def _log_loss(answer: object) -> None:
    if isinstance(answer, Exception):
        _message_lost.warning(error=str(answer))
