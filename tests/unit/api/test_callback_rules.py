"""Where may callbacks go, what do they say, and when are they tried again?"""

import doctest
import hashlib
import hmac
import json
from typing import Any

import pytest

from services.api import addresses, callback_rules
from services.api.callback_rules import BadCallback, Next, Try
from shared import messages

ID = "01938f6e-0000-7000-8000-000000000000"


def a_record(**fields: Any) -> messages.Record:
    given = {
        "call_id": ID,
        "status": "success",
        "mode": "async",
        "app": "a",
        "path": "/p",
        "image": "img",
        "queued_ms": 1,
    }
    return messages.Record(**{**given, **fields})


@pytest.mark.parametrize("module", [addresses, callback_rules])
def test_worked_examples_hold(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://example.com:8080/a?b=c&d=%20",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]:444/x",
        "https://xn--bcher-kva.example/",
        "https://example.com/" + "a" * 2000,
    ],
)
def test_an_address_that_may_be_called_back(url: str) -> None:
    assert callback_rules.address([url], ()) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must begin with"),
        ("example.com/x", "must begin with"),
        ("ftp://example.com/", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("gopher://127.0.0.1:6379/_", "must begin with"),
        ("javascript:alert(1)", "must begin with"),
        ("//example.com/", "must begin with"),
        ("https://", "no host|no URL"),
        ("https:///x", "no host|no URL"),
        ("http://:80/", "no host|no URL"),
        ("https://user@example.com/", "user or password"),
        ("https://user:pw@example.com/", "user or password"),
        ("https://@example.com/", "user or password"),
        ("https://example.com/#f", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:99999/", "no URL"),
        ("https://example.com:x/", "no URL"),
        ("https://[::1", "no URL"),
        ("https://exam ple.com/", "characters"),
        ("https://example.com\\@evil.example/", "characters"),
        ("https://example.com/\tx", "characters"),
        ("https://bücher.example/", "characters"),
        ("https://example.com/" + "a" * 2048, "2048 characters"),
        ("http://127.0.0.1/", "this machine"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://[::1]:8080/", "this machine"),
        ("http://[::ffff:10.0.0.1]/", "private"),
        ("http://[fe80::1%25eth0]/", "link-local|no URL"),
        ("http://10.0.0.7:9000/done", "CALLBACK_ALLOW_NETWORKS"),
    ],
)
def test_an_address_that_may_not(url: str, why: str) -> None:
    with pytest.raises(BadCallback, match=why) as refused:
        callback_rules.address([url], ())
    assert refused.value.message.startswith("X-Callback-Url: ")


def test_a_listed_network_and_two_headers() -> None:
    url = "http://10.0.0.7:9000/done"
    assert callback_rules.address([url], addresses.networks("10.0.0.0/8")) == url
    with pytest.raises(BadCallback, match="2 times"):
        callback_rules.address([url, url], addresses.networks("10.0.0.0/8"))


def test_the_signature_is_the_documented_one() -> None:
    signed = callback_rules.signature(["new", "old"], b"body", 1700000000)
    expected = [
        hmac.new(k, b"1700000000.body", hashlib.sha256).hexdigest() for k in (b"new", b"old")
    ]
    assert signed == f"t=1700000000,v1={expected[0]},v1={expected[1]}"


def test_a_result_is_sent_as_it_is() -> None:
    sent = callback_rules.message(a_record(path="/ü b"), "", b"\xff\x00", truncated=True)
    assert sent.body == b"\xff\x00"
    assert sent.headers["Content-Type"] == "application/octet-stream"
    assert sent.headers["X-Truncated"] == "true"
    assert sent.headers["X-Call-Id"] == sent.headers["X-Millrace-Delivery"] == ID
    assert sent.headers["X-Millrace-Path"] == "/%C3%BC%20b"
    assert sent.headers["X-Millrace-Status"] == "success"
    assert "X-Millrace-Code" not in sent.headers


@pytest.mark.parametrize("kind", ["application/json", "text/x\r\nX-Evil: 1", "text/é", ""])
def test_the_type_is_the_functions_if_a_header_can_say_it(kind: str) -> None:
    sent = callback_rules.message(a_record(), kind, b"{}", truncated=False)
    fit = kind == "application/json"
    assert sent.headers["Content-Type"] == (kind if fit else "text/plain; charset=utf-8")


def test_a_failure_is_a_problem() -> None:
    record = a_record(status="error", code="exit", message="exit code 3", attempt=2)
    sent = callback_rules.message(record, "text/csv", b"never", truncated=False)
    assert json.loads(sent.body) == {
        "request_id": ID,
        "error": {"message": "exit code 3", "code": "exit", "fault": "function"},
    }
    assert sent.headers["Content-Type"] == "application/json; charset=utf-8"
    assert sent.headers["X-Millrace-Code"] == "exit"
    assert sent.headers["X-Millrace-Attempt"] == "2"


def after(attempt: Try, **more: Any) -> Next:
    given = {"number": 1, "retry_after_ms": None, "until_ms": 10**9, "jitter": 0.5}
    return callback_rules.after(attempt, **{**given, **more})


@pytest.mark.parametrize(
    ("number", "pause_ms"),
    [(1, 5_000), (2, 10_000), (5, 80_000), (10, 2_560_000), (11, 3_600_000), (99, 3_600_000)],
)
def test_pauses_double_up_to_an_hour(number: int, pause_ms: int) -> None:
    failed = Try(1000, 503, "busy")
    assert after(failed, number=number) == Next("due", 1000 + pause_ms)
    assert after(failed, number=number, jitter=0) == Next("due", 1000 + round(0.75 * pause_ms))
    assert after(failed, number=number, jitter=1) == Next("due", 1000 + round(1.25 * pause_ms))


def test_how_it_ends() -> None:
    assert after(Try(1000, 204)) == Next("delivered")
    assert after(Try(1000, 410, "gone")) == Next("failed")
    assert after(Try(10**9, 500, "late")) == Next("failed")
    assert after(Try(10**9, 200)) == Next("delivered")
    # The last try is made when time is over, and not before.
    assert after(Try(10**9 - 10, 500, "late")) == Next("due", 10**9)


def test_a_receiver_may_ask_for_more_time_but_not_for_ever() -> None:
    busy = Try(1000, 429, "busy")
    assert after(busy, retry_after_ms=120_000) == Next("due", 121_000)
    assert after(busy, retry_after_ms=1) == Next("due", 6_000)
    assert after(busy, retry_after_ms=10**15) == Next("due", 10**9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None), ("", None), ("7", 7000), ("-7", None), ("soon", None), ("7.5", None),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 9000), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("9" * 64, int("9" * 64) * 1000), ("9" * 65, None), ("²", None),
    ],
)  # fmt: skip
def test_retry_after(text: str | None, expected: int | None) -> None:
    assert callback_rules.retry_after_ms(text, 1000) == expected


@pytest.mark.parametrize("status", [199, 300, 302, 400, 404, 500])
def test_what_is_no_success(status: int) -> None:
    assert str(status) in callback_rules.complaint(status)
    assert not callback_rules.complaint(204)
