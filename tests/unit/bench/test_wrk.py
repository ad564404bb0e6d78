"""Is wrk's output read for what it says?"""

import json
from typing import Any

import pytest

from tests.bench import wrk
from tests.bench.figures import Checked

HEAD = b"Running 12s test @ http://127.0.0.1:8080/r/a/b\n  1 threads and 4 connections\n"


def said(**fields: Any) -> bytes:
    told = {
        "duration_us": 12_000_000,
        "taken_us": [],
        "right": 0,
        "failed": 0,
        "wrong": 0,
        "unanswered": 0,
        "example": "",
    }
    return HEAD + json.dumps(told | fields).encode() + b"\n"


def test_the_warm_up_is_checked_and_not_measured() -> None:
    found = wrk.parsed(said(taken_us=[1500, 500, 1000], right=7), callers=4, warm_up_s=2)
    assert found.checked == Checked(7)
    figures = found.figures()
    assert (figures.calls, figures.p50_ms, figures.p99_ms) == (3, 1.0, 1.5)
    assert figures.calls_per_s == 0.3


def test_each_kind_of_bad_answer_is_counted() -> None:
    output = said(right=5, failed=2, wrong=1, unanswered=4, example="500 oops")
    found = wrk.parsed(output, callers=4, warm_up_s=0)
    assert found.checked == Checked(12, failed=6, wrong=1, example="500 oops")


def test_nobody_having_an_answer_is_not_nobody_having_asked() -> None:
    found = wrk.parsed(said(), callers=4, warm_up_s=0)
    assert found.checked == Checked(4, failed=4, example="no answer")
    assert found.values() == ()
    with pytest.raises(ValueError, match="no call went well: no answer"):
        found.figures()


@pytest.mark.parametrize("output", [b"", HEAD, b'{"right": 1}\n'])
def test_another_output_is_an_error(output: bytes) -> None:
    with pytest.raises(ValueError, match="wrk says"):
        wrk.parsed(output, callers=1, warm_up_s=0)
