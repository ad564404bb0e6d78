"""How do bytes get into and out of a process? File descriptors that never block the loop."""

import array
import asyncio
import fcntl
import os
import select
import termios
from collections.abc import Callable, Iterable

_READ_BYTES = 64 * 1024
#: What the kernel writes the answer to a question about a pipe into; asked in the loop alone.
_COUNT = array.array("i", [0])
#: A pipe holds 1 MiB at most; who writes for ever must not be read for ever.
_DRAIN_READS = 32

#: Takes what was read.
Taker = Callable[[bytes], None]


def pair_for_input() -> tuple[int, int]:
    """Return a pipe's end for the process to read from, and ours to write to."""
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    return theirs, ours


def pair_for_output() -> tuple[int, int]:
    """Return a pipe's end for the process to write to, and ours to read from."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    return theirs, ours


class Writer:
    """Writes to a file descriptor, which is its own from now on, as fast as the other side reads.

    That the other side reads no more is no error: a process need not read its input.
    """

    def __init__(self, fd: int) -> None:
        """`fd` does not block."""
        self._fd = fd
        self._unsent = memoryview(b"")
        self._finishing = False
        #: Bytes that the pipe has taken.
        self.accepted = 0
        #: Whether nobody can read what is written.
        self.broken = False

    def write(self, data: bytes) -> None:
        """Write these bytes; those before must have been written."""
        count = self._write(data)
        if count < len(data):
            self._unsent = memoryview(data)[count:]
            asyncio.get_running_loop().add_writer(self._fd, self._go_on)

    def finish(self) -> None:
        """Close it as soon as all is written."""
        if self._unsent:
            self._finishing = True
        else:
            self.close()

    def close(self) -> None:
        """Close it now."""
        if self._fd >= 0:
            if self._unsent:
                asyncio.get_running_loop().remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1

    @property
    def all_written(self) -> bool:
        """Whether nothing is left to be written."""
        return not self._unsent

    def unread(self) -> int:
        """Return how many of the bytes written to a pipe its process has not read."""
        if self._fd < 0:
            return 0
        fcntl.ioctl(self._fd, termios.FIONREAD, _COUNT, True)  # noqa: FBT003 (it has no name)
        return _COUNT[0]

    def _go_on(self) -> None:
        if not self._unsent:
            return
        self._unsent = self._unsent[self._write(self._unsent) :]
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self._fd)
            if self._finishing:
                self.close()

    def _write(self, data: bytes | memoryview) -> int:
        """Return how many bytes need not be written any more."""
        try:
            count = os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.broken = True
            return len(data)
        self.accepted += count
        return count


class Reader:
    """Reads a file descriptor, which is its own from now on, and hands on what comes."""

    __slots__ = ("_ended", "_fd", "_taker", "_watching")

    def __init__(
        self,
        fd: int,
        taker: Taker,
        ended: Callable[[], None] | None = None,
        *,
        paused: bool = False,
    ) -> None:
        """`fd` does not block. `ended` is called once, at the end of what there is to read."""
        self._fd, self._taker, self._ended = fd, taker, ended
        self._watching = False
        if not paused:
            self.resume()

    def fileno(self) -> int:
        """Return the file descriptor; -1 once it is closed."""
        return self._fd

    def pause(self) -> None:
        """Read no more for now."""
        if self._watching:
            self._watching = False
            asyncio.get_running_loop().remove_reader(self._fd)

    def resume(self) -> None:
        """Read again."""
        if not self._watching and self._fd >= 0:
            self._watching = True
            asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def drain(self) -> None:
        """Hand on what can be read at this moment: all of it, if a pipe can hold it."""
        for _ in range(_DRAIN_READS):
            if not self._readable():
                return

    def close(self) -> None:
        """Close it; `ended` is not called for that."""
        self.pause()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> bool:
        """Read once; say whether there may be more."""
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._taker(data)
            return True
        self.close()
        if self._ended is not None:
            self._ended()
        return False


class Glance:
    """Tells in one look whether there is anything to read in some pipes: mostly there is nothing.

    After one of them has been closed it may say yes in vain.
    """

    def __init__(self, readers: Iterable[Reader]) -> None:
        """`readers` are open."""
        self._poll = select.poll()
        for reader in readers:
            self._poll.register(reader.fileno(), select.POLLIN)

    def sees(self) -> bool:
        """Return whether there may be something to read, or an end, at this moment."""
        return bool(self._poll.poll(0))
