"""What does the API tell about calls? Finding them, waiting for their end, showing them.

Records reach MySQL a moment after the call was accepted, and clients may ask sooner.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from services.api import cursors, paths
from services.api.callbacks import Shown
from services.api.problems import BadRequest, Conflict, NotFound
from services.api.records import Filter, Records, Result
from shared import clock, ids, messages, timestamps

WAIT_MAX_S = 60.0
LIMIT_DEFAULT = 100
STATUSES: tuple[messages.Status, ...] = ("queued", "running", *messages.ENDED)
#: A call this young may not be recorded yet; its record is awaited so long before "not found".
YOUNG_MS = 2_000
RECORDER_WAIT_S = 1.0
#: Pauses between looks into MySQL, growing from the first to the longest.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


class Calls:
    """The read side of calls. Raises `Unavailable` while MySQL is away."""

    def __init__(self, records: Records) -> None:
        """Read from `records`."""
        self._records = records

    async def find(self, call_id: str, wait_s: float) -> messages.Record:
        """Return what is known of a call, after waiting up to `wait_s` seconds for its end.

        Raises `NotFound`.
        """
        call_id = call_id.lower()
        made_ms = ids.call_time_ms(call_id)
        if made_ms is None:
            raise NotFound("Call not found")
        young = abs(clock.wall_ms() - made_ms) < YOUNG_MS
        begun_s = clock.monotonic_s()
        pause_s = _FIRST_PAUSE_S
        while True:
            record = await self._records.find(call_id)
            patience_s = wait_s if record else young * max(RECORDER_WAIT_S, wait_s)
            rest_s = begun_s + patience_s - clock.monotonic_s()
            if (record and record.status in messages.ENDED) or rest_s <= 0:
                break
            await asyncio.sleep(min(pause_s, rest_s))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        if record is None:
            raise NotFound("Call not found")
        return record

    async def list(self, app: str, wanted: Filter, limit: int) -> list[messages.Record]:
        """Return an app's newest calls of those wanted, newest first."""
        return await self._records.list(app, wanted, limit)

    async def log(self, call_id: str, wait_s: float) -> bytes:
        """Return a call's stderr. Raises `NotFound`, or `Conflict` before the call's end."""
        record = await self._ended(call_id, wait_s)
        body = await self._records.log(record.call_id)
        if failures := await self.failures(record):
            body = b"".join([*map(_told, failures), _heading(record.attempt), body])
        return body

    async def failures(self, record: messages.Record) -> tuple[messages.Attempt, ...]:
        """Return those attempts of a call that failed and were followed by another."""
        return await self._records.failures(record.call_id) if record.attempt > 1 else ()

    async def result(self, call_id: str, wait_s: float) -> Result:
        """Return an async call's stdout. Raises `NotFound`, or `Conflict` before its end."""
        record = await self._ended(call_id, wait_s)
        result = await self._records.result(record.call_id)
        if result is None:
            raise NotFound(_why_no_result(record))
        return result

    async def _ended(self, call_id: str, wait_s: float) -> messages.Record:
        record = await self.find(call_id, wait_s)
        if record.status not in messages.ENDED:
            raise Conflict(f"The call is {record.status}; add ?wait=30 to wait for its end")
        return record


def _heading(attempt: int, failed: str = "") -> bytes:
    return f"--- attempt {attempt}{failed} ---\n".encode()


def _told(failure: messages.Attempt) -> bytes:
    """Return an attempt's log under a line that says how it failed; the next begins a line."""
    end = b"" if failure.log.endswith(b"\n") or not failure.log else b"\n"
    failed = f" failed: {failure.code}: {failure.message}"
    return _heading(failure.number, failed) + failure.log + end


def _why_no_result(record: messages.Record) -> str:
    if record.mode == "sync":
        return "No result is kept of a sync call: its caller has had it"
    if record.status != "success":
        return f"The call has no result: {record.status}, {record.message or record.code}"
    return "The result of this call was not kept"


def wait_s(query: Mapping[str, str]) -> float:
    """Return the seconds a client wants to wait. Raises `BadRequest`, which names `wait`."""
    text = query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_MAX_S:
        raise BadRequest(f"wait must be seconds from 0 to {WAIT_MAX_S:.0f}, not {text!r}")
    return seconds


def wanted(query: Mapping[str, str]) -> tuple[Filter, int]:
    """Return which calls, and how many, a query string asks for.

    Raises `BadRequest`, which names the field and how to write it.
    """
    page = cursors.page(query)
    path = query.get("path") or query.get("route")
    found = Filter(
        path=paths.clean(path) if path else None,
        status=_status(query.get("status")),
        from_ms=_time("from", query.get("from")),
        to_ms=_time("to", query.get("to")),
        before_id=cursors.call_id(page),
    )
    return found, page.limit or LIMIT_DEFAULT


def _status(text: str | None) -> messages.Status | None:
    if not text:
        return None
    for status in STATUSES:
        if status == text:
            return status
    raise BadRequest(f"status must be one of {', '.join(STATUSES)}, not {text!r}")


def _time(name: str, text: str | None) -> int | None:
    if not text:
        return None
    try:
        return timestamps.parse(text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"{name} must be RFC 3339 (2026-01-31T12:00:00Z) or epoch milliseconds, not {text!r}"
        ) from error


def as_json(record: messages.Record) -> dict[str, Any]:
    """Return a call as the public API shows it; what is not known is null.

    It was created when it got its id, which is the time that lists are filtered by.
    """
    return {
        "id": record.call_id,
        "app_name": record.app,
        "path": record.path,
        "type": record.mode,
        "status": record.status,
        "code": record.code or None,
        "error": record.message or None,
        "exit_code": record.exit_code,
        "attempt": record.attempt,
        "redrive_of": record.redrive_of or None,
        "image": record.image,
        "image_digest": record.digest or None,
        "runner": record.runner_id or None,
        "created_at": timestamps.rfc3339(ids.call_time_ms(record.call_id) or record.queued_ms),
        "started_at": _moment(record.started_ms),
        "completed_at": _moment(record.finished_ms),
        "peak_memory_bytes": record.peak_memory_bytes,
    }


def callback_json(callback: Shown | None) -> dict[str, Any] | None:
    """Return what became of a call's callback by now; None if nobody is to be called back."""
    if callback is None:
        return None
    return {
        "url": callback.url,
        "state": callback.state,
        "attempts": callback.attempts,
        "next_at": _moment(callback.due_ms),
        "tries": [
            {
                "at": timestamps.rfc3339(one.at_ms),
                "status": one.status,
                "error": one.error or None,
            }
            for one in callback.tries
        ],
    }


def failure_json(failure: messages.Attempt) -> dict[str, Any]:
    """Return how an attempt failed, as the public API shows it."""
    return {
        "attempt": failure.number,
        "code": failure.code,
        "error": failure.message,
        "exit_code": failure.exit_code,
        "runner": failure.runner_id or None,
        "started_at": _moment(failure.started_ms),
        "completed_at": _moment(failure.finished_ms),
    }


def _moment(epoch_ms: int | None) -> str | None:
    return None if epoch_ms is None else timestamps.rfc3339(epoch_ms)
