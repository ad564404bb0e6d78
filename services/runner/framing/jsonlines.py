"""How does a call look in the format `json`, and what is its answer? Pure: lines to events.

A call is one JSON object on one line of standard input, its answer one JSON object on one line of
standard output:

    {"call_id": "01a2...", "method": "POST", "request_url": "http://...", "headers": {"Accept":
     ["*/*"]}, "content_type": "text/plain", "deadline": "2024-12-04T05:17:23.328Z",
     "deadline_ms": 1733289443328, "body": "World", "is_base64": false}

    {"status": 200, "content_type": "text/plain", "body": "Hello, World!"}
"""

import binascii

import msgspec

from services.runner.framing import answer, fields
from services.runner.framing.answer import BadAnswer, Event
from shared import messages, timestamps


class Call(msgspec.Struct, frozen=True):
    """What a function reads."""

    call_id: str
    method: str
    #: scheme://host/path?query as the caller wrote it.
    request_url: str
    #: By names in Go's canonical form; a repeated field has several values.
    headers: dict[str, list[str]]
    #: The value of `Content-Type`; "" without one.
    content_type: str
    #: When the run must have ended: RFC 3339 in UTC, and epoch milliseconds.
    deadline: str
    deadline_ms: int
    body: str
    #: Whether the body is base64 in `body`, because it is not UTF-8.
    is_base64: bool


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a function writes; all of it may be left out, or null, as some serializers say that."""

    #: If given, it must be that of the call.
    call_id: str | None = None
    status: int | None = None
    headers: dict[str, str | list[str]] | None = None
    #: Wins over a `Content-Type` among the headers.
    content_type: str | None = None
    #: A string is the body itself, null is none, and any other value is sent as JSON.
    body: msgspec.Raw = msgspec.Raw(b"null")
    #: Whether `body` is a string with base64 of the body.
    is_base64: bool | None = None


#: What some readers take for the end of a line, Node's among them. In JSON these can only stand in
#: a string, and mean the same as their escapes.
_LINE_ENDS = tuple((end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029")

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Answer)
_string_decoder = msgspec.json.Decoder(str)


def request(head: messages.CallHead, parcel: messages.Parcel, deadline_ms: int) -> bytes:
    """Return a call's line; `deadline_ms` is when its run must have ended, epoch milliseconds."""
    body, is_base64 = _text(parcel.payload)
    call = Call(
        call_id=head.call_id,
        method=parcel.method,
        request_url=parcel.url,
        headers=_grouped(parcel.headers),
        content_type=fields.first(parcel.headers, "content-type"),
        deadline=timestamps.rfc3339(deadline_ms),
        deadline_ms=deadline_ms,
        body=body,
        is_base64=is_base64,
    )
    line = _encoder.encode(call)
    if not line.isascii():
        for end, escape in _LINE_ENDS:
            line = line.replace(end, escape)
    return line + b"\n"


def _text(payload: bytes) -> tuple[str, bool]:
    try:
        return payload.decode(), False
    except UnicodeDecodeError:
        return binascii.b2a_base64(payload, newline=False).decode(), True


def _grouped(headers: fields.Fields) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        if key := fields.canonical(name):
            grouped.setdefault(key, []).append(value)
    return grouped


class Parser:
    """Reads one line. See `answer.Parser`; its events come all at once."""

    __slots__ = ("_answered", "_call_id", "_line_max_bytes", "_pending", "_pending_bytes")

    def __init__(self, call_id: str, line_max_bytes: int) -> None:
        """`call_id` is what one in the answer has to be; a line over the maximum is `TooLarge`."""
        self._call_id = call_id
        self._line_max_bytes = line_max_bytes
        self._answered = False
        #: The pieces of a line whose end has not come; the first does not begin with a line end.
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """Return the events of the line, once it is whole. Raises `BadAnswer`."""
        if self._answered:
            answer.require_blank(data)
            return []
        if not self._pending:
            data = data.lstrip(b"\r\n")
        line, end, rest = data.partition(b"\n")
        self._keep(line)
        if not end:
            return []
        answer.require_blank(rest)
        self._answered = True
        return _events(b"".join(self._pending), self._call_id)

    def eof(self) -> list[Event]:
        """Return nothing if the line has been read. Raises `BadAnswer` if not."""
        if not self._answered:
            raise answer.unfinished(begun=bool(self._pending))
        return []

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pending.append(piece)
            self._pending_bytes += len(piece)
        if self._pending_bytes > self._line_max_bytes:
            raise answer.TooLarge(f"The answer's line is over {self._line_max_bytes} bytes long")


def _events(line: bytes, call_id: str) -> list[Event]:
    try:
        said = _decoder.decode(line)
        body, default_type = _body(said)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"Not an answer in JSON: {error}: {answer.excerpt(line)}") from error
    if said.call_id is not None and said.call_id != call_id:
        raise BadAnswer(f"The answer is to another call: {answer.excerpt(line)}")
    status = 200 if said.status is None else said.status
    if not fields.is_final(status):
        raise BadAnswer(f"The answer's status is {status}: not one a caller can be given")
    head = answer.Head(status, _headers(said, default_type), streamed=False)
    data = [answer.Data(body)] if body and fields.has_body(status) else []
    return [head, *data, answer.End(reusable=True)]


def _body(said: Answer) -> tuple[bytes, str]:
    """Return the body and the type it has if the answer names none; "" if that is unknown.

    Raises ValueError for a body that cannot be made of what was said.
    """
    raw = bytes(said.body)
    if raw.startswith(b'"'):
        body = _string_decoder.decode(raw).encode()
        return binascii.a2b_base64(body, strict_mode=True) if said.is_base64 else body, ""
    if raw == b"null":
        return b"", ""
    if said.is_base64:
        raise ValueError("`is_base64`, but the body is not a string")
    raw.decode()  # What is passed over is not checked by the decoder.
    return raw, "application/json"


def _headers(said: Answer, default_type: str) -> fields.Fields:
    """Return the answer's fields as they may be sent on. Raises `BadAnswer`."""
    found = [
        (name, value)
        for name, values in (said.headers or {}).items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    if len(found) > fields.FIELDS_MAX:
        raise BadAnswer(f"The answer has more than {fields.FIELDS_MAX} headers")
    if sum(len(name) + len(value) for name, value in found) > fields.HEAD_MAX_BYTES:
        raise BadAnswer(f"The answer's headers are longer than {fields.HEAD_MAX_BYTES} bytes")
    for name, _ in found:
        if not fields.is_name(name):
            raise BadAnswer(f"The answer has a header {answer.excerpt(name.encode())}")
    content_type = said.content_type or fields.first(found, "content-type") or default_type
    return fields.passed_on(found, content_type)
