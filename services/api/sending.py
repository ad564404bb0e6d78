"""How does an answer reach its caller over HTTP? Whole, or part by part as it is produced."""

import asyncio
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

from services.api.answers import Answer
from services.api.waiters import AnswerStream
from shared import clock, messages
from shared.errors import MillraceError

#: Statuses whose answers have no body.
_BODILESS = frozenset({204, 304})
#: `SO_LINGER` on, for no time: closing the connection resets it.
_RESET = struct.pack("ii", 1, 0)


def whole(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Return the response that sends an answer to a request."""
    usual = (
        request.keep_alive
        and request.version == HttpVersion11
        and request.method != "HEAD"
        and answer.status not in _BODILESS
    )
    if usual:
        return _Whole(answer)
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


class _Whole(web.StreamResponse):
    """A response whose head and body are written down at once, for a connection that goes on.

    For requests and answers as nearly all are: the server's own ways with headers cost more than
    the rest of its work on a call. What it would do to them is done here.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(status=answer.status)
        self._answer = answer
        self._writer: AbstractStreamWriter | None = None

    @property
    def keep_alive(self) -> bool | None:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._writer = request.writer
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            head = _head(self._answer, clock.wall_ms() // 1000)
            await writer.write_eof(head + self._answer.body + data)


def _head(answer: Answer, now_s: int) -> bytes:
    """Return an answer's status line and headers, complete."""
    lines = [_status_line(answer.status)]
    missing = _common(now_s)
    for name, value in answer.headers:
        lines.append(f"{name}: {value}")
        if name.lower() in _COMMON:
            missing = {key: line for key, line in missing.items() if key != name.lower()}
    lines += missing.values()
    lines.append(f"Content-Length: {len(answer.body)}\r\n\r\n")
    return "\r\n".join(lines).encode()


#: Headers that every answer has, unless the function or its route sets them.
_COMMON = frozenset({"date", "server"})


@lru_cache(maxsize=1)
def _common(now_s: int) -> dict[str, str]:
    """Return the lines of those headers, by name, as they are for a second."""
    return {
        "date": f"Date: {formatdate(now_s, usegmt=True)}",
        "server": f"Server: {SERVER_SOFTWARE}",
    }


@lru_cache(maxsize=512)
def _status_line(status: int) -> str:
    try:
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP/1.1 {status} "


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
