"""What does a caller get to see of an outcome? Pure: from a reply to status, headers and body.

A function's answer is its bytes; a failure is JSON that says what went wrong, with a stable word
for programs and whose fault it was.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from services.api import problems
from shared import messages

Header = tuple[str, str]

#: Headers that belong to one connection, or that only the server can know.
_OWN = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
#: How many bytes decide whether an answer is text.
_SNIFFED_BYTES = 512
#: Control bytes no text has (tab, newlines, form feed and escape may be in text).
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_TEXT, _BYTES = "text/plain; charset=utf-8", "application/octet-stream"
_JSON = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back over HTTP."""

    status: int
    headers: Sequence[Header]
    body: bytes


def content_type(body: bytes) -> str:
    r"""Return the type for a body nobody named one for: text if it reads as UTF-8, else bytes.

    Never HTML or a script, whatever it looks like: a browser shall not run what nobody declared.

    >>> content_type(b'{"a": 1}'), content_type(b"\x89PNG")
    ('text/plain; charset=utf-8', 'application/octet-stream')
    """
    start = body[:_SNIFFED_BYTES]
    if _BINARY.search(start):
        return _BYTES
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start, final=len(start) == len(body))
    except UnicodeDecodeError:
        return _BYTES
    return _TEXT


def route_headers(headers: Mapping[str, Iterable[str]]) -> tuple[Header, ...]:
    """Return a route's response headers, each value one header; its connection's own left out."""
    return tuple(
        (name, value)
        for name, values in headers.items()
        if name.lower() not in _OWN
        for value in values
    )


def succeeded(
    call_id: str,
    reply: messages.Reply,
    outcome: messages.Answered,
    route: Sequence[Header],
    total_ms: float,
) -> Answer:
    """Return a function's answer, `total_ms` after its call was accepted.

    The route's headers win over the function's of the same name.
    """
    headers = list(route)
    taken = {name.lower() for name, _ in route} | _OWN
    headers += [(name, value) for name, value in outcome.headers if name.lower() not in taken]
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", content_type(outcome.body)))
    headers.append(("X-Call-Id", call_id))
    headers.append(("Server-Timing", server_timing(reply, total_ms)))
    return Answer(outcome.status, headers, outcome.body)


def server_timing(reply: messages.Reply, total_ms: float) -> str:
    """Return where the time went; what was neither start nor run was waiting and moving.

    >>> server_timing(messages.Reply("id", messages.Answered(b""), 60.0, 20.0), 81.26)
    'queue;dur=1.3, start;dur=60.0, run;dur=20.0'
    """
    queue_ms = max(0.0, total_ms - reply.start_ms - reply.run_ms)
    return f"queue;dur={queue_ms:.1f}, start;dur={reply.start_ms:.1f}, run;dur={reply.run_ms:.1f}"


def failed(
    call_id: str, code: str, message: str, route: Sequence[Header], *, timing: str = ""
) -> Answer:
    """Return the answer to a call that failed or was refused, with the route's headers.

    `code` is a key of `errors.CODES`; `timing` says where the time went, if it got so far.
    """
    problem = problems.invocation(call_id, code, message)
    headers = [*_own(route), *problem.headers.items()]
    if timing:
        headers.append(("Server-Timing", timing))
    return Answer(problem.status, headers, msgspec.json.encode(problem.body))


def accepted(call_id: str, route: Sequence[Header]) -> Answer:
    """Return the answer to an async call that is safe in the queue."""
    headers = [*_own(route), ("X-Call-Id", call_id)]
    return Answer(202, headers, msgspec.json.encode({"call_id": call_id}))


def _own(route: Sequence[Header]) -> list[Header]:
    """Return the headers of an answer that the platform wrote: JSON, whatever the route's is."""
    headers = [(name, value) for name, value in route if name.lower() != "content-type"]
    return [*headers, ("Content-Type", _JSON)]
