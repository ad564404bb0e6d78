"""How many connections does a replica serve at once? What comes beyond is told so and closed.

And what is said of those that do not speak HTTP as they should.
"""

import asyncio
import logging
import resource
from collections.abc import Callable

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import Counter

from shared.errors import CODES

log = structlog.get_logger()

#: Files that a replica has open beside its callers' connections.
_OTHER_FILES = 256
#: Connections in the kernel that nobody has accepted yet.
_BACKLOG = 1024
#: How long one that is refused may take to read why, in seconds, and how many may at one time.
_LINGER_S, _LINGERING_MAX = 1.0, 512
#: Characters that are logged of why a request is no HTTP.
_WHY_MAX = 200
_BODY = (
    b'{"error":{"message":"This replica has as many connections as it serves'
    b' (CONNECTIONS_MAX)","code":"overloaded","fault":"platform"}}'
)
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY

REFUSED = Counter(
    "millrace_connections_refused_total", "Connections closed because there were too many."
)


def room_for(most: int) -> int:
    """Return how many connections can be served, up to `most`; lets this process open as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    possible = max(1, min(most, max(files, soft) - _OTHER_FILES))
    if possible < most:
        log.warning("few_files", connections_max=possible, wanted=most, files=files)
    return possible


def rest_server_log() -> None:
    """Have the server log a request that is no HTTP in a line: it is no defect of ours."""
    logging.getLogger("aiohttp.server").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError) or error.code >= CODES["internal"].status:
        return True
    why = " ".join(error.message.split())[:_WHY_MAX]
    log.info("request_malformed", why=why, status=error.code)
    return False


class Site(web.TCPSite):
    """Where a replica listens."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, most: int) -> None:
        """Serve at most so many connections at one time."""
        super().__init__(runner, host, port, backlog=_BACKLOG)
        self._served, self._address, self._most = runner, (host, port), most
        self._refusals: set[_Refusal] = set()

    async def start(self) -> None:
        """Listen."""
        await web.BaseSite.start(self)
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, *self._address, backlog=_BACKLOG
        )

    def _protocol(self) -> asyncio.Protocol:
        server = self._served.server
        assert server is not None  # noqa: S101 (there is one between set-up and clean-up)
        # (Not `connections`, which makes a list of them each time.)
        if len(server._connections) < self._most:  # noqa: SLF001
            return server()
        REFUSED.inc()
        refusal = _Refusal(self._refusals.discard, linger=len(self._refusals) < _LINGERING_MAX)
        self._refusals.add(refusal)
        return refusal


class _Refusal(asyncio.Protocol):
    """A connection that is answered before it has asked, and closed."""

    def __init__(self, over: Callable[["_Refusal"], None], *, linger: bool) -> None:
        self._over, self._linger = over, linger
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (of a TCP server)
        self._transport = transport
        if not self._linger:
            transport.abort()
            return
        transport.write(_ANSWER)
        # What the caller still sends must be read, or its own end would be told of a broken
        # connection before it has read the answer.
        asyncio.get_running_loop().call_later(_LINGER_S, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None and data.endswith(b"\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._over(self)
