"""How does the runner talk to the first process of a sandbox? One unix socket for each.

Sends frames with file descriptors and hands on what comes; knows nothing of calls or containers.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from services.runner import protocol

_READ_BYTES = 4096
_FD_BYTES = array.array("i").itemsize

#: Takes a frame, and the connection that came with it (a file descriptor, now the taker's).
Frames = Callable[[protocol.Frame, int | None], None]


class Listener:
    """Waits for one sandbox's first process at a path, and for nothing else ever."""

    def __init__(self, path: Path) -> None:
        """Listen at `path`, for whatever user the sandbox runs as. Raises OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)  # noqa: FBT003 (the name is the standard library's)
            self._socket.bind(str(path))
            path.chmod(0o666)
            self._socket.listen(1)
        except OSError:
            self.close()
            raise

    async def accept(self) -> "Link":
        """Return the connection, once it is made; nobody can make another."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._socket)
        self.close()
        return Link(connection)

    def close(self) -> None:
        """Stop listening; who tries to connect then is refused."""
        self._socket.close()


class _Unsent(NamedTuple):
    """A frame that could not go yet, or what is left of one."""

    data: bytes
    #: Copies of the file descriptors that go with it.
    fds: Sequence[int]


class Link:
    """A connection to a sandbox's first process.

    When it is closed from either side that process ends, and all others of the sandbox with it.
    """

    def __init__(self, connection: socket.socket) -> None:
        """`connection` does not block, and is this object's from now on."""
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._parser = protocol.Frames()
        self._unsent: deque[_Unsent] = deque()
        self._taker: Frames = _ignore
        self._lost: Callable[[], None] = _nothing
        self.open = True

    def listen(self, taker: Frames, lost: Callable[[], None]) -> None:
        """Hand frames to `taker` from now on; call `lost` once if the other side is gone."""
        self._taker, self._lost = taker, lost
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        """Send a frame and copies of file descriptors; what cannot go now goes as soon as it can.

        A connection that is lost says so to `lost`, not here.
        """
        if not self.open:
            return
        sent = 0 if self._unsent else self._send_now(frame, fds)
        if sent < len(frame):
            if not self._unsent:
                self._loop.add_writer(self._socket.fileno(), self._writable)
            # They go with the first byte.
            copies = () if sent else tuple(os.dup(fd) for fd in fds)
            self._unsent.append(_Unsent(frame[sent:], copies))

    def _send_now(self, frame: bytes, fds: Sequence[int]) -> int:
        """Return how many bytes have gone."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            return self._socket.sendmsg([frame], rights)
        except BlockingIOError:
            return 0
        except OSError:
            # What is lost shows when it is read from.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            return len(frame)

    def close(self) -> None:
        """Close it; `lost` is not called for that."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            for unsent in self._unsent:
                _close(unsent.fds)
            self._unsent.clear()

    def _writable(self) -> None:
        while self._unsent:
            frame, fds = self._unsent[0]
            sent = self._send_now(frame, fds)
            if not sent:
                return
            _close(fds)
            self._unsent[0] = _Unsent(frame[sent:], ())
            if sent == len(frame):
                self._unsent.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_FD_BYTES))
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        fds = _descriptors(ancillary)
        try:
            frames = self._parser.feed(data) if data else []
        except protocol.BadFrame:
            data, frames = b"", []
        for frame in frames:
            brings = isinstance(frame, protocol.Connected) and not frame.error and fds
            self._taker(frame, fds.pop(0) if brings else None)
        _close(fds)
        if not data and self.open:
            self.close()
            self._lost()


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return list(fds)


def _ignore(frame: protocol.Frame, fd: int | None) -> None:
    del frame
    if fd is not None:
        os.close(fd)


def _nothing() -> None:
    pass
