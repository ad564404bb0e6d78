"""What has a run written by now, and what is made of it at its end?"""

import pytest

from services.runner import runs
from services.runner.output import Bounds, Output
from shared import clock, messages
from tests.unit.runner.builders import HEAD

BOUNDS = Bounds(response=8, log=100, stream=20)


def output() -> Output:
    job = runs.Job(HEAD, messages.Parcel({}, {}, b""), clock.monotonic_s() - 1, 0)
    return Output(job, "sha256:1", BOUNDS)


def test_an_answer_is_kept_in_the_order_it_came() -> None:
    out = output()
    assert out.take(b"ab")
    assert out.take(b"cd")
    assert out.result(runs.Exited(0)).body == b"abcd"


def test_an_answer_of_just_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    out = output()
    assert out.take(b"12345678")
    assert not out.take(b"9")
    assert out.overflowed(streamed=False) == runs.Overflowed(8)


def test_an_answer_that_is_handed_on_has_a_limit_of_its_own_and_is_not_kept() -> None:
    out = output()
    assert out.pass_on(b"x" * 20)
    assert not out.pass_on(b"x")
    assert out.overflowed(streamed=True) == runs.Overflowed(20)
    assert out.result(runs.Answered(200, (), streamed=True)).body == b""


def test_a_result_knows_when_and_how_long() -> None:
    before_ms = clock.epoch_ms()
    result = output().result(runs.Exited(0), 4096)
    assert result.started_ms is not None
    assert before_ms <= result.started_ms <= clock.epoch_ms()
    assert result.start_ms >= 1_000
    assert result.run_ms > 0
    assert (result.digest, result.peak_memory_bytes) == ("sha256:1", 4096)


@pytest.mark.parametrize("ending", [runs.BadAnswer("x"), runs.Stopped(), runs.EngineFailed("x")])
def test_half_an_answer_is_none_but_its_log_is_kept(ending: runs.Ending) -> None:
    out = output()
    out.take(b"half")
    out.log.write(b"log")
    assert (out.result(ending).body, out.result(ending).log) == (b"", b"log")
    assert out.result(ending).started_ms is not None


@pytest.mark.parametrize("ending", [runs.ImageUnusable("x"), runs.TooLarge("x")])
def test_what_never_ran_has_no_start(ending: runs.Ending) -> None:
    result = output().result(ending)
    assert (result.started_ms, result.run_ms) == (None, 0.0)
