"""When is what was read of a stream dropped there? Pure: seldom, as each time has its price.

What has been read lies in Redis' memory until then, so there is a limit to how much that is, and
for how long.
"""

#: Most that is left there, and for how long.
LEFT_MAX_ENTRIES = 512
LEFT_MAX_BYTES = 1024 * 1024
LEFT_MAX_S = 0.5


class Trimming:
    """What has been read of one stream and not yet been dropped there."""

    def __init__(self) -> None:
        self._last_id: str | None = None
        self._entries = self._bytes = 0
        self._since_s = 0.0

    def read(self, last_id: bytes, entries: int, size_bytes: int, now_s: float) -> None:
        """Note what has been read, up to the entry `last_id`."""
        if self._last_id is None:
            self._since_s = now_s
        self._last_id = last_id.decode()
        self._entries += entries
        self._bytes += size_bytes

    def due(self, now_s: float) -> str | None:
        """Return the id below which all is to be dropped now; None if it is not yet time."""
        if self._last_id is None or not (
            self._entries >= LEFT_MAX_ENTRIES
            or self._bytes >= LEFT_MAX_BYTES
            or now_s >= self._since_s + LEFT_MAX_S
        ):
            return None
        ms, _, seq = self._last_id.partition("-")
        self._last_id = None
        self._entries = self._bytes = 0
        return f"{ms}-{int(seq) + 1}"
