"""How is a process started in a sandbox, and what does its end mean?"""

import errno
import os
from typing import NamedTuple

from services.runner import pipes, protocol, runs
from services.runner.link import Link

_SIGNAL_BASE, _SIGKILL = 128, 9


class Pipes(NamedTuple):
    """Our ends of a process's standard files. They do not block."""

    stdin: int
    stdout: int
    stderr: int


def start(link: Link, environment: bytes) -> Pipes:
    """Have a sandbox's first process start the image's command.

    Raises OSError if no files are left, or (E2BIG) if the environment is too long.
    """
    frame = protocol.start(environment)
    opened: list[int] = []
    try:
        for make in (pipes.pair_for_input, pipes.pair_for_output, pipes.pair_for_output):
            opened += make()
        link.send(frame, opened[0::2])
    except BaseException:
        for fd in opened[1::2]:
            os.close(fd)
        raise
    finally:
        # The process has its own copies by now.
        for fd in opened[0::2]:
            os.close(fd)
    return Pipes(*opened[1::2])


def unstarted(error: OSError) -> runs.TooLarge | runs.Broken:
    """Return what it means that a process could not even be asked for."""
    if error.errno == errno.E2BIG:
        return runs.TooLarge(str(error.strerror))
    return runs.Broken(f"The runner lacks what it takes: {error}")


def ending(told: protocol.Ended) -> runs.Exited | runs.ImageUnusable | runs.TooLarge:
    """Return what the end of a process means.

    >>> ending(protocol.Ended(0, 9, 1, 0))
    Exited(code=137, oom_killed=True)
    """
    if told.error == errno.E2BIG:
        return runs.TooLarge("the kernel takes no variable over 128 KiB, and not 2 MiB in all")
    if told.error:
        return runs.ImageUnusable(os.strerror(told.error).lower())
    code = os.waitstatus_to_exitcode(told.status)
    if code < 0:
        code = _SIGNAL_BASE - code
    return runs.Exited(code, code == _SIGNAL_BASE + _SIGKILL and told.oom_kills > 0)
