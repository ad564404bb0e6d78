"""Does a call look here as it does on the platform, whose own modules say how it does there?"""

import io
import json

import pytest

from fn import framing
from services.runner.framing import http1
from shared import environment

CALL = framing.Call(
    body=b"Ada",
    method="PUT",
    app="demo",
    path="/greet",
    url="http://localhost:8080/r/demo/greet",
    call_id="01a2",
    deadline_ms=1_733_289_443_328,
    headers=(("content-type", "text/plain"), ("X-A", "1"), ("x-a", "2")),
    config={"db-host": "db"},
)


def test_the_environment_is_the_platforms() -> None:
    config = environment.config_env({}, {"db-host": "db"})
    own = {
        "METHOD": "PUT",
        "ROUTE": "/greet",
        "REQUEST_URL": CALL.url,
        "CALL_ID": "01a2",
        "APP_NAME": "demo",
    }
    sent = environment.header_env(CALL.headers)
    expected = {**config, **own, **sent, "DEADLINE": "1733289443328"}
    assert framing.call_environment(CALL) == expected


def test_a_request_in_http_is_the_platforms() -> None:
    expected = http1.frame(framing.call_environment(CALL), CALL.call_id, CALL.body)
    assert framing.http_request(CALL) == expected


def test_a_line_of_json_is_the_platforms() -> None:
    line = framing.json_request(CALL)
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "call_id": "01a2",
        "method": "PUT",
        "request_url": CALL.url,
        "headers": {"Content-Type": ["text/plain"], "X-A": ["1", "2"]},
        "content_type": "text/plain",
        "deadline": "2024-12-04T05:17:23.328Z",
        "deadline_ms": 1_733_289_443_328,
        "body": "Ada",
        "is_base64": False,
    }


def test_a_body_that_is_no_text_is_base64() -> None:
    said = json.loads(framing.json_request(framing.Call(body=b"\xff")))
    assert (said["body"], said["is_base64"]) == ("/w==", True)


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        (b'{"body": "x"}', 200, b"x"),
        (b'{"status": 404, "body": {"a": 1}}', 404, b'{"a": 1}'),
        (b'{"body": "/w==", "is_base64": true}', 200, b"\xff"),
        (b"{}", 200, b""),
    ],
)
def test_answers_in_json(line: bytes, status: int, body: bytes) -> None:
    answer = framing.json_answer(line)
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize("line", [b"Hello\n", b"[1]\n", b'{"status": "x"}\n', b'{"headers": 3}\n'])
def test_what_is_no_answer_in_json_is_shown(line: bytes) -> None:
    with pytest.raises(framing.BadAnswer, match="no line of JSON"):
        framing.json_answer(line)


def test_an_answer_in_http_ends_with_its_length() -> None:
    stream = io.BytesIO(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nno more")
    answer = framing.http_answer(stream)
    assert (answer.status, answer.body) == (404, b"no")
    assert ("X-A", "1") in answer.headers


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"", "ended without an answer"), (b"Listening\n", "no HTTP: Listening")],
)
def test_what_is_no_answer_in_http_is_shown(said: bytes, words: str) -> None:
    with pytest.raises(framing.BadAnswer, match=words):
        framing.http_answer(io.BytesIO(said))


def test_an_answer_of_a_kit_says_status_and_headers() -> None:
    headers = [("Fn-Http-Status", "201"), ("Fn-Http-H-X-A", "1"), ("Date", "now")]
    answer = framing.stream_answer(200, headers, b"x")
    assert answer == framing.Answer(201, (("X-A", "1"),), b"x")
