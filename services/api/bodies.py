"""How is a request's body read, when bytes must stay bytes and there must not be too many?"""

from aiohttp import StreamReader, web

from services.api.problems import TooLarge

#: Bodies up to this never make the server pause their connection.
_SMALL_BYTES = 64 * 1024


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return the request's body; raises `TooLarge` as soon as it is known to be over `limit`.

    What the client still sends then is read and dropped by the server after the answer.
    """
    content = request.content
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if content.is_eof() and content.total_bytes <= _SMALL_BYTES:
        return _at_hand(content, limit)
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
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
