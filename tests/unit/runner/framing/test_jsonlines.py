"""The format `json`: what a call becomes, and what can be said of any line that comes back."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runner.framing import answer, fields, jsonlines
from services.runner.framing.answer import BadAnswer, Data, End, Event, Head
from shared import messages
from tests.unit.runner import builders
from tests.unit.runner.framing.reading import CALL_ID, body_of, cut, judged, read, single_bytes

LINE_MAX = 2000
JSON = ("Content-Type", "application/json")


def parser() -> jsonlines.Parser:
    return jsonlines.Parser(CALL_ID, LINE_MAX)


def parse(*pieces: bytes, eof: bool = False) -> list[Event]:
    return read(parser(), pieces, eof=eof)


def said(**answer_fields: Any) -> bytes:
    return json.dumps(answer_fields).encode() + b"\n"


def call(payload: bytes = b"", **parcel: Any) -> Any:
    """Return what a function reads, and check that it is one line."""
    head = builders.head(call_id=CALL_ID, format="json")
    sent = messages.Parcel(call_env={}, config_env={}, payload=payload, **parcel)
    line = jsonlines.request(head, sent, 1733289443328)
    # As whoever sees the most line ends: Unicode's own are some, too.
    assert line.decode().splitlines(keepends=True) == [line.decode()]
    return json.loads(line)


def test_a_call_is_one_line_of_json() -> None:
    headers = (("content-type", "text/plain"), ("X-A", "1"), ("x-a", "2"))
    assert call(b"World", method="PUT", url="http://h/r/a/p?q=1", headers=headers) == {
        "call_id": CALL_ID,
        "method": "PUT",
        "request_url": "http://h/r/a/p?q=1",
        "headers": {"Content-Type": ["text/plain"], "X-A": ["1", "2"]},
        "content_type": "text/plain",
        "deadline": "2024-12-04T05:17:23.328Z",
        "deadline_ms": 1733289443328,
        "body": "World",
        "is_base64": False,
    }


@given(st.binary(max_size=60), st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9))))
@settings(deadline=None)
def test_any_body_arrives_whole_and_on_one_line(
    payload: bytes, headers: list[tuple[str, str]]
) -> None:
    told = call(payload, headers=tuple(headers))
    body = told["body"]
    assert (base64.b64decode(body) if told["is_base64"] else body.encode()) == payload
    assert all(map(fields.is_name, told["headers"]))


def test_line_ends_of_unicode_do_not_end_the_line() -> None:
    text = 'a\x85b\u2028{"body": "forged"}\u2029c'
    told = call(text.encode(), url=f"http://h/{text}", headers=(("X-A", text),))
    assert told["body"] == text
    assert told["request_url"] == f"http://h/{text}"
    assert told["headers"] == {"X-A": [text]}


@pytest.mark.parametrize(
    ("line", "head", "body"),
    [
        (said(), Head(200, (), streamed=False), b""),
        (said(body="hé\n"), Head(200, (), streamed=False), "hé\n".encode()),
        (said(body=""), Head(200, (), streamed=False), b""),
        (said(body=None, is_base64=False), Head(200, (), streamed=False), b""),
        (
            said(call_id=None, status=None, headers=None, content_type=None, is_base64=None),
            Head(200, (), streamed=False),
            b"",
        ),
        (said(body=None, is_base64=True), Head(200, (), streamed=False), b""),
        (said(body="/w==", is_base64=True), Head(200, (), streamed=False), b"\xff"),
        (said(body=[1, {"a": None}]), Head(200, (JSON,), streamed=False), b'[1, {"a": null}]'),
        (b'{"body": 1.50}\n', Head(200, (JSON,), streamed=False), b"1.50"),
        (said(body=False), Head(200, (JSON,), streamed=False), b"false"),
        (
            said(body={}, content_type="application/problem+json", status=404),
            Head(404, (("Content-Type", "application/problem+json"),), streamed=False),
            b"{}",
        ),
        (
            said(body={}, headers={"content-type": "a/b"}),
            Head(200, (("Content-Type", "a/b"),), streamed=False),
            b"{}",
        ),
        (
            said(content_type="a/b", headers={"Content-Type": "c/d", "X": ["1", "2"], "Y": "3"}),
            Head(
                200,
                (("Content-Type", "a/b"), ("X", "1"), ("X", "2"), ("Y", "3")),
                streamed=False,
            ),
            b"",
        ),
        (
            said(headers={"Connection": "close", "content-length": "9", "X": []}),
            Head(200, (), streamed=False),
            b"",
        ),
        (said(status=204, body="dropped"), Head(204, (), streamed=False), b""),
        (said(call_id=CALL_ID, body="x"), Head(200, (), streamed=False), b"x"),
        (b"\n\r\n" + said(body="x")[:-1] + b"\r\n\n\r\n", Head(200, (), streamed=False), b"x"),
    ],
)
def test_answers(line: bytes, head: Head, body: bytes) -> None:
    expected: list[Event] = [head, *([Data(body)] if body else []), End(reusable=True)]
    assert parse(line) == expected
    assert parse(*single_bytes(line), eof=True) == expected


@pytest.mark.parametrize(
    "headers", [{"X": "a\r\nSet-Cookie: b"}, {"X": "\x00"}, {"X": ["ok", "\x85\x7f\n"]}]
)
def test_a_header_value_stays_in_its_line(headers: dict[str, Any]) -> None:
    head = parse(said(headers=headers))[0]
    assert isinstance(head, Head)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for _, value in head.headers for c in value)


def test_the_content_type_stays_in_its_line_too() -> None:
    head = parse(said(content_type="a/b\r\nX: y"))[0]
    assert head == Head(200, (("Content-Type", "a/b  X: y"),), streamed=False)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"Hello, World!\n", "Not an answer in JSON: .* b'Hello, World!'"),
        (b"{}}\n", "Not an answer in JSON"),
        (b"[]\n", "Expected `object`"),
        (b'"text"\n', "Expected `object`"),
        (b"  \n", "Not an answer in JSON"),
        (b"\xff\xfe\n", r"b'\\xff\\xfe'"),
        (said(status="200"), r"Expected `int \| null`, got `str` - at `\$.status`"),
        (said(level="info", msg="listening"), "unknown field `level`"),
        (said(headers={"X": 1}), "headers"),
        (said(headers={"a b": "1"}), "header b'a b'"),
        (said(headers={"a\r\nb": "1"}), "header"),
        (said(headers={"": "1"}), "header"),
        (said(headers={"X": ["1"] * 201}), "more than 200 headers"),
        (said(status=101), "status is 101"),
        (said(status=600), "status is 600"),
        (said(call_id="other"), "another call: .*other"),
        (said(body={}, is_base64=True), "body is not a string"),
        (said(body="###", is_base64=True), "Not an answer in JSON"),
        (said(body="YQ", is_base64=True), "Not an answer in JSON"),
        (b'{"body": "\xff"}\n', "Not an answer in JSON"),
        (b'{"body": ["\xff"]}\n', "Not an answer in JSON"),
        (b'{"body": "\\ud800"}\n', "Not an answer in JSON"),
        (b'{"body": ' + b"[" * 900 + b"\n", "Not an answer in JSON"),
        (b'{"body": NaN}\n', "Not an answer in JSON"),
    ],
)
def test_bad_answers_say_why(line: bytes, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        parse(line)
    with pytest.raises(BadAnswer, match=why):
        parse(*single_bytes(line))


def test_deep_nesting_is_a_bad_answer() -> None:
    line = b'{"body": ' + b"[" * 100_000 + b"\n"
    with pytest.raises(BadAnswer, match="recursion"):
        jsonlines.Parser(CALL_ID, len(line)).feed(line)


def test_headers_have_a_limit_in_bytes_too() -> None:
    line = said(headers={"X": "x" * fields.HEAD_MAX_BYTES})
    with pytest.raises(BadAnswer, match="headers are longer"):
        jsonlines.Parser(CALL_ID, len(line)).feed(line)


@pytest.mark.parametrize("more", [said(), b"x", b"\n\n{}", b"\x00", b" "])
def test_whoever_answers_twice_is_refused(more: bytes) -> None:
    for pieces in ([said() + more], [said(), more], single_bytes(said() + more)):
        with pytest.raises(BadAnswer, match="answered twice"):
            parse(*pieces)


def test_a_truncated_answer_is_refused_wherever_it_is_cut() -> None:
    line = said(status=200, body="hello")
    for end in range(1, len(line)):
        with pytest.raises(BadAnswer, match="in the middle"):
            parse(line[:end], eof=True)
    with pytest.raises(BadAnswer, match="before it had answered"):
        parse(b"\n", eof=True)


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_a_line_has_a_limit(spare: int) -> None:
    empty = len(said(body="")) - 1
    line = said(body="x" * (LINE_MAX - empty - spare))
    results = [judged(parser(), pieces) for pieces in ([line], single_bytes(line), [b"\n" + line])]
    assert results[0] == results[1] == results[2]
    assert (results[0] is BadAnswer) == (spare < 0)


def test_a_line_that_does_not_end_is_given_up() -> None:
    with pytest.raises(answer.TooLarge, match="over 2000 bytes"):
        parse(*[b" " * 100] * 21)


def test_blank_lines_are_not_kept() -> None:
    one = parser()
    for _ in range(3):
        assert one.feed(b"\r\n" * LINE_MAX) == []
    assert body_of(one.feed(said(body="x"))) == b"x"


@given(
    line=st.one_of(
        st.binary(max_size=40),
        st.builds(
            said,
            status=st.integers(),
            headers=st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3),
            body=st.one_of(st.text(), st.integers(), st.none(), st.lists(st.booleans())),
            is_base64=st.booleans(),
        ),
    ),
    more=st.binary(max_size=3),
    places=st.lists(st.integers(0, 100), max_size=5),
)
@settings(deadline=None)
def test_any_line_is_judged_alike_in_any_pieces(
    line: bytes, more: bytes, places: list[int]
) -> None:
    whole = judged(parser(), [line + more], eof=True)
    assert judged(parser(), cut(line + more, places), eof=True) == whole
    assert judged(parser(), single_bytes(line + more), eof=True) == whole
