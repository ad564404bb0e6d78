"""The format `http-stream`: what the kits are sent, and what they have answered for real."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runner.framing import fdk
from services.runner.framing.answer import BadAnswer, Data, End, Event, FunctionFailed, Head
from shared import messages
from tests.unit.runner import builders
from tests.unit.runner.framing.reading import CALL_ID, cut, judged, read, single_bytes
from tests.unit.runner.framing.test_http1 import Request

#: As written by `fdk` 0.1.128 for Python.
PYTHON = (
    b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: 75\r\n"
    b"content-type: application/json\r\nfn-http-h-x-made: yes\r\n"
    b"fn-fdk-version: fdk-python/0.1.128\r\nfn-fdk-runtime: python/3.11.7 final\r\n"
    b"fn-http-status: 201\r\ncontent-length: 16\r\n\r\n"
    b'{"got": "World"}'
)
PYTHON_FAILED = (
    b"HTTP/1.1 502 Bad Gateway\r\nConnection: keep-alive\r\nKeep-Alive: 75\r\n"
    b"content-type: application/json; charset=utf-8\r\nfn-fdk-version: fdk-python/0.1.128\r\n"
    b"fn-fdk-runtime: python/3.11.7 final\r\nfn-http-status: 502\r\ncontent-length: 17\r\n\r\n"
    b"broken on purpose"
)
#: As written by `@fnproject/fdk` 0.0.76 for Node.
NODE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nFn-Http-Status: 201\r\n"
    b"Fn-Http-H-X-Made: yes\r\nFn-Fdk-Version: fdk-node/0.0.76 (njsv=v20.20.2)\r\n"
    b"Fn-Fdk-Runtime: node/20.20.2\r\nDate: Tue, 24 Nov 2026 15:47:22 GMT\r\n"
    b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'f\r\n{"got":"World"}\r\n0\r\n\r\n'
)
NODE_FAILED = (
    b"HTTP/1.1 502 internal error\r\nContent-type: application/json\r\n"
    b"Date: Tue, 24 Nov 2026 15:47:22 GMT\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
    b'61\r\n{"message":"Exception in function, consult logs for details",'
    b'"detail":"Error: broken on purpose"}\r\n0\r\n\r\n'
)


def parse(*pieces: bytes, eof: bool = False) -> list[Event]:
    return read(fdk.Parser(CALL_ID), pieces, eof=eof)


def answered(header: bytes, body: bytes = b"", status: int = 200) -> bytes:
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 %d x\r\n%s%s%s" % (status, header, length, body)


def call(payload: bytes = b"", **parcel: object) -> bytes:
    head = builders.head(call_id=CALL_ID, format="http-stream")
    sent = messages.Parcel(call_env={}, config_env={}, payload=payload, **parcel)
    return fdk.request(head, sent, 1733289443328)


def test_a_call_is_what_the_kits_expect() -> None:
    headers = (
        *(("host", "h"), ("accept", "*/*"), ("X-A", "1"), ("x-a", "2"), ("Connection", "close")),
        *(("content-type", "text/plain"), ("Content-Length", "5"), ("Fn-Intent", "other")),
    )
    request = call(b"World", method="PUT", url="http://h/r/a/p?q=1", headers=headers)
    assert request == (
        b"POST /call HTTP/1.1\r\n"
        b"Host: localhost\r\n"
        b"Content-Length: 5\r\n"
        b"Fn-Call-Id: " + CALL_ID.encode() + b"\r\n"
        b"Fn-Deadline: 2024-12-04T05:17:23.328Z\r\n"
        b"Fn-Intent: httprequest\r\n"
        b"Fn-Http-Method: PUT\r\n"
        b"Fn-Http-Request-Url: http://h/r/a/p?q=1\r\n"
        b"Fn-Http-H-Accept: */*\r\n"
        b"Fn-Http-H-X-A: 1\r\n"
        b"Fn-Http-H-X-A: 2\r\n"
        b"Content-Type: text/plain\r\n"
        b"\r\n"
        b"World"
    )


def test_a_body_has_a_type_and_no_body_needs_none() -> None:
    assert b"Content-Type: application/octet-stream\r\n" in call(b"x")
    assert b"Content-Type" not in call(b"")


@given(
    headers=st.lists(st.tuples(st.text(max_size=12), st.text(max_size=20)), max_size=6),
    method=st.text(max_size=8),
    url=st.text(max_size=20),
    payload=st.binary(max_size=40),
)
@settings(deadline=None)
def test_no_caller_can_smuggle_a_field_or_a_request(
    headers: list[tuple[str, str]], method: str, url: str, payload: bytes
) -> None:
    request = Request(call(payload, headers=tuple(headers), method=method, url=url))
    assert (request.method, request.targets, request.ended) == (b"POST", [b"/call"], 1)
    assert request.body == payload
    own = [name for name, _ in request.fields if not name.startswith("Fn-Http-H-")]
    assert own[:7] == [
        *("Host", "Content-Length", "Fn-Call-Id", "Fn-Deadline", "Fn-Intent"),
        *("Fn-Http-Method", "Fn-Http-Request-Url"),
    ]
    assert own[7:] in ([], ["Content-Type"])


def test_what_a_process_gets_at_its_start() -> None:
    assert fdk.environment("shop", "/price/of", 128) == {
        "FN_FORMAT": "http-stream",
        "FN_LISTENER": "unix:/tmp/iofs/lsnr.sock",
        "FN_MEMORY": "128",
        "FN_TYPE": "sync",
        "FN_APP_ID": "shop",
        "FN_APP_NAME": "shop",
        "FN_FN_ID": "shop/price/of",
        "FN_FN_NAME": "price/of",
    }


def test_the_kits_answers() -> None:
    json = ("Content-Type", "application/json")
    assert parse(PYTHON) == [
        Head(201, (json, ("x-made", "yes")), streamed=False),
        Data(b'{"got": "World"}'),
        End(reusable=True),
    ]
    assert parse(NODE) == [
        Head(201, (json, ("X-Made", "yes")), streamed=True),
        Data(b'{"got":"World"}'),
        End(reusable=True),
    ]


def test_the_kits_say_that_the_function_failed_and_live_on() -> None:
    assert parse(PYTHON_FAILED) == [
        FunctionFailed("broken on purpose", timed_out=False),
        End(reusable=True),
    ]
    failed, end = parse(NODE_FAILED)
    assert isinstance(failed, FunctionFailed)
    assert "Error: broken on purpose" in failed.message
    assert end == End(reusable=True)


@given(
    st.sampled_from([PYTHON, PYTHON_FAILED, NODE, NODE_FAILED]),
    st.lists(st.integers(0, 500), max_size=8),
)
@settings(deadline=None)
def test_any_pieces_give_the_same(data: bytes, places: list[int]) -> None:
    assert parse(*cut(data, places)) == parse(data)
    assert parse(*single_bytes(data)) == parse(data)


@pytest.mark.parametrize("data", [PYTHON, PYTHON_FAILED, NODE, NODE_FAILED])
def test_a_truncated_answer_is_refused_wherever_it_is_cut(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(BadAnswer, match="output ended"):
            parse(data[:end], eof=True)


@pytest.mark.parametrize("data", [PYTHON, PYTHON_FAILED, NODE, NODE_FAILED])
def test_whoever_answers_twice_is_refused(data: bytes) -> None:
    for pieces in ([data + data], [data, data]):
        with pytest.raises(BadAnswer, match="answered twice"):
            parse(*pieces)


@pytest.mark.parametrize("status", [200, 502])
def test_a_closed_connection_does_not_end_the_process(status: int) -> None:
    closed = answered(b"Connection: close\r\n", b"x", status=status)
    unframed = b"HTTP/1.1 %d x\r\n\r\nx" % status
    for said in (closed, unframed):
        assert parse(said, eof=True)[-1] == End(reusable=True)


def test_a_timeout_that_the_kit_noticed_is_told_apart() -> None:
    said = answered(b"", b"too\r\nlate", status=504)
    assert parse(said) == [FunctionFailed("too  late", timed_out=True), End(reusable=True)]


@pytest.mark.parametrize("status", [201, 204, 400, 408, 500, 503])
def test_a_complaint_of_the_kit_itself_is_a_bad_answer(status: int) -> None:
    said = answered(b"", b"" if status == 204 else b"Error: Response Timeout", status=status)
    with pytest.raises(BadAnswer, match=f"FDK answered with status {status}"):
        parse(said)


def test_of_a_long_failure_the_beginning_is_kept() -> None:
    failed = parse(answered(b"", b"x" * 100_000, status=502))[0]
    assert failed == FunctionFailed("x" * 512, timed_out=False)


@pytest.mark.parametrize(
    ("header", "status", "headers"),
    [
        (b"", 200, ()),
        (b"Fn-Http-Status: 404\r\n", 404, ()),
        (
            b"X-Kit: 1\r\nFn-Fdk-Version: x\r\nFn-Http-H-: 1\r\nfn-http-h-a: 2\r\n",
            200,
            (("a", "2"),),
        ),
        (
            b"Content-Type: application/json\r\nFn-Http-H-Content-Type: text/html\r\n",
            200,
            (("Content-Type", "text/html"),),
        ),
        (
            b"Fn-Http-H-Connection: close\r\nFn-Http-H-Content-Length: 9\r\n",
            200,
            (),
        ),
        (
            b"Fn-Http-H-Set-Cookie: a\r\nFn-Http-H-Set-Cookie: b\r\n",
            200,
            (("Set-Cookie", "a"), ("Set-Cookie", "b")),
        ),
    ],
)
def test_only_what_is_meant_for_the_caller_reaches_it(
    header: bytes, status: int, headers: tuple[tuple[str, str], ...]
) -> None:
    expected = [Head(status, headers, streamed=False), Data(b"x"), End(reusable=True)]
    assert parse(answered(header, b"x")) == expected


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_status_without_a_body_has_none(status: bytes) -> None:
    said = answered(b"Fn-Http-Status: %s\r\n" % status, b"dropped")
    assert parse(said) == [Head(int(status), (), streamed=False), End(reusable=True)]


@pytest.mark.parametrize(
    "status", [b"0", b"101", b"600", b"abc", b"20 0", b"0200", b"\xb2\xb2\xb2"]
)
def test_a_status_no_caller_can_be_given_is_a_bad_answer(status: bytes) -> None:
    result = judged(fdk.Parser(CALL_ID), [answered(b"Fn-Http-Status: %s\r\n" % status)])
    assert result is BadAnswer
