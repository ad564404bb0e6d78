"""The format `http`: what a call becomes, and what can be said of any bytes that come back."""

import doctest
import gc

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runner.framing import answer, fields, http1
from services.runner.framing.answer import BadAnswer, Data, End, Event, Head
from shared import messages
from tests.unit.runner import builders
from tests.unit.runner.framing.reading import (
    CALL_ID,
    body_of,
    cut,
    judged,
    read,
    single_bytes,
)

TEXT = (("Content-Type", "text/plain"),)
SMALL = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;of=some\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
)
UNFRAMED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"


def parse(*pieces: bytes, eof: bool = False) -> list[Event]:
    return read(http1.Parser(CALL_ID), pieces, eof=eof)


def answered(header: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (header, len(body), body)


class Request:
    """What an independent reader finds in a frame."""

    def __init__(self, data: bytes) -> None:
        self.targets: list[bytes] = []
        self.fields: list[tuple[str, str]] = []
        self.body = b""
        self.ended = 0
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)
        self.method = self._parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.targets.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended += 1


def test_a_call_looks_as_it_did_with_ironfunctions() -> None:
    parcel = messages.Parcel(
        call_env={"METHOD": "POST", "HEADER_ACCEPT": "*/*", "REQUEST_URL": "http://h/r/a/p"},
        config_env={"APP_CFG": "1", "METHOD": "overridden"},
        payload=b"World",
    )
    head = builders.head(call_id=CALL_ID, format="http")
    assert http1.request(head, parcel, 1733289443328) == (
        b"GET / HTTP/1.1\r\n"
        b"App_cfg: 1\r\n"
        b"Method: POST\r\n"
        b"Header_accept: */*\r\n"
        b"Request_url: http://h/r/a/p\r\n"
        b"Deadline: 1733289443328\r\n"
        b"Content-Length: 5\r\n"
        b"Task-Id: " + CALL_ID.encode() + b"\r\n"
        b"\r\n"
        b"World"
    )


@pytest.mark.parametrize(
    "name",
    [
        *("with space", "a:b", "a\r\nb", "", "é", "Content-Length", "TRANSFER-ENCODING"),
        *("TE", "Task-Id", "CONNECTION", "UPGRADE", "expect", "TRAILER"),
    ],
)
def test_a_variable_that_cannot_be_a_field_or_frames_the_request_is_left_out(name: str) -> None:
    assert http1.frame({name: "1"}, CALL_ID, b"") == http1.frame({}, CALL_ID, b"")


@given(
    env=st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=8),
    payload=st.binary(max_size=50),
)
@settings(deadline=None)
def test_no_environment_can_smuggle_a_field_or_a_request(
    env: dict[str, str], payload: bytes
) -> None:
    request = Request(http1.frame(env, CALL_ID, payload))
    assert (request.method, request.targets, request.ended) == (b"GET", [b"/"], 1)
    assert request.body == payload
    assert request.fields[-2:] == [("Content-Length", str(len(payload))), ("Task-Id", CALL_ID)]
    names = [fields.canonical(name) for name in env]
    frame = fields.REWRITTEN | {"task-id", "expect"}
    kept = [name for name in names if name and name.lower() not in frame]
    assert [name for name, _ in request.fields[:-2]] == kept


@pytest.mark.parametrize(
    "value", ["x\r\nX-Evil: 1", "x\nX-Evil: 1", "x\r\n\r\nGET / HTTP/1.1\r\n\r\n", "\x00\x85\x7f"]
)
def test_a_hostile_value_stays_in_its_line(value: str) -> None:
    request = Request(http1.frame({"HEADER_X": value, "ROUTE": "/p"}, CALL_ID, b""))
    assert [name for name, _ in request.fields] == [
        *("Header_x", "Route", "Content-Length", "Task-Id")
    ]


def test_values_keep_what_is_legal() -> None:
    request = Request(http1.frame({"A": "tab\tand café €", "B": ""}, CALL_ID, b""))
    assert request.fields[:2] == [("A", "tab\tand café €"), ("B", "")]


