"""How does a call look in the format `http`, and what is its answer? Pure: bytes to events.

A call is an HTTP/1.1 request on standard input, in IronFunctions' form: always `GET /`, each
variable of the environment a field of its header, `Task-Id` the call's id. The answer is an HTTP
response on standard output. `GET /r/shop/price?payload=x` with `X-Tier: gold` becomes

    GET / HTTP/1.1
    Method: GET
    Header_x_tier: gold
    ...
    Content-Length: 1
    Task-Id: 01a208ab-9a95-7299-b554-f5a8c61a5b76

    x
"""

from collections.abc import Mapping
from functools import lru_cache

from httptools import HttpParserError, HttpResponseParser

from services.runner import environment
from services.runner.framing import answer, fields
from services.runner.framing.answer import BadAnswer, Event
from shared import messages

#: Variables of these names would say something about the frame itself; they are left out.
_FRAME = fields.REWRITTEN | {"expect", "task-id"}
_NAMES = 512
#: Values of `Connection` that name no other field.
_PLAIN_CONNECTION = frozenset({b"", b"close", b"keep-alive"})
_DROPPED = frozenset(name.encode() for name in fields.REWRITTEN | {"task-id"})
_SWITCHING_PROTOCOLS = 101
#: Heads of answers that are remembered, and how long they may be: in all, at most 256 KiB.
_HEADS, _HEAD_BYTES = 256, 1_024
_HEAD_END = b"\r\n\r\n"
#: Made once, by `reusable`.
_ENDS = (answer.End(reusable=False), answer.End(reusable=True))


def request(head: messages.CallHead, parcel: messages.Parcel, deadline_ms: int) -> bytes:
    """Return a call's frame; `deadline_ms` is when its run must have ended, epoch milliseconds."""
    env = environment.assemble(parcel.config_env, parcel.call_env, deadline_ms)
    return frame(env, head.call_id, parcel.payload)


def frame(env: Mapping[str, str], call_id: str, payload: bytes) -> bytes:
    """Return the request that hands a function its environment and its input.

    A value cannot leave its line (`fields.clean`), and a variable whose name cannot be a field's,
    or is one that frames the request, is left out.
    """
    if not "".join(env.values()).isprintable():
        env = {variable: fields.clean(value) for variable, value in env.items()}
    lines = [start + value for variable, value in env.items() if (start := _line_start(variable))]
    lines.append(f"\r\nContent-Length: {len(payload)}\r\nTask-Id: {call_id}\r\n\r\n")
    return f"GET / HTTP/1.1{''.join(lines)}".encode() + payload


@lru_cache(maxsize=_NAMES)
def _line_start(variable: str) -> str:
    name = fields.canonical(variable)
    return f"\r\n{name}: " if name and name.lower() not in _FRAME else ""


