"""What becomes of a lost or leaving runner's calls? Its stream is emptied, then deleted.

The runner may be alive after all. So each step takes an entry away atomically: what the runner has
not read by then it never gets, and the end of a call that was taken from it counts for nothing.
"""

import asyncio

import structlog

from services.scheduler import ending, metrics, pages
from services.scheduler.intake import Intake
from shared import clock, keys, messages, retrying, scripts
from shared.streams import Entry, Outbox, Redis

log = structlog.get_logger()

PAGE = 200
#: Kinds of entries that mean nothing once their runner is gone.
_PASSING = (b"cancel", b"more")


class Reclaimer:
    """Takes back what runners' streams hold."""

    def __init__(self, redis: Redis, outbox: Outbox, intake: Intake) -> None:
        self._redis, self._outbox, self._intake = redis, outbox, intake

    async def reclaim(self, runner_id: str, *, unstarted: bool = False) -> None:
        """Empty a runner's stream and delete it. Raises `Unavailable` and redis' errors.

        `unstarted`: the runner said when it left that it had started nothing of it. (It stops
        reading at an instant, and Redis may just have handed it more.)
        """
        stream = keys.runner(runner_id)
        while True:
            found = await pages.page(self._redis, stream, "-", PAGE)
            if found:
                await asyncio.gather(
                    *(self._take_back(runner_id, entry, unstarted=unstarted) for entry in found)
                )
            elif await self._outbox.send(scripts.drop_runner(runner_id)):
                log.info("runner_reclaimed", runner_id=runner_id)
                return

    async def _take_back(self, runner_id: str, entry: Entry, *, unstarted: bool) -> None:
        entry_id, fields = entry
        stream = keys.runner(runner_id)
        if fields.get(b"k") in _PASSING:
            await self._outbox.send(("XDEL", stream, entry_id))
            return
        head = self._intake.head(stream, entry)
        if head is None:
            return
        move = scripts.move_back if unstarted else scripts.move_back_unread
        answer = await self._outbox.send(move(runner_id, entry_id, head))
        how = "unread" if answer == 1 else "gone"
        if answer == scripts.READ:
            how, command = self._verdict(runner_id, entry_id, head)
            await self._outbox.send(command)
        metrics.RECLAIMED.labels(how).inc()
        log.info("call_reclaimed", call_id=head.call_id, runner_id=runner_id, how=how)

    def _verdict(
        self, runner_id: str, entry_id: bytes, head: messages.CallHead
    ) -> tuple[str, scripts.Command]:
        """Say what to do with a call that may have started.

        Its next attempt waits for nothing: silence was waited for already, and another runner has
        not failed.
        """
        now_ms = clock.epoch_ms()
        stream = keys.runner(runner_id)
        tries = f", at attempt {head.attempt}" if head.mode == "async" else ""
        failed = messages.Failed("runner_lost", f"the runner of this call is gone{tries}")
        again = retrying.next_attempt(head, failed.code)
        if again is not None:
            failure = messages.Attempt(
                head.attempt, failed.code, failed.message, now_ms, runner_id=runner_id
            )
            record = retrying.waiting_record(again, failure)
            return "retried", scripts.try_again(stream, entry_id, again, record)
        how = "buried" if retrying.is_kept(head, failed.code) else "failed"
        return how, ending.ended(stream, entry_id, head, failed, now_ms=now_ms, runner_id=runner_id)