@pytest.mark.parametrize(
    ("data", "head", "body", "reusable"),
    [
        (SMALL, Head(200, TEXT, streamed=False), b"hello", True),
        (CHUNKED, Head(200, TEXT, streamed=True), b"hello", True),
        (SMALL.replace(b"\r", b""), Head(200, TEXT, streamed=False), b"hello", True),
        (b"\r\n\n" + SMALL + b"\r\n\n", Head(200, TEXT, streamed=False), b"hello", True),
        (SMALL.replace(b"1.1", b"1.0"), Head(200, TEXT, streamed=False), b"hello", False),
        (
            SMALL.replace(b"1.1", b"1.0").replace(
                b"Content-L", b"Connection: Keep-Alive\r\nContent-L"
            ),
            Head(200, TEXT, streamed=False),
            b"hello",
            True,
        ),
        (
            answered(b"Connection: close\r\n", b"hi"),
            Head(200, (), streamed=False),
            b"hi",
            False,
        ),
        (
            answered(b"Content-Type: Text/Event-Stream; charset=utf-8\r\n", b"data: 1\n\n"),
            Head(200, (("Content-Type", "Text/Event-Stream; charset=utf-8"),), streamed=True),
            b"data: 1\n\n",
            True,
        ),
        (answered(b""), Head(200, (), streamed=False), b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Head(204, (), streamed=False), b"", True),
        (
            b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            Head(204, (), streamed=False),
            b"",
            True,
        ),
        (
            b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n",
            Head(304, (("ETag", "x"),), streamed=False),
            b"",
            True,
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + SMALL,
            Head(200, TEXT, streamed=False),
            b"hello",
            True,
        ),
        (SMALL.replace(b"200 OK", b"404"), Head(404, TEXT, streamed=False), b"hello", True),
    ],
)
def test_answers(data: bytes, head: Head, body: bytes, reusable: bool) -> None:  # noqa: FBT001
    expected: list[Event] = [head, *([Data(body)] if body else []), End(reusable)]
    assert parse(data) == expected
    assert parse(*single_bytes(data)) == expected
    assert parse(data, eof=True) == expected


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_answer_without_a_length_ends_with_the_output(version: bytes) -> None:
    data = UNFRAMED.replace(b"1.1", version)
    head = Head(200, TEXT, streamed=True)
    assert parse(data) == [head, Data(b"hello")]
    for pieces in ([data], single_bytes(data)):
        assert parse(*pieces, eof=True) == [head, Data(b"hello"), End(reusable=False)]


def test_a_stream_is_told_as_it_comes() -> None:
    parser = http1.Parser(CALL_ID)
    header, _, body = CHUNKED.partition(b"\r\n\r\n")
    assert parser.feed(header) == []
    assert parser.feed(b"\r\n\r\n") == [Head(200, TEXT, streamed=True)]
    assert parser.feed(body[:12]) == [Data(b"h")]
    assert parser.feed(b"") == []
    assert parser.feed(body[12:20]) == [Data(b"ell")]
    assert parser.feed(body[20:]) == [Data(b"o"), End(reusable=True)]


def test_one_piece_gives_at_most_one_event_of_each_kind() -> None:
    assert [type(event) for event in http1.Parser(CALL_ID).feed(CHUNKED)] == [Head, Data, End]


def test_what_belongs_to_the_connection_stays_here() -> None:
    header = (
        b"Connection: keep-alive, X-Hop\r\nKeep-Alive: 75\r\nX-Hop: 1\r\nUpgrade: h2c\r\n"
        b"Trailer: X\r\nTE: x\r\nProxy-Connection: x\r\nX-Kept:  a b \t\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nTask-Id: " + CALL_ID.encode() + b"\r\n"
    )
    kept = (("X-Kept", "a b"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))
    assert parse(answered(header)) == [Head(200, kept, streamed=False), End(reusable=True)]


