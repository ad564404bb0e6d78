"""How does a call reach its handler, past what only other requests need?

Nearly all requests are calls, of few addresses, and need neither a router nor a management token.
Those go straight to the handler; all others, and calls with anything unusual about their address,
take the application's own way, and lead to the same.
"""

import re
from collections.abc import Awaitable
from functools import lru_cache, partial

from aiohttp import hdrs, web

from services.api import middleware, paths
from services.api.handlers import invoke
from services.api.middleware import Handler

#: An address in which nothing needs decoding; the query is the function's.
_PLAIN = re.compile(r"/r/([A-Za-z0-9_-]+)((?:/[A-Za-z0-9_.~/-]*)?)\Z")
#: Longer addresses are not remembered, so that nobody can fill the memory with them.
_KEPT_MAX_CHARACTERS = 256
#: What any other address names.
NOWHERE: tuple[str, invoke.Target | None] = ("", None)


async def set_up(runner: web.AppRunner) -> None:
    """Start the application behind this entrance; the runner can have its sites then."""
    await runner.setup()
    server = runner.server
    assert server is not None  # noqa: S101 (there is one between set-up and clean-up)
    server.request_handler = partial(
        _entered, means=runner.app[invoke.MEANS], otherwise=server.request_handler
    )


def let_go(runner: web.AppRunner) -> None:
    """From now on close each connection behind its next answer: callers go to other replicas.

    So that none sends its next call just when this replica ends.
    """
    server = runner.server
    assert server is not None  # noqa: S101 (there is one between set-up and clean-up)
    server.request_handler = partial(_last, handler=server.request_handler)
    for connection in server.connections:
        connection._request_handler = server.request_handler  # noqa: SLF001 (each has its own)


def _last(request: web.Request, *, handler: Handler) -> Awaitable[web.StreamResponse]:
    request._message = request._message._replace(should_close=True)  # noqa: SLF001 (no other way)
    return handler(request)


def _entered(
    request: web.Request, *, means: invoke.Means, otherwise: Handler
) -> Awaitable[web.StreamResponse]:
    """Return how a request is answered."""
    address = request.raw_path.partition("?")[0]
    place, target = read(address) if len(address) <= _KEPT_MAX_CHARACTERS else NOWHERE
    if target is None or hdrs.EXPECT in request.headers:
        return otherwise(request)
    return middleware.attended(request, place, invoke.answered(request, target, means))


@lru_cache(maxsize=1024)
def read(address: str) -> tuple[str, invoke.Target | None]:
    """Return the handler's place and what an address names, or `NOWHERE`."""
    found = _PLAIN.match(address)
    if found is None:
        return NOWHERE
    place = invoke.PLACE if found[2] else invoke.ROOT_PLACE
    return place, invoke.Target(found[1], paths.route_of(address, invoke.PREFIX_PARTS))
