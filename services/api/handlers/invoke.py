"""How is a function called over HTTP? `/r/{app}/{path}`, any method, any body."""

import asyncio

from aiohttp import web

from services.api import answers, invocation, metrics, openapi, parts, paths, problems, tokens
from services.api.bodies import read_body
from services.api.call_schemas import AcceptedAnswer
from services.api.catalog import Catalog, Found
from services.api.gateway import Gateway, Performed
from services.api.middleware import response
from shared import clock, ids, messages
from shared.errors import CODES, MillraceError

GATEWAY = web.AppKey("gateway", Gateway)
CATALOG = web.AppKey("invoke_catalog", Catalog)
REQUEST_MAX_BYTES = web.AppKey("request_max_bytes", int)

#: `/r/{app}` before the route's path.
_PREFIX_PARTS = 2


class _Visit:
    """One request to a function: who asks for which route, and what was found for it."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._catalog = request.app[CATALOG]
        self._app = request.match_info["app"]
        self._path = paths.route_of(request.rel_url.raw_path, _PREFIX_PARTS)
        self.route_headers: tuple[answers.Header, ...] = ()
        self.mode: messages.Mode = "sync"

    async def find(self) -> Found:
        """Return the route if the caller may call it; raises what a lookup or a token refuses."""
        try:
            found = await self._catalog.lookup(self._app, self._path)
            found = await self._allowed(found)
        except problems.RouteNotFound as error:
            raise problems.RouteNotFound(problems.ROUTE_NOT_FOUND_ON_APP) from error
        self.route_headers = answers.route_headers(found.route.headers)
        self.mode = found.route.type
        return found

    async def _allowed(self, found: Found) -> Found:
        """Return `found`, or what it has become meanwhile, if the token fits its key.

        A key may just have been changed through another replica: nobody is refused by an old one.
        """
        try:
            self._verify(found)
        except tokens.TokenRefused:
            found = await self._catalog.confirmed(found)
            self._verify(found)
        return found

    def _verify(self, found: Found) -> None:
        if found.route.jwt_key:
            given = self._request.headers.get("Authorization")
            tokens.verify(given, found.route.jwt_key, clock.epoch_ms() / 1000)


def _caller(request: web.Request, body: bytes) -> invocation.Caller:
    target = request.rel_url
    if not body and request.method == "GET":
        body = invocation.query_payload(target.raw_query_string)
    return invocation.Caller(
        method=request.method,
        url=invocation.request_url(
            request.scheme, request.host, target.raw_path_qs, request.headers
        ),
        headers=[(name, invocation.clean(value)) for name, value in request.headers.items()],
        payload=body,
    )


@openapi.operation(
    "Call a function.",
    tag="calls",
    answers={
        200: openapi.Raw("What the function wrote to stdout."),
        202: AcceptedAnswer,
        401: openapi.CallProblem("no token present in request"),
        404: openapi.CallProblem("Route not found on that application"),
        413: openapi.CallProblem("The request body is over the limit of 8388608 bytes"),
        500: openapi.CallProblem("exit code 1"),
        502: openapi.CallProblem("A runner is gone, with the call it had started"),
        503: openapi.CallProblem("No runner had room in time; see Retry-After"),
        504: openapi.CallProblem("Timed out"),
    },
    query=[openapi.Query("payload", "string", "Of a GET without a body: what goes to stdin.")],
    body=openapi.Raw("What goes to the function's stdin."),
)
async def invoke(request: web.Request) -> web.Response:
    """Run the function and answer with its output; of an async one, with the call's id."""
    call_id = request[parts.CALL_ID] = ids.new_call_id()
    visit = _Visit(request)
    try:
        return _response(await _perform(request, call_id, visit))
    except tokens.TokenRefused as error:
        return response(problems.route_token_refused(str(error)))
    except problems.NotFound:
        raise
    except MillraceError as error:
        metrics.CALLS.labels(visit.mode, CODES[error.code].word).inc()
        return _response(answers.failed(call_id, error.code, error.message, visit.route_headers))
    except asyncio.CancelledError:
        metrics.CALLS.labels(visit.mode, "cancelled").inc()
        raise


async def _perform(request: web.Request, call_id: str, visit: _Visit) -> answers.Answer:
    found = await visit.find()
    caller = _caller(request, await read_body(request, request.app[REQUEST_MAX_BYTES]))
    begun_s = clock.monotonic_s()
    performed = await request.app[GATEWAY].call(call_id, found, caller, visit.find)
    return _answer(call_id, performed, visit, clock.monotonic_s() - begun_s)


def _answer(call_id: str, performed: Performed, visit: _Visit, total_s: float) -> answers.Answer:
    reply = performed.reply
    if reply is None:
        metrics.CALLS.labels("async", "ok").inc()
        return answers.accepted(call_id, visit.route_headers)
    metrics.CALL_SECONDS.observe(total_s)
    match reply.outcome:
        case messages.Answered() as answered:
            metrics.CALLS.labels("sync", "ok").inc()
            return answers.succeeded(call_id, reply, answered, visit.route_headers, total_s * 1000)
        case messages.Failed(code, message):
            known = code if code in CODES else "internal"
            metrics.CALLS.labels("sync", CODES[known].word).inc()
            timing = answers.server_timing(reply, total_s * 1000)
            return answers.failed(call_id, known, message, visit.route_headers, timing=timing)


def _response(answer: answers.Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


ROUTES = (
    web.route("*", "/r/{app}", invoke),
    web.route("*", "/r/{app}/{path:.*}", invoke),
)
