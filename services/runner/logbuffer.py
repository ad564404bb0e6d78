"""What is kept of a function's stderr? Its beginning and its end, and how much lies between."""


class LogBuffer:
    """Keeps at most `limit` bytes of what is written: the first half and the last half.

    Memory is bounded by two and a half limits, however much is written in however many pieces.

    Worked example: with limit 8 and `0123456789` written in any pieces, `0123`, a cut of 2 bytes
    and `6789` are kept.
    """

    __slots__ = ("_head", "_head_limit", "_tail", "_tail_limit", "_total")

    def __init__(self, limit: int) -> None:
        """`limit` is in bytes."""
        self._head_limit = limit // 2
        self._tail_limit = limit - self._head_limit
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._total += len(data)
        room = self._head_limit - len(self._head)
        self._head += data[:room]
        self._tail += data[room:][-self._tail_limit :] if self._tail_limit else b""
        # Trimmed only now and then, so that many small writes stay cheap.
        if len(self._tail) > 4 * self._tail_limit:
            del self._tail[: len(self._tail) - self._tail_limit]

    def text(self) -> bytes:
        """Return what is kept; where bytes were left out, a line says how many."""
        if not self._total:
            return b""
        tail = bytes(self._tail[max(0, len(self._tail) - self._tail_limit) :])
        cut = self._total - len(self._head) - len(tail)
        mark = b"\n[... %d bytes cut ...]\n" % cut if cut else b""
        return bytes(self._head) + mark + tail
