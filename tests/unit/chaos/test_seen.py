"""Is each broken promise seen, and nothing else?"""

from typing import Any

import pytest

from tests.chaos import seen as saw
from tests.chaos.report import Report
from tests.chaos.routes import KINDS, Kind
from tests.chaos.seen import Seen

BY_NAME = {kind.name: kind for kind in KINDS}


def call(kind: str = "http", **fields: Any) -> Seen:
    known: dict[str, Any] = {"began_s": 0.0, "took_s": 0.1, "status": 200, "body": b"<1>"}
    return Seen(BY_NAME[kind], b"<1>", **(known | fields))


def test_an_echo_of_what_was_sent_breaks_nothing() -> None:
    good = call()
    assert not saw.mixed(good)
    assert not saw.unanswered(good)
    assert not saw.unexplained(good, harmed=False)


@pytest.mark.parametrize(
    "wrong", [call(body=b"<2>"), call(body=b""), call("failing"), call("overtime")]
)
def test_an_answer_that_nobody_gave_to_this_call(wrong: Seen) -> None:
    assert saw.mixed(wrong)


def test_a_caller_who_waited_too_long() -> None:
    within_s = BY_NAME["http"].answer_within_s
    assert not saw.unanswered(call(took_s=within_s))
    assert saw.unanswered(call(took_s=within_s + 0.1))


def test_a_failure_must_have_its_word() -> None:
    told = call(status=503, code="unavailable", body=b"{}")
    assert not saw.unexplained(told, harmed=False)
    for status, code in ((500, ""), (500, "unavailable"), (500, "internal"), (418, "tea")):
        assert saw.unexplained(call(status=status, code=code), harmed=False)


def test_a_broken_connection_is_excused_by_harm_to_its_api_alone() -> None:
    broken = call(status=None, broken="reset")
    assert saw.unexplained(broken, harmed=False)
    assert not saw.unexplained(broken, harmed=True)
    assert not saw.unexplained(call("left", status=None), harmed=False)


def report(**defects: list[str]) -> Report:
    return Report(5, 1.0, 20.0, ["3s kill api 0, 1.0 s"], [call(), call(body=b"x")], 0, defects)


def test_a_report_names_what_was_broken() -> None:
    assert report(lost=[]).went_well
    broken = report(lost=["id"] * 9)
    assert not broken.went_well
    assert "| lost | 9 |" in broken.markdown()
    assert broken.markdown().count("- lost: id") == 5
    assert "1 x kill api" in broken.markdown()
    assert b'"lost": 9' in broken.json()


def test_every_kind_has_one_function() -> None:
    kinds: tuple[Kind, ...] = KINDS
    assert all((kind.echo is None) == bool(kind.script) for kind in kinds)
