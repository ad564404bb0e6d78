"""What can go wrong, whose fault is it, and what does HTTP say?

One table, `CODES`: every failure a client can see has its stable word there. A failing function
is a *result* and travels as `messages.Failed`; everything else is an exception with this root.
"""

from dataclasses import dataclass
from typing import Literal

Fault = Literal["caller", "function", "platform"]


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table: a stable word and what it means over HTTP."""

    word: str
    status: int
    fault: Fault
    meaning: str
    #: Whether the same request may well succeed later; sets `Retry-After`.
    retry_after_s: int | None = None


_ROWS = (
    Code("invalid_request", 400, "caller", "The request is malformed or a field is wrong."),
    Code("unauthorized", 401, "caller", "A token is missing, expired or wrongly signed."),
    Code("not_found", 404, "caller", "No such app, route, call or page."),
    Code("conflict", 409, "caller", "It exists already, or something still depends on it."),
    Code(
        "idempotency_mismatch",
        409,
        "caller",
        "The Idempotency-Key was used before, with another request.",
    ),
    Code("idempotency_running", 409, "caller", "The first call with this key still runs.", 1),
    Code(
        "idempotency_no_answer",
        409,
        "caller",
        "The answer of the first call with this key is not kept; it is not run again.",
    ),
    Code("callback_url", 400, "caller", "X-Callback-Url is no address that may be called back."),
    Code("too_large", 413, "caller", "The request body or environment is over its limit."),
    Code("slow_body", 408, "caller", "The request body came too slowly."),
    Code("inflight_limit", 429, "caller", "The app has as many calls under way as it may.", 1),
    Code("rate_limit", 429, "caller", "The app is called more often than it may be.", 1),
    Code("timeout", 504, "function", "The function ran longer than its route's timeout."),
    Code("out_of_memory", 500, "function", "The function used more memory than its route has."),
    Code("exit", 500, "function", "The function ended with an exit code other than 0."),
    Code("signal", 500, "function", "The function was ended by a signal."),
    Code("failed", 500, "function", "The function says itself that it failed."),
    Code("bad_answer", 500, "function", "The function's answer does not follow its format."),
    Code("image_pull", 500, "function", "The registry does not have the route's image."),
    Code("image_invalid", 500, "function", "The image has nothing that can be started."),
    Code("cancelled", 499, "caller", "The caller left before the function had answered."),
    Code("capacity", 503, "platform", "No runner had room in time, or none ever could.", 5),
    Code("overloaded", 503, "platform", "A queue is full.", 1),
    Code("unavailable", 503, "platform", "Redis, MySQL or a runner's engine is not there.", 2),
    Code("runner_lost", 502, "platform", "The runner of a call that had started is gone."),
    Code("call_lost", 502, "platform", "Redis has lost the call, which may have started."),
    Code("deadline", 504, "platform", "No answer arrived by the call's deadline."),
    Code("internal", 500, "platform", "A defect in the platform; the log has its traceback."),
)

#: By name, as code and wire messages refer to them. A name is its word, but for failures that
#: share one: they differ in whose fault they are, or in what is to be done.
CODES = {
    **{row.word: row for row in _ROWS},
    "response_too_large": Code(
        "too_large", 500, "function", "The function wrote more than the limit."
    ),
    "image_pull_unknown_registry": Code(
        "image_pull",
        500,
        "function",
        "No registry has the name that the route's image begins with.",
    ),
    "image_pull_refused": Code(
        "image_pull", 500, "platform", "The registry refuses the runners' password, or wants one."
    ),
    "image_pull_away": Code(
        "image_pull", 500, "platform", "The registry does not answer, or not with an image.", 5
    ),
}


class MillraceError(Exception):
    """Something in the platform went wrong."""

    #: The name in `CODES` of the row that says what HTTP makes of it.
    code = "internal"
    #: When the same request may well succeed, in seconds; None: as the row of `code` says.
    retry_after_s: float | None = None

    def __init__(self, message: str | None = None) -> None:
        """`message` is for the client; without it, the docstring's first line serves."""
        self.message = message or (self.__doc__ or "").partition("\n")[0]
        super().__init__(self.message)


class Unavailable(MillraceError):
    """A service that this one depends on does not answer."""

    code = "unavailable"


class Refused(Unavailable):
    """Where that service should be, nobody listens: it is away for everybody."""


class Undecodable(MillraceError):
    """A stream entry is not what its stream carries."""


class BadSettings(MillraceError):
    """Some settings are wrong."""
