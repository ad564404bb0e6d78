"""Which async call does an outside worker get, and what becomes of it?

A worker reserves a waiting call, runs it elsewhere, and acknowledges it within
`RESERVED_FOR_MS`; else the call waits again, and whoever comes next runs it.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import structlog

from services.api.letter_schemas import payload_json
from shared import clock, keys, messages, retrying, scripts, streams, timestamps
from shared.errors import Unavailable, Undecodable

log = structlog.get_logger()

RESERVED_FOR_MS = 60_000
RETURN_EVERY_S = 1.0
#: Due reservations returned by one script, so that it never holds up Redis.
RETURN_AT_ONCE = 100

#: What a worker may give as the reason of an error, in the words of the error table.
_CODES = {"timeout": "timeout", "killed": "signal", "client_request": "cancelled"}


@dataclass(frozen=True, slots=True)
class Report:
    """What an outside worker says of a call it has run."""

    call_id: str
    status: str = "success"
    error: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A call as an outside worker sees it; the parcel is None once the call has ended."""

    head: messages.CallHead
    status: messages.Status
    parcel: messages.Parcel | None = None
    error: str = ""


class Reservations:
    """Async calls that are out with outside workers. One task (`run`) returns the overdue."""

    def __init__(self, redis: streams.Redis, outbox: streams.Outbox) -> None:
        """All that is known of them is in Redis, and the same for all replicas."""
        self._redis, self._outbox = redis, outbox

    async def reserve(self) -> Task | None:
        """Give out the call that has waited longest; None if none waits.

        Raises `Unavailable` if Redis does not answer.
        """
        while True:
            now_ms = clock.epoch_ms()
            taken = await self._outbox.send(scripts.reserve_task(now_ms + RESERVED_FOR_MS))
            if taken is None:
                return None
            task = await self._opened(*taken)
            if task:
                record = _record(task.head, "running", now_ms)
                await self._outbox.send(("XADD", keys.FINISHED, "*", "m", messages.encode(record)))
                return task

    async def _opened(self, raw_head: bytes, raw_parcel: bytes | None) -> Task | None:
        """Return a reserved call; end it as lost and return None if its input is."""
        head = messages.decode(raw_head, messages.CallHead)
        raw_parcel = raw_parcel or await self._outbox.send(("GET", keys.parcel(head.call_id)))
        try:
            return Task(head, "running", messages.decode(raw_parcel, messages.Parcel))
        except Undecodable as error:
            log.error("task_unreadable", call_id=head.call_id, error=str(error))  # noqa: TRY400
            await self._end(head, "error", "internal", "The call's input is lost")
            return None

    async def acknowledge(self, report: Report) -> Task | None:
        """End a reserved call as its worker says; None if it is not reserved (any more)."""
        raw = await self._outbox.send(("HGET", keys.TASKS_RESERVED, report.call_id))
        if raw is None:
            return None
        head = messages.decode(raw, messages.CallHead)
        status, code = _outcome(report)
        if code:
            ended = await self._fail(head, status, code, report.error)
        else:
            ended = await self._end(head, status)
        return Task(head, status, error=report.error) if ended else None

    async def _fail(
        self, head: messages.CallHead, status: messages.Status, code: str, message: str
    ) -> bool:
        """End an attempt that failed; another may follow, as after one that a runner made."""
        again = retrying.next_attempt(head, code)
        if again is None:
            dead = retrying.is_kept(head, code)
            return await self._end(head, status, code, message, dead=dead)
        now_ms = clock.epoch_ms()
        failure = messages.Attempt(head.attempt, code, message, now_ms)
        record = retrying.waiting_record(again, failure)
        due_ms = retrying.due_ms(now_ms, again, random.random())  # noqa: S311 (jitter)
        return bool(await self._outbox.send(scripts.end_task(record, again=again, due_ms=due_ms)))

    async def _end(
        self,
        head: messages.CallHead,
        status: messages.Status,
        code: str = "",
        message: str = "",
        *,
        dead: bool = False,
    ) -> bool:
        record = _record(
            head, status, None, finished_ms=clock.epoch_ms(), code=code, message=message
        )
        return bool(await self._outbox.send(scripts.end_task(record, dead=dead)))

    async def run(self) -> None:
        """Return overdue reservations each second, for ever.

        Every replica does; a script is one step, so none returns what another has returned.
        """
        while True:
            try:
                await self.return_due(clock.epoch_ms())
            except Unavailable as error:
                log.warning("reservations_unreturned", error=str(error))
            await asyncio.sleep(RETURN_EVERY_S)

    async def return_due(self, now_ms: int) -> int:
        """Return the reservations that are due by `now_ms`; how many there were."""
        total = 0
        while returned := await self._outbox.send(scripts.return_due_tasks(now_ms, RETURN_AT_ONCE)):
            total += int(returned)
        if total:
            log.info("reservations_returned", count=total)
        return total


def _outcome(report: Report) -> tuple[messages.Status, str]:
    if report.status == "cancelled":
        return "cancelled", "cancelled"
    if report.status == "error" or report.error or report.reason:
        return "error", _CODES.get(report.reason, "exit")
    return "success", ""


def _record(
    head: messages.CallHead,
    status: messages.Status,
    started_ms: int | None,
    *,
    finished_ms: int | None = None,
    code: str = "",
    message: str = "",
) -> messages.Record:
    return messages.Record(
        call_id=head.call_id,
        status=status,
        mode=head.mode,
        app=head.app,
        path=head.path,
        image=head.image,
        queued_ms=head.accepted_ms,
        started_ms=started_ms,
        finished_ms=finished_ms,
        code=code,
        message=message,
        attempt=head.attempt,
        callback=head.callback,
    )


def task_json(task: Task) -> dict[str, Any]:
    """Return a task as the public API shows it.

    Its payload is text; bytes that are no UTF-8 are base64, and `payload_encoding` says which.
    """
    head, parcel = task.head, task.parcel
    shown: dict[str, Any] = {
        "id": head.call_id,
        "status": task.status,
        "image": head.image,
        "app_name": head.app,
        "path": head.path,
        "priority": 0,
        "timeout": head.timeout_ms // 1000,
        "created_at": timestamps.rfc3339(head.accepted_ms),
    }
    if task.error:
        shown["error"] = task.error
    if parcel is not None:
        shown["idle_timeout"] = parcel.idle_timeout_s
        shown["env_vars"] = parcel.config_env | parcel.call_env
        shown |= payload_json(parcel.payload)
    return shown
