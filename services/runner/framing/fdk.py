"""How does a call look in the format `http-stream`, and what is its answer? Pure: the Fn contract.

The function's process is an HTTP server on a unix socket, made by one of the Fn Project's function
development kits (FDKs). A call is `POST /call`; what belongs to the caller's own request travels in
fields whose names begin with `Fn-Http-`, and so does what belongs to the caller's answer:

    POST /call HTTP/1.1                         HTTP/1.1 200 OK
    Fn-Intent: httprequest                      Fn-Http-Status: 201
    Fn-Call-Id: 01a208ab-...                    Fn-Http-H-Location: /made/1
    Fn-Deadline: 2024-12-04T05:17:23.328Z       Content-Type: application/json
    Fn-Http-Method: PUT                         Fn-Fdk-Version: fdk-python/0.1.128
    Fn-Http-Request-Url: http://...
    Fn-Http-H-Accept: */*
    Content-Type: text/plain
    ...

The kit's own status says what became of the function: 200 it answered, 502 it failed, 504 it took
too long. Any other one is the kit's own complaint.
"""

from collections.abc import Iterator

from services.runner.framing import answer, fields, http1
from services.runner.framing.answer import BadAnswer, Event
from shared import messages, timestamps

#: Where the kit listens, in the sandbox.
LISTENER = "/tmp/iofs/lsnr.sock"  # noqa: S108 (the contract's own path, in the container)

_PREFIX = "fn-http-h-"
_CUT = len(_PREFIX)
_ANSWERED, _FAILED, _TIMED_OUT = 200, 502, 504
#: What a kit says of a failure is kept up to this.
_MESSAGE_MAX_BYTES = 512
#: The caller's fields that do not travel under `Fn-Http-H-`: the type has its own place, the host
#: is in the address.
_NOT_PREFIXED = fields.REWRITTEN | {"content-type", "host"}
#: Names that begin so are the platform's; the Python kit would mistake a caller's for ours.
_RESERVED = "fn-"
_SOME_BYTES = "application/octet-stream"
#: A connection may be closed with the answer: the process takes the next one.
_END = answer.End(reusable=True)


def environment(app: str, path: str, memory_mb: int) -> dict[str, str]:
    """Return the variables that a process of this format gets at its start.

    Apps and routes have no ids beside their names.
    """
    return {
        "FN_FORMAT": "http-stream",
        "FN_LISTENER": f"unix:{LISTENER}",
        "FN_MEMORY": str(memory_mb),
        "FN_TYPE": "sync",
        "FN_APP_ID": app,
        "FN_APP_NAME": app,
        "FN_FN_ID": f"{app}{path}",
        "FN_FN_NAME": path.removeprefix("/"),
    }


def request(head: messages.CallHead, parcel: messages.Parcel, deadline_ms: int) -> bytes:
    """Return a call's request; `deadline_ms` is when its run must have ended, epoch milliseconds.

    As everywhere, no value can leave its line.
    """
    lines = [
        "POST /call HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(parcel.payload)}",
        f"Fn-Call-Id: {head.call_id}",
        f"Fn-Deadline: {timestamps.rfc3339(deadline_ms)}",
        "Fn-Intent: httprequest",
        f"Fn-Http-Method: {fields.clean(parcel.method)}",
        f"Fn-Http-Request-Url: {fields.clean(parcel.url)}",
        *_passed_in(parcel.headers),
    ]
    content_type = fields.first(parcel.headers, "content-type")
    if content_type or parcel.payload:
        lines.append(f"Content-Type: {fields.clean(content_type) or _SOME_BYTES}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + parcel.payload


def _passed_in(headers: fields.Fields) -> Iterator[str]:
    for name, value in headers:
        key, plain = fields.canonical(name), name.lower()
        if key and plain not in _NOT_PREFIXED and not plain.startswith(_RESERVED):
            yield f"Fn-Http-H-{key}: {fields.clean(value)}"


class Parser:
    """Reads one answer of a kit. See `answer.Parser`."""

    __slots__ = ("_bodiless", "_http", "_message", "_status")

    def __init__(self, call_id: str) -> None:
        """`call_id` is only for symmetry: the kits do not repeat it."""
        self._http = http1.Parser(call_id)
        #: The kit's own status; 0 before its head.
        self._status = 0
        #: What the kit says if the function failed.
        self._message = b""
        self._bodiless = False

    def feed(self, data: bytes) -> list[Event]:
        """Return what is known now. Raises `BadAnswer`."""
        return self._mapped(self._http.feed(data))

    def eof(self) -> list[Event]:
        """Return what it means that the connection ended. Raises `BadAnswer`."""
        return self._mapped(self._http.eof())

    def _mapped(self, events: list[Event]) -> list[Event]:
        return [mapped for event in events for mapped in self._map(event)]

    def _map(self, event: Event) -> list[Event]:
        match event:
            case answer.Head(status):
                self._status = status
                return [self._head(event)] if status == _ANSWERED else []
            case answer.Data(data) if self._status != _ANSWERED:
                self._message = (self._message + data)[:_MESSAGE_MAX_BYTES]
                return []
            case answer.Data():
                return [] if self._bodiless else [event]
            case answer.End() if self._status != _ANSWERED:
                return [self._failure(), _END]
            case _:
                return [_END]

    def _head(self, head: answer.Head) -> answer.Head:
        about = {name.lower(): value for name, value in head.headers}
        status = _caller_status(about.get("fn-http-status", ""))
        self._bodiless = not fields.has_body(status)
        content_type = about.get(f"{_PREFIX}content-type") or about.get("content-type", "")
        found = [
            (name[_CUT:], value)
            for name, value in head.headers
            if len(name) > _CUT and name[:_CUT].lower() == _PREFIX
        ]
        return answer.Head(status, fields.passed_on(found, content_type), head.streamed)

    def _failure(self) -> answer.FunctionFailed:
        if self._status not in (_FAILED, _TIMED_OUT):
            said = f"status {self._status}: {answer.excerpt(self._message)}"
            raise BadAnswer(f"The function's FDK answered with {said}")
        message = fields.clean(self._message.decode(errors="replace")).strip()
        return answer.FunctionFailed(message, timed_out=self._status == _TIMED_OUT)


def _caller_status(told: str) -> int:
    """Return the status that the caller gets; 200 if the function names none."""
    if not told:
        return _ANSWERED
    status = int(told) if told.isascii() and told.isdigit() and len(told) == 3 else 0  # noqa: PLR2004
    if not fields.is_final(status):
        shown = answer.excerpt(told.encode())
        raise BadAnswer(f"The answer's Fn-Http-Status is {shown}: not one a caller can be given")
    return status
