"""What does the end of a run mean for who called? Pure: from a `runs.Result` to an outcome.

A failing function is a result, and so is everything else that can end a run: each has its code.
"""

import enum
import re

from services.runner import runs
from shared import messages

_SIGNAL_BASE = 128
_SIGNALS = 64
_SIGKILL_CODE = _SIGNAL_BASE + 9
#: What the init in each sandbox says on stderr when it cannot execute the image's command.
_INIT_FAILED = re.compile(rb"\A\[FATAL tini \(\d+\)\] (exec .* failed: .*)\n\Z")
_INIT_FAILED_CODES = (126, 127)


class StopReason(enum.Enum):
    """Why we stopped a run before its end."""

    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    #: The runner leaves, and the call's time is over or its process was started.
    DRAIN = "drain"


_STOPPED = {
    StopReason.TIMEOUT: messages.Failed("timeout", "Timed out"),
    StopReason.DEADLINE: messages.Failed(
        "deadline", "The call's deadline passed before the function had answered."
    ),
    StopReason.CANCELLED: messages.Failed("cancelled", "The caller left; the call was stopped."),
    StopReason.DRAIN: messages.Failed(
        "runner_lost", "The runner stopped before the function had answered."
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
        return _exited(ending, result, image)
    if isinstance(ending, runs.ImageUnusable):
        return _unusable(image, ending.why)
    return messages.Failed(*_not_run(ending))


def _not_run(
    ending: runs.Overflowed | runs.PullFailed | runs.EngineFailed | runs.Broken | runs.Stopped,
) -> tuple[str, str]:
    """Return code and message of what kept a run from ending by itself."""
    match ending:
        case runs.Overflowed(limit):
            why = f"The function's answer is longer than the limit of {limit} bytes."
            return "response_too_large", why
        case runs.PullFailed(image, why):
            return "image_pull", f"Failed to pull image '{image}': {why}"
        case runs.EngineFailed(why):
            return "unavailable", f"The container engine failed: {why}"
        case runs.Broken(why):
            return "internal", why
        case runs.Stopped():
            return "internal", "The run was stopped for no reason."


def _unusable(image: str, why: str, exit_code: int | None = None) -> messages.Failed:
    told = f"Failed to create container from task configuration '{image}': {why}"
    return messages.Failed("image_invalid", told, exit_code)


def _exited(ending: runs.Exited, result: runs.Result, image: str) -> messages.Outcome:
    code = ending.code
    if code == 0:
        return messages.Answered(result.stdout)
    init = _INIT_FAILED.match(result.log) if code in _INIT_FAILED_CODES else None
    if init:
        return _unusable(image, init[1].decode(errors="replace"), code)
    if code == _SIGKILL_CODE:
        if ending.oom_killed:
            return messages.Failed("out_of_memory", "out of memory error", code)
        why = f"killed by SIGKILL (exit code {code}), not an out of memory error"
        return messages.Failed("signal", why, code)
    by_signal = _SIGNAL_BASE < code <= _SIGNAL_BASE + _SIGNALS
    return messages.Failed("signal" if by_signal else "exit", f"exit code {code}", code)


def status_of(outcome: messages.Outcome) -> messages.Status:
    """Return the status a record has for an outcome."""
    if isinstance(outcome, messages.Answered):
        return "success"
    return "cancelled" if outcome.code == "cancelled" else "error"
