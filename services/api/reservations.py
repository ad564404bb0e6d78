"""Which async call does an outside worker get, and what becomes of it?

A worker reserves a waiting call, runs it elsewhere, and acknowledges it within
`RESERVED_FOR_MS`; else the call waits again, and whoever comes next runs it.
"""

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

import structlog

from services.api import timestamps
from shared import clock, keys, messages, scripts, streams
from shared.errors import Unavailable, Undecodable

log = structlog.get_logger()

RESERVED_FOR_MS = 60_000
RETURN_EVERY_S = 1.0
#: Due reservations returned by one script, so that it never holds up Redis.
RETURN_AT_ONCE = 100
#: Candidates looked at in one go: the scheduler and other workers take from the same stream.
CANDIDATES = 16
LOOKS_MAX = 8

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
        for _ in range(LOOKS_MAX):
            candidates = await self._outbox.send(
                ("XRANGE", keys.CALLS_ASYNC, "-", "+", "COUNT", CANDIDATES)
            )
            for entry_id, fields in candidates:
                task = await self._take(entry_id, fields)
                if task:
                    return task
            if len(candidates) < CANDIDATES:
                break
        return None

    async def _take(self, entry_id: bytes, fields: dict[bytes, bytes]) -> Task | None:
        """Reserve this call; None if somebody else has it, or nobody can read it.

        The unreadable is left to the scheduler, who sets it aside.
        """
        try:
            head = messages.decode(fields.get(b"h"), messages.CallHead)
        except Undecodable:
            return None
        now_ms = clock.epoch_ms()
        record = _record(head, "running", now_ms)
        command = scripts.reserve_task(entry_id, record, now_ms + RESERVED_FOR_MS)
        if not await self._outbox.send(command):
            return None
        raw = fields.get(b"p") or await self._outbox.send(("GET", keys.parcel(head.call_id)))
        try:
            return Task(head, "running", messages.decode(raw, messages.Parcel))
        except Undecodable as error:
            await self._end(head, "error", "internal", f"its input is lost: {error}")
            return None

    async def acknowledge(self, report: Report) -> Task | None:
        """End a reserved call as its worker says; None if it is not reserved (any more)."""
        raw = await self._outbox.send(("HGET", keys.TASKS_RESERVED, report.call_id))
        if raw is None:
            return None
        head = messages.decode(raw, messages.CallHead)
        status, code = _outcome(report)
        ended = await self._end(head, status, code, report.error)
        return Task(head, status, error=report.error) if ended else None

    async def _end(
        self, head: messages.CallHead, status: messages.Status, code: str, message: str
    ) -> bool:
        record = _record(
            head, status, None, finished_ms=clock.epoch_ms(), code=code, message=message
        )
        return bool(await self._outbox.send(scripts.end_task(record)))

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
        shown |= _payload_json(parcel.payload)
    return shown


def _payload_json(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode(), "payload_encoding": "utf-8"}
    except UnicodeDecodeError:
        encoded = base64.b64encode(payload).decode()
        return {"payload": encoded, "payload_encoding": "base64"}
