"""Who calls back, and when? Takes callbacks that are due, makes them, writes what came of it.

Every replica has one courier. What one takes is its own for a while; if it dies meanwhile another
takes it again. So each callback is made at least once, and its receiver knows a repetition by
`X-Millrace-Delivery`.
"""

import asyncio
import random
from collections import Counter

import aiohttp
import pymysql.err
import structlog
from yarl import URL

from services.api import addresses, callback_rules, guarded, metrics
from services.api.callbacks import Callbacks, Taken
from services.api.records import Records, Result
from services.api.settings import Settings
from shared import clock, streams, tasks
from shared.errors import Unavailable

log = structlog.get_logger()

#: How often a courier looks for callbacks that it was not told of.
LOOK_EVERY_S = 2.0
#: How often for those whose calls have ended without a word.
OVERLOOKED_EVERY_S = 60.0
#: A lease is longer than a try may take by this.
LEASE_SLACK_MS = 20_000
#: Of a replica's callbacks under way, an app may have this part.
APP_SHARE = 4
_ERROR_MAX_CHARACTERS = 300


class Courier:
    """Makes callbacks, for ever; one task (`run`) owns it, and each callback has one of its own."""

    def __init__(self, callbacks: Callbacks, records: Records, settings: Settings) -> None:
        """Read from and write to `callbacks`; bodies are in `records`."""
        self._callbacks, self._records = callbacks, records
        self._allowed = addresses.networks(settings.callback_allow_networks)
        self._timeout_s = settings.callback_timeout_s
        self._lease_ms = round(settings.callback_timeout_s * 1000) + LEASE_SLACK_MS
        self._retry_ms = round(settings.callback_retry_s * 1000)
        self._most = settings.callback_concurrency
        self._of_each_app = max(1, self._most // APP_SHARE)
        #: Callbacks under way, with their apps.
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._look_now = asyncio.Event()

    def wake(self) -> None:
        """Look at once: a callback is due."""
        self._look_now.set()

    async def run(self) -> None:
        """Make what is due; waits out MySQL's absences."""
        backoff = streams.Backoff(longest_s=10.0)
        rouse_s = 0.0
        async with guarded.session(self._allowed, self._timeout_s, self._most) as session:
            try:
                while True:
                    self._look_now.clear()
                    try:
                        if clock.monotonic_s() >= rouse_s:
                            await self._callbacks.rouse_overlooked(clock.epoch_ms())
                            rouse_s = clock.monotonic_s() + OVERLOOKED_EVERY_S
                        began = await self._begin(session)
                    except (Unavailable, pymysql.err.MySQLError) as error:
                        log.warning("callbacks_wait", error=str(error))
                        await backoff.wait()
                        continue
                    backoff.reset()
                    if not began:
                        await self._rest()
            finally:
                await tasks.end(*self._under_way)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._look_now.wait()
        except TimeoutError:
            pass

    async def _begin(self, session: aiohttp.ClientSession) -> int:
        """Begin as many callbacks as are due and there is room for; return how many."""
        room = self._most - len(self._under_way)
        if room <= 0:
            return 0
        taken = await self._callbacks.take(
            clock.epoch_ms(),
            self._lease_ms,
            most=room,
            of_each_app=self._of_each_app,
            under_way=Counter(self._under_way.values()),
        )
        for one in taken:
            task = asyncio.create_task(self._make(session, one), name=f"callback {one.call_id}")
            self._under_way[task] = one.app
            task.add_done_callback(self._done)
        return len(taken)

    def _done(self, task: "asyncio.Task[None]") -> None:
        del self._under_way[task]
        self._look_now.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease ends, and then it is tried again.
            log.error("callback_failed", task=task.get_name(), exc_info=error)

    async def _make(self, session: aiohttp.ClientSession, taken: Taken) -> None:
        """Make one callback and write what came of it."""
        try:
            record = await self._records.find(taken.call_id)
            result = await self._records.result(taken.call_id)
            secrets = await self._callbacks.secrets(taken.app)
        except Unavailable as error:
            log.warning("callback_waits", call_id=taken.call_id, error=error.message)
            return
        if record is None:
            log.info("callback_without_call", call_id=taken.call_id)
            return
        result = result or Result(b"", truncated=False)
        message = callback_rules.message(
            record, taken.content_type, result.body, truncated=result.truncated
        )
        now_ms = clock.epoch_ms()
        in_force = secrets.in_force(now_ms)
        signed = callback_rules.signature(in_force, message.body, now_ms // 1000)
        message.headers[callback_rules.SIGNATURE] = signed
        message.headers["X-Millrace-Delivery-Attempt"] = str(taken.number)
        made, retry_after_ms = await _sent(session, taken.url, message, now_ms)
        following = callback_rules.after(
            made,
            number=taken.number,
            retry_after_ms=retry_after_ms,
            until_ms=(taken.tries[0].at_ms if taken.tries else now_ms) + self._retry_ms,
            jitter=random.random(),  # noqa: S311 (no secret)
        )
        await self._write(taken, made, following)

    async def _write(
        self, taken: Taken, made: callback_rules.Try, following: callback_rules.Next
    ) -> None:
        try:
            await self._callbacks.tried(taken, made, following)
        except Unavailable as error:
            log.warning("callback_unwritten", call_id=taken.call_id, error=error.message)
        metrics.CALLBACKS.labels(
            following.state if following.state != "due" else "tried again"
        ).inc()
        log.info(
            "callback_made",
            call_id=taken.call_id,
            app=taken.app,
            number=taken.number,
            status=made.status,
            error=made.error,
            state=following.state,
        )


async def _sent(
    session: aiohttp.ClientSession, url: str, message: callback_rules.Message, now_ms: int
) -> tuple[callback_rules.Try, int | None]:
    """Send a callback; return what came of it, and what the receiver says of when to try again.

    Of its answer only the head is read.
    """
    try:
        async with session.post(
            URL(url), data=message.body, headers=message.headers, allow_redirects=False
        ) as response:
            status = response.status
            wait_ms = callback_rules.retry_after_ms(response.headers.get("Retry-After"), now_ms)
            return callback_rules.Try(now_ms, status, callback_rules.complaint(status)), wait_ms
    except TimeoutError:
        why = "the receiver did not answer in time"
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or error.os_error
        why = f"cannot connect to {error.host}:{error.port}: {reason}"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        why = str(error) or type(error).__name__
    return callback_rules.Try(now_ms, None, why[:_ERROR_MAX_CHARACTERS]), None