class _Heads:
    """What was found in the answers of which a head told all but the body, by head.

    A function writes much the same head again and again, and reading it takes longer than all else
    that is done with a short answer. Sound, because in an answer that is whole, and has nothing but
    its body after its head, all else is told by the head and the length of that body.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, answer.Head, answer.End]] = {}

    def events(self, data: bytes) -> list[Event] | None:
        """Return what is in a whole answer whose head is known; None for any other."""
        size = data.find(_HEAD_END, 0, _HEAD_BYTES) + len(_HEAD_END)
        known = self._known.get(data[:size])
        if known is None or len(data) - size != known[0]:
            return None
        _, head, end = known
        return [head, answer.Data(data[size:]), end] if known[0] else [head, end]

    def remember(self, data: bytes, events: list[Event]) -> None:
        """Remember the head of an answer, all of which was in `data`, unless it is of one call."""
        size = data.find(_HEAD_END, 0, _HEAD_BYTES) + len(_HEAD_END)
        body = b"".join([event.data for event in events if isinstance(event, answer.Data)])
        head, end = events[0], events[-1]
        if not isinstance(head, answer.Head) or not isinstance(end, answer.End):
            return
        if body == data[size:] and b"task-id" not in data[:size].lower():
            if len(self._known) == _HEADS:
                self._known.clear()
            self._known[data[:size]] = (len(body), head, end)


_heads = _Heads()


class Parser:
    """Reads one HTTP response. See `answer.Parser`.

    Its length is told by `Content-Length`, by chunks, by its status, or by the end of the output.
    """

    __slots__ = ("_call_id", "_complete", "_head_left", "_head_told", "_idle_bytes", "_message")

    def __init__(self, call_id: str) -> None:
        """`call_id` is what a `Task-Id` in the answer has to say."""
        self._call_id = call_id
        self._message: _Message | None = None
        self._complete = False
        self._head_left = fields.HEAD_MAX_BYTES
        self._head_told = False
        #: Bytes since the last of the body: chunk sizes, their extensions and trailers.
        self._idle_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """Return what is known now. Raises `BadAnswer`."""
        if self._complete:
            answer.require_blank(data)
            return []
        if self._message is not None:
            return self._feed(self._message, data)
        if (events := _heads.events(data)) is not None:
            self._complete = True
            return events
        self._message = _Message(self._call_id)
        events = self._feed(self._message, data)
        if self._complete:
            _heads.remember(data, events)
        return events

    def eof(self) -> list[Event]:
        """Return the `End` of an answer that ends with the output. Raises `BadAnswer`."""
        message = self._message
        if self._complete:
            return []
        if message is None:
            raise answer.unfinished(begun=False)
        if message.head is None or message.framed:
            raise answer.unfinished(begun=self._head_left < fields.HEAD_MAX_BYTES)
        self._complete = True
        return [_ENDS[False]]

    def _feed(self, message: "_Message", data: bytes) -> list[Event]:
        if message.head is None:
            data = self._feed_head(message, data)
        if data:
            message.feed(data)
        return self._events(message, len(data))

    def _feed_head(self, message: "_Message", data: bytes) -> bytes:
        """Feed what may still be header; return what comes after those bytes."""
        part, rest = data[: self._head_left], data[self._head_left :]
        message.feed(part)
        self._head_left -= len(part)
        if message.head is None and not self._head_left:
            raise BadAnswer(f"The answer's header is longer than {fields.HEAD_MAX_BYTES} bytes")
        return rest

    def _events(self, message: "_Message", fed_bytes: int) -> list[Event]:
        events: list[Event] = []
        if message.head is not None and not self._head_told:
            self._head_told = True
            events.append(message.head)
        if body := message.take_body():
            self._idle_bytes = 0
            events.append(answer.Data(body))
        elif message.head is not None:
            self._count_idle(fed_bytes)
        if message.complete:
            self._complete = True
            message.release()
            events.append(_ENDS[message.reusable])
        return events

    def _count_idle(self, fed_bytes: int) -> None:
        self._idle_bytes += fed_bytes
        if self._idle_bytes > fields.HEAD_MAX_BYTES:
            raise BadAnswer(f"The answer has {self._idle_bytes} bytes of chunk header or trailer")


class _Message:
    """What `httptools` has found so far: it calls the `on_*` methods while it reads."""

    __slots__ = (
        "_body",
        "_call_id",
        "_fields",
        "_http",
        "complete",
        "framed",
        "head",
        "reusable",
    )

    def __init__(self, call_id: str) -> None:
        #: None while the header is not whole; interim answers (1xx) have none.
        self.head: answer.Head | None = None
        self.complete = False
        self.reusable = False
        #: Whether the end of the body can be told without the end of the output.
        self.framed = True
        self._call_id = call_id
        #: Of the header and, after it, of the trailer, which nobody gets.
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._http = HttpResponseParser(self)
        # Go's readers take a line that ends in LF alone, and so did IronFunctions.
        self._http.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)

    def feed(self, data: bytes) -> None:
        """Read `data`. Raises `BadAnswer`."""
        try:
            self._http.feed_data(data)
        except HttpParserError as error:
            if isinstance(error.__context__, BadAnswer):
                raise error.__context__ from None
            raise BadAnswer(f"Not an HTTP answer: {error}: {answer.excerpt(data)}") from error

    def take_body(self) -> bytes:
        """Return the bytes of the body that have not been taken."""
        if not self._body:
            return b""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return body

    def release(self) -> None:
        """Let go of the reader. It holds this object, so that both would wait for a collection."""
        del self._http

    def on_message_begin(self) -> None:
        if self.complete:
            raise BadAnswer("The function answered twice: another answer follows the first")

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._fields) == fields.FIELDS_MAX:
            raise BadAnswer(f"The answer has more than {fields.FIELDS_MAX} header fields")
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._http.get_status_code()
        if fields.is_final(status):
            self._begin(status, {name.lower(): value for name, value in self._fields})
        elif status // 100 == 1 and status != _SWITCHING_PROTOCOLS:
            self._fields.clear()
        else:
            raise BadAnswer(f"The answer's status is {status}: not one a caller can be given")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.complete = self.head is not None

    def _begin(self, status: int, about: Mapping[bytes, bytes]) -> None:
        """Make the head; `about` has the fields by their names in lower case."""
        self._check(about)
        bodiless, chunked = not fields.has_body(status), b"transfer-encoding" in about
        self.framed = bodiless or chunked or b"content-length" in about
        self.reusable = self._http.should_keep_alive()
        media = about.get(b"content-type", b"").lower()
        as_produced = chunked or not self.framed or media.startswith(b"text/event-stream")
        streamed = as_produced and not bodiless
        dropped = _dropped(about.get(b"connection", b"").lower())
        passed_on = [
            (name.decode(), fields.text(value))
            for name, value in self._fields
            if name.lower() not in dropped
        ]
        self.head = answer.Head(status, tuple(passed_on), streamed)

    def _check(self, about: Mapping[bytes, bytes]) -> None:
        coding = about.get(b"transfer-encoding", b"chunked").strip()
        if coding.lower() != b"chunked":
            raise BadAnswer(f"The answer has Transfer-Encoding {answer.excerpt(coding)}")
        task = about.get(b"task-id")
        if task is not None and task.strip() != self._call_id.encode():
            raise BadAnswer(f"The answer is to another call: Task-Id {answer.excerpt(task)}")


def _dropped(connection: bytes) -> frozenset[bytes]:
    """Return the names that are not passed on, given the value of `Connection`."""
    if connection in _PLAIN_CONNECTION:
        return _DROPPED
    return _DROPPED | {name.strip() for name in connection.split(b",")}
