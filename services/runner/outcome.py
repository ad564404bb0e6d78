"""What does the end of a run mean for who called? Pure: from a `runs.Result` to an outcome.

A failing function is a result, and so is everything else that can end a run: each has its code.
"""

import enum

from services.runner import runs
from shared import messages

_SIGNAL_BASE = 128
_SIGNALS = 64
_SIGKILL_CODE = _SIGNAL_BASE + 9


class StopReason(enum.Enum):
    """Why we stopped a run before its end."""

    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    #: The runner leaves, and the call's time is over or its process was started.
    DRAIN = "drain"
    #: The runner cannot be heard, so that others may be given the call.
    CUT_OFF = "cut off"


_STOPPED = {
    StopReason.TIMEOUT: messages.Failed("timeout", "Timed out"),
    StopReason.DEADLINE: messages.Failed(
        "deadline", "The call's deadline passed before the function had answered."
    ),
    StopReason.CANCELLED: messages.Failed("cancelled", "The caller left; the call was stopped."),
    StopReason.DRAIN: messages.Failed(
        "runner_lost", "The runner stopped before the function had answered."
    ),
    StopReason.CUT_OFF: messages.Failed(
        "runner_lost", "The runner was cut off from Redis, and stopped the call."
    ),
}


def judge(result: runs.Result, image: str, reason: StopReason | None) -> messages.Outcome:
    """Return the outcome of a run of `image`; `reason` is why we asked to stop it, if we did.

    A run that ended by itself before it could be stopped counts as it ended.
    """
    ending = result.ending
    if reason is not None and isinstance(ending, runs.Stopped | runs.EngineFailed):
        return _STOPPED[reason]
    if isinstance(ending, runs.Exited):
        return _exited(ending, result)
    if isinstance(ending, runs.Answered):
        return messages.Answered(result.body, ending.status, ending.headers)
    return messages.Failed(*_not_run(ending, image))


def _not_run(ending: runs.Ending, image: str) -> tuple[str, str]:  # noqa: PLR0911 (a table)
    """Return code and message of what kept a run from ending well."""
    match ending:
        case runs.BadAnswer(why):
            return "bad_answer", why
        case runs.SaysFailed(timed_out):
            failed = "failed", "The function says that it failed; its log has more."
            return ("timeout", "Timed out") if timed_out else failed
        case runs.Overflowed(limit):
            why = f"The function's answer is longer than the limit of {limit} bytes."
            return "response_too_large", why
        case runs.TooLarge(why):
            return "too_large", f"The function cannot be given this environment: {why}"
        case runs.PullFailed(name, why, code):
            return code, f"Failed to pull image '{name}': {why}"
        case runs.ImageUnusable(why):
            told = f"Failed to create container from task configuration '{image}': {why}"
            return "image_invalid", told
        case runs.EngineFailed(why):
            return "unavailable", f"The container engine failed: {why}"
        case runs.Interrupted(why):
            return "unavailable", why
        case runs.Broken(why):
            return "internal", why
        case _:
            return "internal", "The run was stopped for no reason."


def _exited(ending: runs.Exited, result: runs.Result) -> messages.Outcome:
    code = ending.code
    if code == 0:
        return messages.Answered(result.body)
    if code == _SIGKILL_CODE:
        if ending.oom_killed:
            return messages.Failed("out_of_memory", "out of memory error", code)
        why = f"killed by SIGKILL (exit code {code}), not an out of memory error"
        return messages.Failed("signal", why, code)
    by_signal = _SIGNAL_BASE < code <= _SIGNAL_BASE + _SIGNALS
    return messages.Failed("signal" if by_signal else "exit", f"exit code {code}", code)


def exit_code(ending: runs.Ending) -> int | None:
    """Return the exit code of a run; None if there is none."""
    return ending.code if isinstance(ending, runs.Exited) else None


def status_of(outcome: messages.Outcome) -> messages.Status:
    """Return the status a record has for an outcome."""
    if isinstance(outcome, messages.Answered):
        return "success"
    return "cancelled" if outcome.code == "cancelled" else "error"
