"""How is a function called over HTTP? `/r/{app}/{path}`, any method, any body."""

import asyncio
from functools import partial

from aiohttp import web

from services.api import (
    answers,
    invocation,
    metrics,
    openapi,
    parts,
    paths,
    problems,
    sending,
    tokens,
)
from services.api.bodies import read_body
from services.api.call_schemas import AcceptedAnswer
from services.api.catalog import Catalog, Found
from services.api.gateway import Gateway
from services.api.middleware import response
from services.api.waiters import AnswerStream
from shared import clock, ids, messages
from shared.errors import CODES, MillraceError

GATEWAY = web.AppKey("gateway", Gateway)
CATALOG = web.AppKey("invoke_catalog", Catalog)
REQUEST_MAX_BYTES = web.AppKey("request_max_bytes", int)

#: `/r/{app}` before the route's path.
_PREFIX_PARTS = 2


class _Visit:
    """One request to a function: who asks for which route, and what was found for it."""

    __slots__ = ("_app", "_catalog", "_path", "_request", "call_id", "mode", "route")

    def __init__(self, request: web.Request, call_id: str) -> None:
        self._request = request
        self._catalog = request.app[CATALOG]
        self._app = request.match_info["app"]
        self._path = paths.route_of(request.rel_url.raw_path, _PREFIX_PARTS)
        self.call_id = call_id
        self.route = answers.RouteHeaders()
        self.mode: messages.Mode = "sync"

    async def find(self) -> Found:
        """Return the route if the caller may call it; raises what a lookup or a token refuses."""
        found = self._catalog.known(self._app, self._path)
        if found is None or found.route.jwt_key:
            found = await self._looked_up()
        self.route = found.plan.headers
        self.mode = found.plan.head.mode
        return found

    async def _looked_up(self) -> Found:
        try:
            return await self._allowed(await self._catalog.lookup(self._app, self._path))
        except problems.RouteNotFound as error:
            raise problems.RouteNotFound(problems.ROUTE_NOT_FOUND_ON_APP) from error

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
    headers = request.headers
    return invocation.Caller(
        method=request.method,
        url=invocation.request_url(request.scheme, request.host, target.raw_path_qs, headers),
        headers=[(name, invocation.clean(value)) for name, value in headers.items()],
        payload=body,
    )


@openapi.operation(
    "Call a function.",
    tag="calls",
    answers={
        200: openapi.Raw(
            "The function's answer; of the format `default`, what it wrote to stdout."
        ),
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
async def invoke(request: web.Request) -> web.StreamResponse:
    """Run the function and answer with its output; of an async one, with the call's id."""
    call_id = request[parts.CALL_ID] = ids.new_call_id()
    visit = _Visit(request, call_id)
    try:
        return await _performed(request, visit)
    except tokens.TokenRefused as error:
        return response(problems.route_token_refused(str(error)))
    except problems.NotFound:
        raise
    except MillraceError as error:
        metrics.calls(visit.mode, CODES[error.code].word).inc()
        return sending.whole(answers.failed(call_id, error.code, error.message, visit.route))
    except asyncio.CancelledError:
        metrics.calls(visit.mode, "cancelled").inc()
        raise


async def _performed(request: web.Request, visit: _Visit) -> web.StreamResponse:
    found = await visit.find()
    caller = _caller(request, await read_body(request, request.app[REQUEST_MAX_BYTES]))
    begun_s = clock.monotonic_s()
    performed = await request.app[GATEWAY].call(visit.call_id, found, caller, visit.find)
    match performed.answer:
        case None:
            metrics.calls("async", "ok").inc()
            return sending.whole(answers.accepted(visit.call_id, visit.route))
        case messages.Reply() as reply:
            return _whole(reply, visit, clock.monotonic_s() - begun_s)
        case stream:
            return await _in_parts(request, stream, performed.answer_by_ms, visit, begun_s)


def _whole(reply: messages.Reply, visit: _Visit, total_s: float) -> web.Response:
    metrics.CALL_SECONDS.observe(total_s)
    outcome = _carried(reply.outcome)
    if isinstance(outcome, messages.Failed):
        return _failed(outcome, visit, answers.server_timing(reply, total_s * 1000))
    _count("ok")
    return sending.whole(
        answers.succeeded(visit.call_id, reply, outcome, visit.route, total_s * 1000)
    )


def _carried(outcome: messages.Outcome) -> messages.Outcome:
    """Return the outcome, or why HTTP cannot carry it."""
    if isinstance(outcome, messages.Answered):
        why = answers.unfit(outcome.status, outcome.headers)
        return messages.Failed("bad_answer", why) if why else outcome
    return outcome


def _failed(failure: messages.Failed, visit: _Visit, timing: str = "") -> web.Response:
    code = failure.code if failure.code in CODES else "internal"
    _count(code)
    return sending.whole(
        answers.failed(visit.call_id, code, failure.message, visit.route, timing=timing)
    )


async def _in_parts(
    request: web.Request, stream: AnswerStream, answer_by_ms: int, visit: _Visit, begun_s: float
) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    head = stream.head
    try:
        if why := answers.unfit(head.status, head.headers):
            return _failed(messages.Failed("bad_answer", why), visit)
        total_ms = (clock.monotonic_s() - begun_s) * 1000
        sent = await sending.in_parts(
            request,
            answers.begun(visit.call_id, head, visit.route, total_ms),
            stream,
            took=partial(gateway.took, stream),
            rest_s=(answer_by_ms - clock.epoch_ms()) / 1000,
        )
        _count(sent.code)
        return sent.response
    finally:
        gateway.leave(stream)
        metrics.CALL_SECONDS.observe(clock.monotonic_s() - begun_s)


def _count(code: str) -> None:
    """Count a sync call that has ended so: "ok", or a name of the error table."""
    word = code if code == "ok" else CODES[code if code in CODES else "internal"].word
    metrics.calls("sync", word).inc()


ROUTES = (
    web.route("*", "/r/{app}/{path:.*}", invoke),
    web.route("*", "/r/{app}", invoke),
)
