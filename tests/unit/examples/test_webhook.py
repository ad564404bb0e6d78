"""What does the webhook function work out, and whom does it call how often? No network here."""

import hashlib
import hmac
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.webhook import func, receiver


class Stubborn:
    """A receiver that takes an outcome at a certain attempt; remembers how long others waited."""

    def __init__(self, takes_at: int, problem: type[func.Problem] = func.NotTakenNow) -> None:
        self.takes_at, self.problem = takes_at, problem
        self.attempts = 0
        self.pauses_s: list[float] = []

    def attempt(self) -> None:
        self.attempts += 1
        if self.attempts < self.takes_at:
            raise self.problem("not now")


def persist(receiver: Stubborn) -> None:
    func.persist(receiver.attempt, receiver.pauses_s.append)


@pytest.mark.parametrize(
    ("number", "primes"),
    [(2, [2]), (9, [3, 3]), (97, [97]), (600851475143, [71, 839, 1471, 6857]), (2**40, [2] * 40)],
)
def test_factors(number: int, primes: list[int]) -> None:
    assert func.factors(number) == primes


@given(st.integers(2, 1_000_000))
def test_the_product_of_the_factors_is_the_number(number: int) -> None:
    found = func.factors(number)
    assert math.prod(found) == number
    assert found == sorted(found)
    assert all(func.factors(prime) == [prime] for prime in found)


@pytest.mark.parametrize("number", [None, "12", 1, 0, -6, 2.0, True, func.LARGEST + 1, [2]])
def test_the_receiver_is_told_of_numbers_that_are_none(number: object) -> None:
    told = func.outcome({"number": number}, "id")
    assert told["call_id"] == "id"
    assert "must be from 2 to" in told["error"]
    assert "factors" not in told


@pytest.mark.parametrize("raw", [b"", b"12", b"[]", b"\xff", b"{"])
def test_bad_requests_are_explained(raw: bytes) -> None:
    with pytest.raises(func.BadRequest, match="standard input is not"):
        func.parse_request(raw)


@pytest.mark.parametrize(
    "address",
    [
        None,
        1,
        "",
        "host",
        "ftp://host/",
        "http://",
        "http://h:x/",
        "http://h/\r\nX: y",
        "http://h/é",
    ],
)
def test_addresses_that_cannot_be_called(address: object) -> None:
    with pytest.raises(func.BadRequest, match="callback"):
        func.parse_callback(address)


def test_a_receiver_gets_further_attempts_with_longer_pauses() -> None:
    receiver = Stubborn(takes_at=3)
    persist(receiver)
    assert (receiver.attempts, receiver.pauses_s) == (3, [1.0, 2.0])


def test_the_attempts_end() -> None:
    receiver = Stubborn(takes_at=99)
    with pytest.raises(func.NotTakenNow):
        persist(receiver)
    assert receiver.attempts == 1 + len(func.PAUSES_S)


def test_a_receiver_that_refuses_is_not_asked_again() -> None:
    receiver = Stubborn(takes_at=2, problem=func.NotTaken)
    with pytest.raises(func.NotTaken):
        persist(receiver)
    assert receiver.attempts == 1


def test_the_receiver_knows_who_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "SECRET", "hush")
    body = json.dumps({"a": 1}).encode()
    signature = func.headers(body, "id", "hush")["X-Signature"]
    assert signature == "sha256=" + hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    assert receiver.is_signed(body, signature)
    assert not receiver.is_signed(body + b" ", signature)
    assert not receiver.is_signed(body, func.headers(body, "id", "other")["X-Signature"])
    assert not receiver.is_signed(body, "é")


def test_without_a_secret_nothing_is_signed() -> None:
    assert func.headers(b"", "id", "") == {"Content-Type": "application/json", "X-Call-Id": "id"}
