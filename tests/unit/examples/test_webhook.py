"""What does the webhook function work out, and whom does its receiver believe? No network here."""

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.webhook import func, receiver
from services.api import callback_rules

DOCS = Path(__file__).parents[3] / "docs" / "callbacks.md"
NOW_S = 1_700_000_000


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
def test_numbers_that_are_none(number: object) -> None:
    with pytest.raises(func.BadRequest, match="must be from 2 to"):
        func.parse_number(json.dumps({"number": number}).encode())


@pytest.mark.parametrize("raw", [b"", b"12", b"[]", b"\xff", b"{"])
def test_bad_requests_are_explained(raw: bytes) -> None:
    with pytest.raises(func.BadRequest, match="standard input is not"):
        func.parse_number(raw)


def documented_verify() -> Any:
    """Return the function that the documents show."""
    [block] = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 (our own)
    return names["verify"]


def test_the_receiver_knows_who_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "SECRET", "hush")
    body = b'{"a": 1}'
    signature = callback_rules.signature(["new", "hush"], body, NOW_S)
    assert receiver.is_signed(body, signature, NOW_S + 5)
    assert not receiver.is_signed(body + b" ", signature, NOW_S)
    assert not receiver.is_signed(body, signature, NOW_S + 301)
    assert not receiver.is_signed(body, callback_rules.signature(["new"], body, NOW_S), NOW_S)
    for forged in ("", "é", "t=,v1=", f"t={NOW_S}", f"t={NOW_S},v1=é"):
        assert not receiver.is_signed(body, forged, NOW_S)


def test_so_does_who_does_as_the_documents_say() -> None:
    verify, now_s, body = documented_verify(), int(time.time()), b"\xff body"
    signature = callback_rules.signature(["new", "old"], body, now_s)
    assert verify("new", signature, body)
    assert verify("old", signature, body)
    assert not verify("other", signature, body)
    assert not verify("new", signature, body + b" ")
    assert not verify("new", callback_rules.signature(["new"], body, now_s - 301), body)
