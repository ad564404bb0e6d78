"""How is a request's body read, when bytes must stay bytes and there must not be too many?"""

from aiohttp import web

from services.api.problems import TooLarge


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return the request's body; raises `TooLarge` as soon as it is known to be over `limit`.

    What the client still sends then is read and dropped by the server after the answer.
    """
    if not request.can_read_body:
        return b""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is over the limit of {limit} bytes")
