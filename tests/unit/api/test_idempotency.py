"""Which requests are the same, and what is told to the second?"""

from typing import Any

import pytest

from services.api import answers, idempotency
from services.api.idempotency import AnswerNotKept, Asked, KeyReused, Target
from services.api.problems import BadRequest
from shared import messages

TARGET = Target("a", "/p", "POST", "x=1")
ASKED = idempotency.asked(["k"], TARGET, b"body")
REPLY = messages.Reply("id-1", messages.Answered(b"done", 201), 1.0, 2.0)
ROUTE = answers.route_headers({"X-A": ["1"]})


@pytest.mark.parametrize("key", ["k", "a b", '"8e03978e-40d5"', "~" * 255])
def test_a_key_that_will_do(key: str) -> None:
    assert idempotency.asked([key], TARGET, b"").key == key


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb", "ü", "a\x7f", "\x00"])
def test_a_key_that_will_not(key: str) -> None:
    with pytest.raises(BadRequest, match="Idempotency-Key must be 1 to 255 printable"):
        idempotency.asked([key], TARGET, b"")


def test_two_keys() -> None:
    with pytest.raises(BadRequest, match="Idempotency-Key is there 2 times"):
        idempotency.asked(["a", "b"], TARGET, b"")


@pytest.mark.parametrize(
    ("app", "path", "key"), [("b", "/p", "k"), ("a", "/q", "k"), ("a", "/p", "l"), ("a/", "p", "k")]
)
def test_keys_are_of_one_app_and_path(app: str, path: str, key: str) -> None:
    other = idempotency.asked([key], Target(app, path, "POST", "x=1"), b"body")
    assert other.digest != ASKED.digest
    assert other.fingerprint == ASKED.fingerprint


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [("PUT", "x=1", b"body"), ("POST", "x=2", b"body"), ("POST", "x=1", b"Body"),
     ("POST", "x=", b"1body"), ("POSTx", "=1", b"body")],
)  # fmt: skip
def test_other_requests_are_told_apart(method: str, query: str, body: bytes) -> None:
    other = idempotency.asked(["k"], Target("a", "/p", method, query), body)
    assert other.digest == ASKED.digest
    assert other.fingerprint != ASKED.fingerprint


def fields(**more: Any) -> list[Any]:
    given = {
        "f": ASKED.fingerprint.encode(),
        "c": b"id-1",
        "m": b"sync",
        "s": b"run",
        "u": b"5000",
        "h": idempotency.packed(ROUTE),
        "a": None,
        "e": b"9000",
    }
    return [*{**given, **more}.values()]


def answer(asked: Asked = ASKED, now_ms: int = 1000, **more: Any) -> Any:
    held = idempotency.held(fields(**more))
    assert held is not None
    return idempotency.answer(held, asked, now_ms)


def test_nothing_is_held() -> None:
    assert idempotency.held([None] * 8) is None


def test_the_first_call_runs() -> None:
    assert answer() is None


def test_the_first_calls_answer_is_told_again() -> None:
    replay = answer(s=b"done", a=messages.encode(REPLY))
    assert replay == ("id-1", ROUTE, REPLY)
    assert answer(m=b"async", s=b"done") == ("id-1", ROUTE, None)


def test_another_request() -> None:
    other = idempotency.asked(["k"], TARGET, b"other")
    for state in (b"run", b"done", b"none"):
        with pytest.raises(KeyReused, match="Idempotency-Key 'k' was used for another request"):
            answer(other, s=state, a=messages.encode(REPLY))


def test_an_answer_that_is_not_kept() -> None:
    with pytest.raises(AnswerNotKept, match="too large to be kept"):
        answer(s=b"none")
    with pytest.raises(AnswerNotKept, match="may have run"):
        answer(now_ms=5001)
