import pytest

from services.runner import outcome, runs
from services.runner.outcome import StopReason
from shared import messages
from shared.errors import CODES
from tests.unit.runner.builders import exited


def judged(result: runs.Result, reason: StopReason | None = None) -> messages.Outcome:
    return outcome.judge(result, "img:1", reason)


def test_exit_0_is_the_answer_byte_for_byte() -> None:
    assert judged(exited(stdout=b"\x00\xff")) == messages.Answered(b"\x00\xff")


@pytest.mark.parametrize(
    ("result", "code", "message", "exit_code"),
    [
        (exited(3), "exit", "exit code 3", 3),
        (exited(255), "exit", "exit code 255", 255),
        (exited(128), "exit", "exit code 128", 128),
        (exited(143), "signal", "exit code 143", 143),
        (exited(139), "signal", "exit code 139", 139),
        (exited(137, oom_killed=True), "out_of_memory", "out of memory error", 137),
        (
            exited(137),
            "signal",
            "killed by SIGKILL (exit code 137), not an out of memory error",
            137,
        ),
        (exited(127), "exit", "exit code 127", 127),
        (exited(129), "signal", "exit code 129", 129),
        (exited(192), "signal", "exit code 192", 192),
        (exited(193), "exit", "exit code 193", 193),
        (exited(3, oom_killed=True), "exit", "exit code 3", 3),
    ],
)
def test_exit_codes(result: runs.Result, code: str, message: str, exit_code: int) -> None:
    assert judged(result) == messages.Failed(code, message, exit_code)


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        (runs.BadAnswer("it wrote x"), "bad_answer", "it wrote x"),
        (runs.SaysFailed(timed_out=False), "failed", "its log has more"),
        (runs.SaysFailed(timed_out=True), "timeout", "Timed out"),
        (runs.Overflowed(8), "response_too_large", "limit of 8 bytes"),
        (runs.TooLarge("128 KiB"), "too_large", "cannot be given this environment: 128 KiB"),
        (runs.Interrupted("away"), "unavailable", "away"),
        (runs.PullFailed("x", "no"), "image_pull", "Failed to pull image 'x': no"),
        (runs.PullFailed("x", "no", "image_pull_away"), "image_pull_away", "image 'x': no"),
        (runs.ImageUnusable("w"), "image_invalid", "from task configuration 'img:1': w"),
        (runs.EngineFailed("gone"), "unavailable", "gone"),
        (runs.Broken("b"), "internal", "b"),
        (runs.Stopped(), "internal", "for no reason"),
    ],
)
def test_what_keeps_a_run_from_its_end(ending: runs.Ending, code: str, words: str) -> None:
    reached = judged(runs.Result(ending))
    assert isinstance(reached, messages.Failed)
    assert reached.code == code
    assert code in CODES
    assert words in reached.message
    assert reached.exit_code is None
    assert outcome.exit_code(ending) is None


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (StopReason.TIMEOUT, "timeout"),
        (StopReason.DEADLINE, "deadline"),
        (StopReason.CANCELLED, "cancelled"),
        (StopReason.DRAIN, "runner_lost"),
    ],
)
@pytest.mark.parametrize("ending", [runs.Stopped(), runs.EngineFailed("kill failed")])
def test_a_stopped_run_ends_for_its_reason(
    ending: runs.Ending, reason: StopReason, code: str
) -> None:
    reached = judged(runs.Result(ending), reason)
    assert isinstance(reached, messages.Failed)
    assert reached.code == code


def test_an_answer_has_the_functions_status_and_headers() -> None:
    headers = (("x-a", "1"), ("x-a", "2"))
    result = runs.Result(runs.Answered(418, headers), b"tea")
    assert judged(result) == messages.Answered(b"tea", 418, headers)


def test_a_function_that_answers_with_an_error_has_answered() -> None:
    assert outcome.status_of(judged(runs.Result(runs.Answered(500, ())))) == "success"


def test_a_timeout_says_what_the_original_says() -> None:
    assert judged(runs.Result(runs.Stopped()), StopReason.TIMEOUT) == messages.Failed(
        "timeout", "Timed out"
    )


@pytest.mark.parametrize("reason", StopReason)
@pytest.mark.parametrize(
    "result",
    [
        exited(stdout=b"x"),
        exited(3),
        runs.Result(runs.Answered(200, ())),
        runs.Result(runs.Overflowed(8)),
    ],
)
def test_a_run_that_ended_before_it_could_be_stopped_counts_as_it_ended(
    result: runs.Result, reason: StopReason
) -> None:
    assert judged(result, reason) == judged(result)


def test_each_reason_to_stop_has_a_code() -> None:
    codes = {judged(runs.Result(runs.Stopped()), reason).code for reason in StopReason}
    assert codes <= CODES.keys()
    # A runner that leaves and one that is cut off are both lost to the caller.
    assert len(codes) == len(StopReason) - 1


@pytest.mark.parametrize(
    ("reached", "status"),
    [
        (messages.Answered(b""), "success"),
        (messages.Failed("exit", ""), "error"),
        (messages.Failed("cancelled", ""), "cancelled"),
    ],
)
def test_status(reached: messages.Outcome, status: str) -> None:
    assert outcome.status_of(reached) == status
