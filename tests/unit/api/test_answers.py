"""What callers see of outcomes."""

import json

import pytest

from services.api import answers, problems
from shared import messages
from shared.errors import CODES


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", True),
        (b"hello\n", True),
        (b'{"a": 1}', True),
        (b"<html><script>", True),
        ("日本語".encode(), True),
        (b"a" * 511 + "é".encode() + b"tail", True),
        (b"caf\xe9", False),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"a\x00b", False),
        (b"\xff" * 600, False),
        ("é".encode()[:1], False),
    ],
)
def test_text_and_bytes_are_told_apart(body: bytes, *, text: bool) -> None:
    assert answers.content_type(body).startswith("text/plain") is text


def success(
    outcome: messages.Answered, route: dict[str, list[str]] | None = None
) -> answers.Answer:
    reply = messages.Reply("id", outcome, start_ms=60.0, run_ms=20.0)
    return answers.succeeded("id", reply, outcome, answers.route_headers(route or {}), 81.26)


def test_a_success_is_the_functions_bytes() -> None:
    answer = success(messages.Answered(b"\x00\xff"))
    assert (answer.status, answer.body) == (200, b"\x00\xff")
    headers = dict(answer.headers)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Call-Id"] == "id"
    assert headers["Server-Timing"] == "queue;dur=1.3, start;dur=60.0, run;dur=20.0"


def test_all_values_of_a_routes_headers_are_sent_but_none_of_the_connections() -> None:
    route = {"X-A": ["1", "2"], "content-type": ["text/css"], "Content-Length": ["3"]}
    answer = success(messages.Answered(b"hi"), route)
    named = [(name.lower(), value) for name, value in answer.headers]
    assert [value for name, value in named if name == "x-a"] == ["1", "2"]
    assert [value for name, value in named if name == "content-type"] == ["text/css"]
    assert "content-length" not in dict(named)


def test_a_function_that_speaks_http_sets_status_and_headers_below_the_routes() -> None:
    outcome = messages.Answered(b"x", 404, (("X-A", "function"), ("Content-Type", "a/b")))
    answer = success(outcome, {"x-a": ["route"]})
    assert answer.status == 404
    headers = {name.lower(): value for name, value in answer.headers}
    assert (headers["x-a"], headers["content-type"]) == ("route", "a/b")


def test_nobody_but_the_platform_says_which_call_it_was() -> None:
    answer = success(messages.Answered(b"x", 200, (("X-Call-ID", "forged"), ("Upgrade", "h2c"))))
    named = [(name.lower(), value) for name, value in answer.headers]
    assert [value for name, value in named if name == "x-call-id"] == ["id"]
    assert "upgrade" not in dict(named)


def test_a_streamed_answer_begins_as_a_whole_one_does() -> None:
    head = messages.StreamHead("id", "r", 201, (("X-A", "function"), ("Content-Length", "5")))
    route = answers.route_headers({"x-a": ["route"]})
    answer = answers.begun("id", head, route, 12.34)
    assert (answer.status, answer.body) == (201, b"")
    assert [(name.lower(), value) for name, value in answer.headers] == [
        ("x-a", "route"),
        ("content-type", "application/octet-stream"),
        ("x-call-id", "id"),
        ("server-timing", "head;dur=12.3"),
    ]


@pytest.mark.parametrize("status", [-1, 0, 99, 101, 199, 600])
def test_a_status_that_ends_no_exchange_is_unfit(status: int) -> None:
    assert f"status {status};" in (answers.unfit(status, ()) or "")


@pytest.mark.parametrize("header", [("X A", "1"), ("", "1"), ("X", "1\r\nY: 2"), ("X\n", "1")])
def test_a_header_that_would_break_the_answer_is_unfit(header: tuple[str, str]) -> None:
    assert "header that HTTP cannot carry" in (answers.unfit(200, [("A", "1"), header]) or "")


@pytest.mark.parametrize("status", [200, 204, 404, 599])
def test_what_http_can_carry_is_fit(status: int) -> None:
    assert answers.unfit(status, [("Set-Cookie", "a=b; é"), ("X", "")]) is None


@pytest.mark.parametrize("code", CODES)
def test_a_failure_says_what_and_whose_fault(code: str) -> None:
    route = answers.route_headers({"X-A": ["1"], "Content-Type": ["image/png"]})
    answer = answers.failed("id", code, "why", route)
    row = CODES[code]
    assert answer.status == row.status
    assert json.loads(answer.body) == {
        "request_id": "id",
        "error": {"message": "why", "code": row.word, "fault": row.fault},
    }
    headers = dict(answer.headers)
    assert headers["X-A"] == "1"
    assert headers["Content-Type"].startswith("application/json")
    assert ("Retry-After" in headers) is (row.retry_after_s is not None)


def test_a_failure_of_a_call_that_ran_says_where_the_time_went() -> None:
    answer = answers.failed(
        "id", "exit", "exit code 3", answers.RouteHeaders(), timing="queue;dur=1.0"
    )
    assert ("Server-Timing", "queue;dur=1.0") in answer.headers
    assert [name for name, _ in answer.headers].count("X-Call-Id") == 1


def test_an_async_call_gets_its_id() -> None:
    answer = answers.accepted("id", answers.RouteHeaders())
    assert (answer.status, json.loads(answer.body)) == (202, {"call_id": "id"})


def test_a_refused_token_has_the_words_of_the_original_and_the_calls_id() -> None:
    refused = problems.route_token_refused("an-id", "Token is expired")
    assert refused.body == {"error": {"message": "Token is expired"}}
    assert refused.headers == {"WWW-Authenticate": 'Bearer realm=""', "X-Call-Id": "an-id"}
