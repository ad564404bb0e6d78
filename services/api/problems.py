"""What does HTTP say when something went wrong? The one place where errors meet HTTP.

Pure: from an error to status, body and headers; the middleware makes responses of them.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from shared.errors import CODES, Code, MillraceError

APP_NOT_FOUND = "App not found"
ROUTE_NOT_FOUND = "Route not found"
#: The same of a call: `/r/` has words of its own.
ROUTE_NOT_FOUND_ON_APP = "Route not found on that application"
INTERNAL = "Something unexpected happened on the server"


class BadRequest(MillraceError):
    """The request is malformed."""

    code = "invalid_request"


class NotFound(MillraceError):
    """There is no such thing."""

    code = "not_found"


class Conflict(MillraceError):
    """It exists already."""

    code = "conflict"


class TooLarge(MillraceError):
    """The request body is over its limit."""

    code = "too_large"


class SlowBody(MillraceError):
    """The request body came too slowly."""

    code = "slow_body"


class AppNotFound(NotFound):
    """App not found"""


class RouteNotFound(NotFound):
    """Route not found"""


class ManagementTokenRefused(MillraceError):
    """Invalid API Authorization token."""

    code = "unauthorized"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before it is one: JSON to be, its status and headers."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


def _retry_after(code: Code, known_s: float | None) -> dict[str, str]:
    """Return when to try again: `known_s` if somebody knows, else what the code says."""
    after_s = code.retry_after_s if known_s is None else max(1, math.ceil(known_s))
    return {} if after_s is None else {"Retry-After": str(after_s)}


def management(error: MillraceError) -> Answer:
    """Return what a management request gets for an error.

    >>> management(AppNotFound())
    Answer(status=404, body={'error': {'message': 'App not found'}}, headers={})
    """
    code = CODES[error.code]
    if isinstance(error, ManagementTokenRefused):
        return Answer(code.status, {"error": error.message})
    return Answer(
        code.status, {"error": {"message": error.message}}, _retry_after(code, error.retry_after_s)
    )


def invocation(
    request_id: str, code_name: str, message: str, retry_after_s: float | None = None
) -> Answer:
    """Return what a caller gets for a call that failed; `code_name` is a key of `CODES`.

    >>> invocation("1", "timeout", "Timed out").body["error"]
    {'message': 'Timed out', 'code': 'timeout', 'fault': 'function'}
    """
    code = CODES[code_name]
    error = {"message": message, "code": code.word, "fault": code.fault}
    headers = {"X-Call-Id": request_id, **_retry_after(code, retry_after_s)}
    return Answer(code.status, {"request_id": request_id, "error": error}, headers)


def route_token_refused(request_id: str, message: str) -> Answer:
    """Return what a caller without a valid token of the route gets."""
    headers = {"WWW-Authenticate": 'Bearer realm=""', "X-Call-Id": request_id}
    return Answer(CODES["unauthorized"].status, {"error": {"message": message}}, headers)


def unexpected(request_id: str) -> Answer:
    """Return what a management request gets for a defect: no more than where the log has it."""
    return Answer(500, {"request_id": request_id, "error": {"message": INTERNAL}})
