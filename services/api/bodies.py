"""How is a request's body read, when bytes must stay bytes and there must not be too many?"""

import asyncio
from collections.abc import Callable

from aiohttp import StreamReader, web

from services.api.problems import SlowBody, TooLarge
from services.api.waiters import Overloaded

#: Bodies up to this never make the server pause their connection.
_SMALL_BYTES = 64 * 1024
#: Bodies up to this are not counted: as many as there may be callers are not much.
_TINY_BYTES = 4 * 1024
#: A body may take so many seconds, and one more for so many bytes that have come: whoever sends
#: holds a connection and, of a call, a place in its route's line.
PATIENCE_S, SLOWEST_BYTES_PER_S = 30.0, 4 * 1024


def _uncounted(_: int) -> None:
    """Count nothing."""


class Room:
    """The memory for bodies of calls, in bytes."""

    def __init__(self, most: int) -> None:
        """Hold so many bytes at one time."""
        self._most = self._left = most

    def take(self, count: int) -> None:
        """Take room for so many bytes; raises `Overloaded` if there is none."""
        if count > self._left:
            raise Overloaded(
                f"{self._most} bytes of request bodies are held here already, the most that may be"
                " (BODIES_MAX_BYTES)"
            )
        self._left -= count

    def give_back(self, count: int) -> None:
        """Give room back."""
        self._left += count


async def read_body(
    request: web.Request, limit: int, take: Callable[[int], None] = _uncounted
) -> bytes:
    """Return the request's body.

    Raises `TooLarge` as soon as it is known to be over `limit`, and `SlowBody`.
    `take` is told of bytes that come, before they are kept, and raises what it likes. What the
    client still sends then is read and dropped by the server after the answer.
    """
    content = request.content
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if content.is_eof() and content.total_bytes <= _SMALL_BYTES:
        if content.total_bytes > _TINY_BYTES:
            take(content.total_bytes)
        return _at_hand(content, limit)
    return await _in_time(content, limit, take)


async def _in_time(content: StreamReader, limit: int, take: Callable[[int], None]) -> bytes:
    """Return a body that is still coming."""
    chunks: list[bytes] = []
    size = 0
    latest_s = asyncio.get_running_loop().time() + PATIENCE_S
    try:
        async with asyncio.timeout_at(latest_s) as patience:
            while chunk := await content.readany():
                take(len(chunk))
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                patience.reschedule(latest_s + size / SLOWEST_BYTES_PER_S)
    except TimeoutError:
        slowest = f"{SLOWEST_BYTES_PER_S // 1024} KiB/s"
        why = f"{size} bytes of the request body came in time; send at least {slowest}"
        raise SlowBody(why) from None
    return b"".join(chunks)


def _at_hand(content: StreamReader, limit: int) -> bytes:
    """Return a small body that has come with its head, as most do.

    From the reader's own buffer, because to ask the reader also asks the connection to read on,
    which costs a run of the parser, for nothing: small as it is, the connection was never paused.
    """
    body = b"".join(content._buffer) if content.total_bytes else b""  # noqa: SLF001
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is over the limit of {limit} bytes")
