"""What does a caller get to see of an outcome? Pure: from a reply to status, headers and body.

A function's answer is its bytes; a failure is JSON that says what went wrong, with a stable word
for programs and whose fault it was.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from services.api import headers, problems
from shared import messages

Header = tuple[str, str]

#: How many bytes decide whether an answer is text.
_SNIFFED_BYTES = 512
#: Control bytes no text has (tab, newlines, form feed and escape may be in text).
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_TEXT, _BYTES = "text/plain; charset=utf-8", "application/octet-stream"
_JSON = "application/json; charset=utf-8"
#: Statuses that end an exchange, whatever they say of it.
_STATUS_MIN, _STATUS_MAX = 200, 599


class Answer(NamedTuple):
    """What goes back over HTTP."""

    status: int
    headers: Sequence[Header]
    body: bytes


class RouteHeaders(NamedTuple):
    """What a route says of its answers' headers; made once for all of them."""

    #: The headers, each value one of them; its connection's own left out.
    pairs: tuple[Header, ...] = ()
    #: Lower-case names that its function cannot set: these, and what only the platform knows.
    taken: frozenset[str] = headers.OWN | {"x-call-id"}


def route_headers(configured: Mapping[str, Iterable[str]]) -> RouteHeaders:
    """Return what a route's response headers mean to each answer."""
    pairs = tuple(
        (name, value)
        for name, values in configured.items()
        if name.lower() not in headers.OWN
        for value in values
    )
    return RouteHeaders(pairs, RouteHeaders().taken | {name.lower() for name, _ in pairs})


def declared_type(route: RouteHeaders) -> str:
    """Return the `Content-Type` that a route gives its answers; "" if it names none."""
    return next((value for name, value in route.pairs if name.lower() == "content-type"), "")


def content_type(body: bytes) -> str:
    r"""Return the type for a body nobody named one for: text if it reads as UTF-8, else bytes.

    Never HTML or a script, whatever it looks like: a browser shall not run what nobody declared.

    >>> content_type(b'{"a": 1}'), content_type(b"\x89PNG")
    ('text/plain; charset=utf-8', 'application/octet-stream')
    """
    start = body[:_SNIFFED_BYTES]
    if _BINARY.search(start):
        return _BYTES
    if start.isascii():
        return _TEXT
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) == len(body))
    except UnicodeDecodeError:
        return _BYTES
    return _TEXT


def unfit(status: int, function: Sequence[Header]) -> str | None:
    """Return why HTTP cannot carry what a function says of its answer; None if it can.

    >>> unfit(99, [])
    'The function answered with the status 99; it must be from 200 to 599'
    """
    if not _STATUS_MIN <= status <= _STATUS_MAX:
        return (
            f"The function answered with the status {status}; "
            f"it must be from {_STATUS_MIN} to {_STATUS_MAX}"
        )
    for name, value in function:
        if not headers.is_name(name) or not headers.is_value(value):
            return f"The function answered with a header that HTTP cannot carry: {name!r}"
    return None


def succeeded(
    call_id: str,
    reply: messages.Reply,
    outcome: messages.Answered,
    route: RouteHeaders,
    total_ms: float,
) -> Answer:
    """Return a function's answer, `total_ms` after its call was accepted.

    The route's headers win over the function's of the same name.
    """
    merged, typed = _merged(route, outcome.headers)
    if not typed:
        merged.append(("Content-Type", content_type(outcome.body)))
    merged.append(("X-Call-Id", call_id))
    merged.append(("Server-Timing", server_timing(reply, total_ms)))
    return Answer(outcome.status, merged, outcome.body)


def begun(call_id: str, head: messages.StreamHead, route: RouteHeaders, total_ms: float) -> Answer:
    """Return the beginning of a streamed answer, `total_ms` after its call was accepted.

    Nobody knows yet what its bytes will be, nor how long they will take.
    """
    merged, typed = _merged(route, head.headers)
    if not typed:
        merged.append(("Content-Type", _BYTES))
    merged.append(("X-Call-Id", call_id))
    merged.append(("Server-Timing", f"head;dur={total_ms:.1f}"))
    return Answer(head.status, merged, b"")


def _merged(route: RouteHeaders, function: Iterable[Header]) -> tuple[list[Header], bool]:
    """Return the route's headers with the function's below, and whether the type is among them."""
    merged = list(route.pairs)
    typed = "content-type" in route.taken
    for pair in function:
        name = pair[0].lower()
        if name not in route.taken:
            merged.append(pair)
            typed = typed or name == "content-type"
    return merged, typed


def server_timing(reply: messages.Reply, total_ms: float) -> str:
    """Return where the time went; what was neither start nor run was waiting and moving.

    >>> server_timing(messages.Reply("id", messages.Answered(b""), 60.0, 20.0), 81.26)
    'queue;dur=1.3, start;dur=60.0, run;dur=20.0'
    """
    queue_ms = max(0.0, total_ms - reply.start_ms - reply.run_ms)
    return f"queue;dur={queue_ms:.1f}, start;dur={reply.start_ms:.1f}, run;dur={reply.run_ms:.1f}"


def failed(
    call_id: str,
    code: str,
    message: str,
    route: RouteHeaders,
    *,
    timing: str = "",
    retry_after_s: float | None = None,
) -> Answer:
    """Return the answer to a call that failed or was refused, with the route's headers.

    `code` is a key of `errors.CODES`; `timing` says where the time went, if it got so far;
    `retry_after_s` when to try again, if more is known than the code says.
    """
    problem = problems.invocation(call_id, code, message, retry_after_s)
    own = [*_own(route), *problem.headers.items()]
    if timing:
        own.append(("Server-Timing", timing))
    return Answer(problem.status, own, msgspec.json.encode(problem.body))


def accepted(call_id: str, route: RouteHeaders) -> Answer:
    """Return the answer to an async call that is safe in the queue."""
    headers = [*_own(route), ("X-Call-Id", call_id)]
    return Answer(202, headers, msgspec.json.encode({"call_id": call_id}))


def _own(route: RouteHeaders) -> list[Header]:
    """Return the headers of an answer that the platform wrote: JSON, whatever the route's is."""
    kept = [(name, value) for name, value in route.pairs if name.lower() != "content-type"]
    return [*kept, ("Content-Type", _JSON)]