def test_an_answer_to_another_call_is_refused() -> None:
    with pytest.raises(BadAnswer, match="another call: Task-Id b'other'"):
        parse(answered(b"Task-Id: other\r\n"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"Hello, World!\n", "Not an HTTP answer: .* b'Hello, World!"),
        (b"\x16\x03\x01\x00\xff", r"b'\\x16\\x03\\x01\\x00\\xff'"),
        (b'{"status": 200}\n', "Not an HTTP answer"),
        (b"HTTP/1.1 2xx OK\r\n\r\n", "Not an HTTP answer"),
        (b"HTTP/3.0 200 OK\r\n\r\n", "Not an HTTP answer"),
        (b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "status is 101"),
        (b"HTTP/1.1 099 OK\r\n\r\n", "status is 99"),
        (b"HTTP/1.1 600 OK\r\n\r\n", "status is 600"),
        (answered(b"A: b\r\n c\r\n"), "Not an HTTP answer"),
        (answered(b"A: \x00\r\n"), "Not an HTTP answer"),
        (answered(b"A: b\rc\r\n"), "Not an HTTP answer"),
        (answered(b"A : b\r\n"), "Not an HTTP answer"),
        (answered(b": b\r\n"), "Not an HTTP answer"),
        (answered(b"Content-Length: 9\r\n", b"hello"), "Not an HTTP answer: Duplicate"),
        (answered(b"Content-Length: -1\r\n"), "Not an HTTP answer"),
        (answered(b"Transfer-Encoding: chunked\r\n"), "Not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx", "Transfer-Encoding b'gzip'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "Not an HTTP answer"),
        (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", "answered twice"),
    ],
)
def test_bad_answers_say_why(data: bytes, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        parse(data)
    with pytest.raises(BadAnswer):
        parse(*single_bytes(data))


@pytest.mark.parametrize("data", [SMALL, CHUNKED, answered(b"Connection: close\r\n")])
@pytest.mark.parametrize("more", [SMALL, b"x", b"\r\nHTTP", b"\n\x00"])
def test_whoever_answers_twice_is_refused(data: bytes, more: bytes) -> None:
    for pieces in ([data + more], [data, more], single_bytes(data + more)):
        with pytest.raises(BadAnswer, match=r"answered twice|after `Connection: close`"):
            parse(*pieces)


@pytest.mark.parametrize("data", [SMALL, CHUNKED])
def test_a_truncated_answer_is_refused_wherever_it_is_cut(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(BadAnswer, match="output ended"):
            parse(data[:end], eof=True)


def test_no_answer_is_told_from_half_of_one() -> None:
    with pytest.raises(BadAnswer, match="before it had answered"):
        parse(eof=True)
    with pytest.raises(BadAnswer, match="in the middle"):
        parse(b"HTTP", eof=True)


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_header_has_a_limit(spare: int) -> None:
    start, end = b"HTTP/1.1 200 OK\r\nX: ", b"\r\nContent-Length: 2\r\n\r\n"
    filler = b"x" * (fields.HEAD_MAX_BYTES - len(start) - len(end) - spare)
    data = start + filler + end + b"hi"
    results = [judged(http1.Parser(CALL_ID), pieces) for pieces in ([data], single_bytes(data))]
    assert results[0] == results[1]
    assert (results[0] is BadAnswer) == (spare < 0)


def test_interim_answers_do_not_lift_the_limit() -> None:
    with pytest.raises(BadAnswer, match="header is longer"):
        parse(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 3000)


@pytest.mark.parametrize(("count", "good"), [(fields.FIELDS_MAX, True), (201, False)])
def test_so_many_fields_are_allowed(count: int, good: bool) -> None:  # noqa: FBT001
    result = judged(http1.Parser(CALL_ID), [answered(b"A: b\r\n" * (count - 1))])
    assert (result is not BadAnswer) == good


@pytest.mark.parametrize("endless", [b"X: y\r\n", b"X" * 4096, b"X: " + b"y" * 4096])
def test_a_trailer_cannot_go_on_for_ever(endless: bytes) -> None:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    with pytest.raises(BadAnswer, match=r"trailer|header fields"):
        parse(start, *[endless] * 300)


def test_a_chunk_extension_cannot_go_on_for_ever() -> None:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;"
    with pytest.raises(BadAnswer, match="chunk header"):
        parse(start, *[b"x" * 4096] * 300)


def test_many_small_chunks_are_no_trailer() -> None:
    parser = http1.Parser(CALL_ID)
    parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(fields.HEAD_MAX_BYTES):
        assert body_of(parser.feed(b"1\r\nx\r\n")) == b"x"


def test_a_bad_answer_stays_bad() -> None:
    parser = http1.Parser(CALL_ID)
    for _ in range(2):
        with pytest.raises(BadAnswer):
            parser.feed(b"garbage")


def test_a_head_that_was_read_before_is_read_alike() -> None:
    for body in (b"first", b"other"):
        head, data, end = parse(answered(b"X-A: 1\r\n", body))
        assert head == Head(200, (("X-A", "1"),), streamed=False)
        assert (data, end) == (Data(body), End(reusable=True))


def test_a_known_head_vouches_for_no_other_length() -> None:
    parse(SMALL)
    assert parse(SMALL[:-1]) == [Head(200, TEXT, streamed=False), Data(b"hell")]
    with pytest.raises(BadAnswer, match="twice"):
        parse(SMALL + SMALL)


def test_a_known_head_does_not_hide_a_second_answer() -> None:
    parse(SMALL)
    with pytest.raises(BadAnswer, match="twice"):
        parse(SMALL, SMALL)


def test_a_head_that_names_its_call_is_checked_each_time() -> None:
    own = answered(b"Task-Id: %s\r\n" % CALL_ID.encode())
    parse(own)
    with pytest.raises(BadAnswer, match="another call"):
        http1.Parser("another").feed(own)


def test_only_so_many_heads_are_remembered() -> None:
    for number in range(1_000):
        parse(answered(b"X-Number: %d\r\n" % number))
    assert parse(answered(b"X-Number: 0\r\n"))[0] == Head(200, (("X-Number", "0"),), streamed=False)


def test_an_answer_leaves_nothing_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        parse(answered(b"X-Never: seen before\r\n", b"hello"))
        assert gc.collect() == 0
    finally:
        gc.enable()


TOKENS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda name: name.lower() not in {*fields.REWRITTEN, "task-id", "content-type"}
)
LEGAL = [ord("\t"), *range(0x20, 0x7F), *range(0x80, 0x100)]
VALUES = st.lists(st.sampled_from(LEGAL), max_size=20).map(bytes)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, int, list[tuple[str, bytes]], bytes]:
    """Return a well-formed answer with its status, fields and body."""
    status = draw(st.sampled_from([200, 201, 302, 404, 500, 599]))
    found = draw(st.lists(st.tuples(TOKENS, VALUES), max_size=5))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    lines = [b"%s: %s\r\n" % (name.encode(), value) for name, value in found]
    if draw(st.booleans()):
        lines.append(b"transfer-encoding: Chunked\r\n")
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        body = chunks + b"0\r\n\r\n"
    else:
        body = b"".join(pieces)
        lines.append(b"content-length: %d\r\n" % len(body))
    header = b"".join(lines)
    data = b"HTTP/1.1 %d Whatever\r\n%s\r\n%s" % (status, header, body)
    return data, status, found, b"".join(pieces)


@given(answers(), st.lists(st.integers(0, 500), max_size=8))
@settings(deadline=None)
def test_any_answer_in_any_pieces(
    example: tuple[bytes, int, list[tuple[str, bytes]], bytes], places: list[int]
) -> None:
    data, status, found, body = example
    events = parse(data)
    assert parse(*cut(data, places)) == events
    assert parse(*single_bytes(data)) == events
    head = events[0]
    assert isinstance(head, Head)
    assert head.status == status
    assert head.headers == tuple((name, fields.text(value)) for name, value in found)
    assert body_of(events) == body
    assert events[-1] == End(reusable=True)


@given(
    example=answers(),
    place=st.integers(0, 500),
    removed=st.integers(0, 3),
    added=st.binary(max_size=4),
    places=st.lists(st.integers(0, 500), max_size=8),
)
@settings(deadline=None)
def test_any_damage_is_judged_alike_in_any_pieces(
    example: tuple[bytes, int, list[tuple[str, bytes]], bytes],
    place: int,
    removed: int,
    added: bytes,
    places: list[int],
) -> None:
    data = example[0]
    place %= len(data)
    data = data[:place] + added + data[place + removed :]
    whole = judged(http1.Parser(CALL_ID), [data], eof=True)
    assert judged(http1.Parser(CALL_ID), cut(data, places), eof=True) == whole
    assert judged(http1.Parser(CALL_ID), single_bytes(data), eof=True) == whole
    if isinstance(whole, list):
        safe(whole[0])


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_as_a_header_value_are_safe_or_refused(value: bytes) -> None:
    whole = judged(http1.Parser(CALL_ID), [answered(b"X: " + value + b"\r\n")], eof=True)
    if isinstance(whole, list):
        safe(whole[0])


def safe(head: Event) -> None:
    """Check that a head can be sent on."""
    assert isinstance(head, Head)
    assert 200 <= head.status <= 599
    for name, value in head.headers:
        assert fields.is_name(name)
        assert name.lower() not in fields.REWRITTEN
        assert not {*range(9), *range(10, 32), *range(127, 160)} & set(map(ord, value))


@pytest.mark.parametrize("module", [answer, fields])
def test_worked_examples_hold(module: object) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
