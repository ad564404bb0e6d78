"""How does an answer reach its caller over HTTP? Whole, or part by part as it is produced."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import HttpVersion11, web

from services.api.answers import Answer
from services.api.waiters import AnswerStream
from shared import messages
from shared.errors import MillraceError

#: Statuses whose answers have no body.
_BODILESS = frozenset({204, 304})
#: `SO_LINGER` on, for no time: closing the connection resets it.
_RESET = struct.pack("ii", 1, 0)


def whole(answer: Answer) -> web.Response:
    """Return the response that sends an answer."""
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


class Sent(NamedTuple):
    """A streamed answer that has been sent as far as it went."""

    response: web.StreamResponse
    #: "ok", or how it broke off: a name of the error table, as far as the runner knows it.
    code: str


async def in_parts(
    request: web.Request,
    begun: Answer,
    stream: AnswerStream,
    *,
    took: Callable[[int], None],
    rest_s: float,
) -> Sent:
    """Send a streamed answer to its end, for `rest_s` seconds at most.

    `took` is told how many bytes the caller's connection has taken. The caller has the head
    already, so that no failure can be told: if the answer does not come to its good end, by
    whatever way, the connection is broken, and nobody takes what there is for the whole. Raises
    only what cancels this.
    """
    response = web.StreamResponse(status=begun.status, headers=begun.headers)
    try:
        async with asyncio.timeout(rest_s):
            await response.prepare(request)
            end = await _write(request, response, stream, took)
            if isinstance(end.outcome, messages.Failed):
                _close(request)
                return Sent(response, end.outcome.code)
            await response.write_eof()
            return Sent(response, "ok")
    except TimeoutError:
        code = "deadline"
    except ConnectionError:
        code = "cancelled"
    except MillraceError as error:
        code = error.code
    except BaseException:
        _abort(request)
        raise
    _abort(request)
    return Sent(response, code)


async def _write(
    request: web.Request,
    response: web.StreamResponse,
    stream: AnswerStream,
    took: Callable[[int], None],
) -> messages.Reply:
    """Write what comes, as it comes; return the reply that ends it."""
    bodiless = request.method == "HEAD" or response.status in _BODILESS
    while True:
        part = await stream.next()
        if isinstance(part, messages.Reply):
            return part
        if not bodiless:
            # Waits while the connection takes no more, so that a slow caller slows the function.
            await response.write(part)
        took(len(part))


def _close(request: web.Request) -> None:
    """End the connection behind what was written, and without the mark of the body's end."""
    if request.version < HttpVersion11:
        _abort(request)  # its bodies have no mark: they end where the connection does
    elif request.transport is not None:
        request.transport.close()


def _abort(request: web.Request) -> None:
    """End the connection at once, by a reset where nothing else says that the body is not whole."""
    transport = request.transport
    if transport is None:
        return
    peer: socket.socket | None = transport.get_extra_info("socket")
    if request.version < HttpVersion11 and peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
