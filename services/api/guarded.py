"""How do we connect to where strangers point us? Only to addresses that `addresses` lets us call.

The address is judged when its socket is made, and the connection goes to that very address: what a
name says a moment later leads nowhere. There is no other way out: no proxy, no redirect followed.

Names are looked up in threads of their own. One whose servers do not answer holds its thread for
long after the callback was given up, and in the loop's few threads it would hold up whatever else
is looked up there: Redis and MySQL, when they are connected to again.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from services.api import addresses

#: An answer's line and header at most, in bytes; bodies are not read.
HEAD_MAX_BYTES = 8190
#: Threads for names: what systems usually wait for silent servers, half a minute, is three times
#: what a callback may take as a rule.
THREADS_FOR_EACH = 4


class Refused(OSError):
    """An address is where callers must not send us."""


def look_up(host: str, port: int, family: int) -> list[Any]:
    """Return where a name leads. Blocks; raises OSError."""
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)


class Names(AbstractResolver):
    """Looks names up in threads of its own."""

    def __init__(self, threads: int) -> None:
        """Have so many threads at most; each is made when it is needed."""
        self._threads = ThreadPoolExecutor(threads, "callback-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return where a name leads. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, look_up, host, port, family)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=where[0], port=where[1], family=kind, proto=proto, flags=flags
            )
            for kind, _, proto, _, where in found
        ]

    async def close(self) -> None:
        """Wait for nothing that hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def session(
    allowed: Sequence[addresses.Network], timeout_s: float, at_once: int = 32
) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client that connects nowhere else; one request takes `timeout_s` at most.

    `at_once`: so many requests are made at one time.
    """

    def guarded(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, where = info
        address = addresses.parse(str(where[0]))
        why = addresses.refusal(address, allowed) if address else f"{where[0]} is no address"
        if why:
            raise Refused(errno.EACCES, f"{why}, where callbacks do not go")
        return socket.socket(family, kind, protocol)

    names = Names(THREADS_FOR_EACH * at_once)
    try:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                socket_factory=guarded,
                resolver=names,
                use_dns_cache=False,
                force_close=True,
                limit=0,
            ),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=HEAD_MAX_BYTES,
            max_field_size=HEAD_MAX_BYTES,
        ) as made:
            yield made
    finally:
        await names.close()
