"""How do we connect to where strangers point us? Only to addresses that `addresses` lets us call.

The address is judged when its socket is made, and the connection goes to that very address: what a
name says a moment later leads nowhere. There is no other way out: no proxy, no redirect followed.
"""

import errno
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp

from services.api import addresses

#: An answer's line and header at most, in bytes; bodies are not read.
HEAD_MAX_BYTES = 8190


class Refused(OSError):
    """An address is where callers must not send us."""


def session(allowed: Sequence[addresses.Network], timeout_s: float) -> aiohttp.ClientSession:
    """Return a client that connects nowhere else; one request takes `timeout_s` at most."""

    def guarded(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, where = info
        address = addresses.parse(str(where[0]))
        why = addresses.refusal(address, allowed) if address else f"{where[0]} is no address"
        if why:
            raise Refused(errno.EACCES, f"{why}, where callbacks do not go")
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            socket_factory=guarded, use_dns_cache=False, force_close=True, limit=0
        ),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        max_line_size=HEAD_MAX_BYTES,
        max_field_size=HEAD_MAX_BYTES,
    )
