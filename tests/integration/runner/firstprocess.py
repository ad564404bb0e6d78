"""How does the sandboxes' first process do alone? The real one, pid 1 of a namespace of its own.

Never started otherwise: what it does at the end of a function, it does to every process it sees.
"""

import array
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.runner import protocol

ROOT = Path(__file__).parents[3]
#: Made by deploy/images, of services/runner/init/init.c.
INIT = ROOT / ".cache" / "init"
#: Nothing here takes long; what takes this long hangs.
PATIENCE_S = 20.0
MAGIC = 0x314C494D
START, CONNECT = 1, 2
#: What it exits with, by what it was told: see docs/sandbox-protocol.md.
END_OF_LINK, BAD_FRAME, BAD_USE, NO_RUNNER = 0, 65, 64, 127

#: Gives a program a namespace in which it is pid 1, and ends it with the test.
NAMESPACED = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def frame(kind: int, body: bytes = b"", *, magic: int = MAGIC, length: int | None = None) -> bytes:
    """Return a frame, right or wrong."""
    return struct.pack("=IIII", magic, kind, len(body) if length is None else length, 0) + body


@dataclass
class Standard:
    """Our ends of a function's standard files."""

    stdin: int
    stdout: int
    stderr: int

    def write(self, data: bytes) -> None:
        """Give the function its input, all of it."""
        os.write(self.stdin, data)
        self.finish()

    def finish(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
        self.stdin = -1

    def output(self) -> bytes:
        """Return all that it writes, up to the end of its standard output."""
        return read_all(self.stdout)

    def errors(self) -> bytes:
        return read_all(self.stderr)

    def close(self) -> None:
        self.finish()
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1


def read_all(fd: int) -> bytes:
    """Return what comes up to the end; raises TimeoutError if it does not come."""
    pieces: list[bytes] = []
    while True:
        if not select.select([fd], [], [], PATIENCE_S)[0]:
            raise TimeoutError(f"no end, after {b''.join(pieces)!r}")
        piece = os.read(fd, 1 << 16)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


class FirstProcess:
    """A first process, and the runner's end of its connection."""

    def __init__(self, folder: Path, command: Sequence[str], env: dict[str, str]) -> None:
        """It is to start `command`. `folder` has a short name."""
        self._path = folder / "socket"
        self._command = [str(INIT), str(self._path), *command]
        self._env = env
        self._frames = protocol.Frames()
        self._got: list[protocol.Frame] = []
        self._fds: list[int] = []
        self._opened: list[Standard] = []

    def without_files(self) -> Self:
        """Let it be started without standard files."""
        self._command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *self._command]
        return self

    def __enter__(self) -> Self:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._path))
            listener.listen(1)
            listener.settimeout(PATIENCE_S)
            self._process = subprocess.Popen([*NAMESPACED, *self._command], env=self._env)
            self.link, _ = listener.accept()
        self._path.unlink()
        self.link.settimeout(PATIENCE_S)
        assert self.receive() == protocol.Hello(protocol.VERSION)
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()
        for opened in self._opened:
            opened.close()
        for fd in self._fds:
            os.close(fd)
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id, as this machine counts."""
        (child,) = children(self._process.pid)
        return child

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.link.sendmsg([data], rights)
        if sent < len(data):
            self.link.sendall(data[sent:])

    def start(self, env: bytes = b"", pieces: Sequence[int] = ()) -> Standard:
        """Start the function with these variables; the frame goes in pieces of these sizes."""
        data = frame(START, env)
        with self.files() as (theirs, ours):
            for number, size in enumerate(pieces):
                self.send(data[:size], theirs if number == 0 else ())
                data = data[size:]
            if data:
                self.send(data, () if pieces else theirs)
        return ours

    @contextmanager
    def files(self, count: int = 3) -> Iterator[tuple[list[int], Standard]]:
        """Give so many files for a function, and our ends of the first three."""
        into, out, err, *more = (os.pipe2(os.O_CLOEXEC) for _ in range(max(3, count)))
        theirs = [into[0], out[1], err[1], *(read for read, _ in more)]
        ours = Standard(into[1], out[0], err[0])
        self._opened.append(ours)
        yield theirs[:count], ours
        for fd in [*theirs, *(write for _, write in more)]:
            os.close(fd)

    def receive(self) -> protocol.Frame:
        """Return the next frame; raises EOFError if none will come."""
        while not self._got:
            data, fds, _, _ = socket.recv_fds(self.link, 4096, 4)
            self._fds += fds
            if not data:
                raise EOFError
            self._got += self._frames.feed(data)
        return self._got.pop(0)

    def ended(self) -> protocol.Ended:
        """Return the end of the function, which is to be the next it tells."""
        told = self.receive()
        assert isinstance(told, protocol.Ended)
        return told

    def connection(self) -> socket.socket:
        """Return the connection that came with a frame."""
        return socket.socket(fileno=self._fds.pop(0))

    def hang_up(self) -> None:
        """Send no more."""
        self.link.shutdown(socket.SHUT_WR)

    def code(self) -> int:
        """Return what it exits with; raises TimeoutExpired if it does not."""
        return self._process.wait(PATIENCE_S)


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when it is true; raises TimeoutError if that takes too long."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors(pid: int) -> int:
    """Return how many files a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
