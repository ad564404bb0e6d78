"""How is a process started, and what does its end mean?"""

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.runner import processes, protocol, runs
from services.runner.protocol import Ended


@dataclass
class KeepingLink:
    """A link that keeps what is sent, with copies of the files, as a process would."""

    sent: list[tuple[bytes, list[int]]] = field(default_factory=list)

    def send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        self.sent.append((frame, [os.dup(fd) for fd in fds]))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_process_gets_the_other_ends_of_three_pipes() -> None:
    link, before = KeepingLink(), open_files()
    ours = processes.start(link, b"A=1\0")
    ((frame, (stdin, stdout, stderr)),) = link.sent
    assert frame == protocol.start(b"A=1\0")
    os.write(ours.stdin, b"in")
    assert os.read(stdin, 9) == b"in"
    for theirs, mine in ((stdout, ours.stdout), (stderr, ours.stderr)):
        with pytest.raises(BlockingIOError):
            os.read(mine, 9)
        os.write(theirs, b"out")
        assert os.read(mine, 9) == b"out"
        os.close(theirs)
        assert os.read(mine, 9) == b"", "nobody else holds the process's end"
    for fd in (stdin, ours.stdin, ours.stdout, ours.stderr):
        os.close(fd)
    assert open_files() == before


def test_nothing_stays_open_of_a_process_that_was_not_started() -> None:
    link, before = KeepingLink(), open_files()
    with pytest.raises(OSError, match="limit") as caught:
        processes.start(link, b"x" * (protocol.BODY_MAX_BYTES + 1))
    assert caught.value.errno == errno.E2BIG
    assert link.sent == []
    assert open_files() == before


@pytest.mark.parametrize(
    ("told", "ending"),
    [
        (Ended(0, 0, 0, 9), runs.Exited(0)),
        (Ended(0, 3 << 8, 0, 9), runs.Exited(3)),
        (Ended(0, 255 << 8, 0, 9), runs.Exited(255)),
        (Ended(0, signal.SIGTERM, 0, 9), runs.Exited(143)),
        (Ended(0, signal.SIGSEGV | 0x80, 0, 9), runs.Exited(139)),
        (Ended(0, signal.SIGKILL, 0, 9), runs.Exited(137)),
        (Ended(0, signal.SIGKILL, 2, 9), runs.Exited(137, oom_killed=True)),
        # A shell says so of its child that was killed.
        (Ended(0, 137 << 8, 1, 9), runs.Exited(137, oom_killed=True)),
        # What was killed was something else that it had started.
        (Ended(0, 1 << 8, 1, 9), runs.Exited(1)),
        (Ended(errno.ENOENT, 0, 0, 0), runs.ImageUnusable("no such file or directory")),
        (Ended(errno.EACCES, 0, 0, 0), runs.ImageUnusable("permission denied")),
        (Ended(errno.ENOEXEC, 0, 0, 0), runs.ImageUnusable("exec format error")),
    ],
)
def test_what_the_end_of_a_process_means(told: Ended, ending: runs.Ending) -> None:
    assert processes.ending(told) == ending


def test_an_environment_the_kernel_does_not_take_is_not_the_images_fault() -> None:
    assert isinstance(processes.ending(Ended(errno.E2BIG, 0, 0, 0)), runs.TooLarge)
