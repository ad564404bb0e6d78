"""How is a request's body read, when bytes must stay bytes and there must not be too many?"""

from aiohttp import web

from services.api.problems import TooLarge


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return the request's body; raises `TooLarge` as soon as it is known to be over `limit`.

    What the client still sends then is read and dropped by the server after the answer.
    """
    content = request.content
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if content.is_eof():
        # All of it came with the head, as that of most calls does: there is nothing to wait for.
        body = content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        return body
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is over the limit of {limit} bytes")
