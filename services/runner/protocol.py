"""What do the runner and the first process of a sandbox say to each other? Pure: frames.

The other side is `init/init.c`; docs/sandbox-protocol.md describes both. A frame is a fixed part
(magic, kind, length of the body, value; each 32 bits in the machine's order) and a body. File
descriptors travel beside the fixed part.
"""

import errno
import struct
from collections.abc import Mapping

import msgspec

VERSION = 1
BODY_MAX_BYTES = 1 << 20
_MAGIC = 0x314C494D
_START, _CONNECT, _HELLO, _ENDED, _CONNECTED = 1, 2, 16, 17, 18
_FIXED = struct.Struct("=IIII")
_END = struct.Struct("=iiIIQ")


class _Told(msgspec.Struct, frozen=True, gc=False):
    pass


class BadFrame(Exception):
    """What came is no frame of a sandbox's first process."""


class Hello(_Told, frozen=True):
    """init -> runner: it lives."""

    version: int


class Ended(_Told, frozen=True):
    """init -> runner: the function's process is gone, and with it all that it started.

    `error` is the `errno` of a command that could not be executed, 0 otherwise; `status` is what
    `wait` gives; `oom_kills` is how often the kernel killed for want of memory since the last end.
    `changed`: the next process would be restricted otherwise than this one was when it started.
    """

    error: int
    status: int
    oom_kills: int
    peak_kib: int
    changed: bool = False


class Connected(_Told, frozen=True):
    """init -> runner: the answer to `connect`; `error` is an `errno`, 0 if a connection came."""

    error: int


Frame = Hello | Ended | Connected


def environment_block(variables: Mapping[str, str]) -> bytes:
    r"""Return variables as init takes them; none has a zero byte: the api sees to it.

    >>> environment_block({"A": "1", "B": "2"})
    b'A=1\x00B=2\x00'
    """
    block = "".join([f"{name}={value}\0" for name, value in variables.items()])
    return block.encode("utf-8", "surrogateescape")


def start(environment: bytes) -> bytes:
    """runner -> init: start the function with these variables, on the three files beside this.

    Raises OSError (E2BIG) for an environment that is too long for a frame.
    """
    return _frame(_START, environment)


def connect(path: str) -> bytes:
    """runner -> init: connect to the unix socket at a path in the sandbox."""
    return _frame(_CONNECT, path.encode())


def _frame(kind: int, body: bytes) -> bytes:
    if len(body) > BODY_MAX_BYTES:
        raise OSError(errno.E2BIG, f"{len(body)} bytes are too many, the limit is {BODY_MAX_BYTES}")
    return _FIXED.pack(_MAGIC, kind, len(body), 0) + body


class Frames:
    """Makes frames of bytes as they come, in whatever pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are whole by now. Raises `BadFrame`."""
        self._buffer += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._buffer) < _FIXED.size:
            return None
        magic, kind, length, value = _FIXED.unpack_from(self._buffer)
        if magic != _MAGIC or length != (_END.size if kind == _ENDED else 0):
            raise BadFrame(f"not a frame: {self._buffer[: _FIXED.size].hex()}")
        if len(self._buffer) < _FIXED.size + length:
            return None
        body = self._buffer[_FIXED.size : _FIXED.size + length]
        self._buffer = self._buffer[_FIXED.size + length :]
        return _decoded(kind, value, body)


def _decoded(kind: int, value: int, body: bytes) -> Frame:
    if kind == _ENDED:
        error, status, oom_kills, changed, peak_kib = _END.unpack(body)
        return Ended(error, status, oom_kills, peak_kib, bool(changed))
    if kind == _HELLO:
        return Hello(value)
    if kind == _CONNECTED:
        return Connected(value)
    raise BadFrame(f"unknown kind {kind}")
