"""How is a stream read from its middle? Page by page, by ranges of ids."""

from collections.abc import AsyncIterator
from typing import Any

from shared.streams import Entry, Redis

PAGE = 500


async def page(redis: Redis, stream: str, start: str, count: int = PAGE) -> list[Entry]:
    """Return up to `count` entries from an id on; `-` is the stream's beginning."""
    found: Any = await redis.xrange(stream, min=start, count=count)
    return list(found)


async def entries(redis: Redis, stream: str) -> AsyncIterator[Entry]:
    """Yield all entries of a stream, in order."""
    start = "-"
    while True:
        found = await page(redis, stream, start)
        for entry in found:
            yield entry
        if len(found) < PAGE:
            return
        start = after(found[-1][0]).decode()


def after(entry_id: bytes) -> bytes:
    """Return the smallest id greater than this one.

    >>> after(b"7-41")
    b'7-42'
    """
    ms, _, counter = entry_id.partition(b"-")
    return b"%b-%d" % (ms, int(counter) + 1)
