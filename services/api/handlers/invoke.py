"""How is a function called over HTTP? `/r/{app}/{path}`, any method, any body."""

import asyncio
from functools import partial
from typing import NamedTuple

from aiohttp import web

from services.api import (
    addresses,
    answers,
    callback_rules,
    idempotency,
    invocation,
    metrics,
    openapi,
    parts,
    paths,
    problems,
    sending,
    tokens,
)
from services.api.bodies import Room, read_body
from services.api.call_schemas import AcceptedAnswer
from services.api.catalog import Catalog, Found
from services.api.gateway import Gateway, Wishes
from services.api.lines import Line, Lines
from services.api.middleware import response
from services.api.waiters import AnswerStream, Overloaded
from shared import clock, ids, messages
from shared.errors import CODES, MillraceError


class Means(NamedTuple):
    """What calls are answered with."""

    catalog: Catalog
    gateway: Gateway
    request_max_bytes: int
    lines: Lines
    room: Room
    #: Where callbacks may go beside the public internet.
    callback_networks: tuple[addresses.Network, ...] = ()


MEANS = web.AppKey("invoke_means", Means)

#: `/r/{app}` before the route's path.
PREFIX_PARTS = 2
_NO_HEADERS = answers.RouteHeaders()


class Target(NamedTuple):
    """What a URL names: an app, and a route's path, cleaned."""

    app: str
    path: str


class LineFull(Overloaded):
    """More calls of this route come than are served."""

    def __init__(self, wait_s: float) -> None:
        """`wait_s`: how long those who are before this one take."""
        super().__init__(
            f"More calls of this route come than are served; {wait_s:.1f} s of them wait"
        )
        self.retry_after_s = wait_s


class _Visit:
    """One request to a function: who asks for which route, and what was found for it."""

    __slots__ = ("_request", "call_id", "held_bytes", "means", "mode", "route", "target")

    def __init__(self, request: web.Request, target: Target, means: Means, call_id: str) -> None:
        self._request, self.target = request, target
        self.means = means
        self.call_id = call_id
        self.route = _NO_HEADERS
        self.mode: messages.Mode = "sync"
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """Take room for bytes of the body. Raises `Overloaded`."""
        self.means.room.take(count)
        self.held_bytes += count

    async def find(self) -> Found:
        """Return the route if the caller may call it; raises what a lookup or a token refuses."""
        found = self.means.catalog.known(*self.target)
        if found is None or found.route.jwt_key:
            found = await self._looked_up()
        self.route = found.plan.headers
        self.mode = found.plan.head.mode
        return found

    async def _looked_up(self) -> Found:
        try:
            return await self._allowed(await self.means.catalog.lookup(*self.target))
        except problems.RouteNotFound as error:
            raise problems.RouteNotFound(problems.ROUTE_NOT_FOUND_ON_APP) from error

    async def _allowed(self, found: Found) -> Found:
        """Return `found`, or what it has become meanwhile, if the token fits its key.

        A key may just have been changed through another replica: nobody is refused by an old one.
        """
        try:
            self._verify(found)
        except tokens.TokenRefused:
            found = await self.means.catalog.confirmed(found)
            self._verify(found)
        return found

    def _verify(self, found: Found) -> None:
        if found.route.jwt_key:
            given = self._request.headers.get("Authorization")
            tokens.verify(given, found.route.jwt_key, clock.wall_ms() / 1000)


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
        400: openapi.CallProblem("Idempotency-Key or X-Callback-Url is malformed"),
        401: openapi.CallProblem("no token present in request"),
        404: openapi.CallProblem("Route not found on that application"),
        408: openapi.CallProblem("0 bytes of the request body came in time; send at least 4 KiB/s"),
        409: openapi.CallProblem("The Idempotency-Key was used for another request"),
        413: openapi.CallProblem("The request body is over the limit of 8388608 bytes"),
        429: openapi.CallProblem("The app has 5 calls under way, as many as it may"),
        500: openapi.CallProblem("exit code 1"),
        502: openapi.CallProblem("A runner is gone, with the call it had started"),
        503: openapi.CallProblem("No runner had room in time; see Retry-After"),
        504: openapi.CallProblem("Timed out"),
    },
    query=[
        openapi.Query("payload", "string", "Of a GET without a body: what goes to stdin."),
        openapi.Query(
            idempotency.HEADER,
            "string",
            "The same key and request within a day get the first call's answer.",
            place="header",
        ),
        openapi.Query(
            callback_rules.HEADER,
            "string",
            "Of an async call: where its outcome is sent by a signed POST.",
            place="header",
        ),
    ],
    body=openapi.Raw("What goes to the function's stdin."),
)
async def invoke(request: web.Request) -> web.StreamResponse:
    """Run the function and answer with its output; of an async one, with the call's id."""
    path = paths.route_of(request.rel_url.raw_path, PREFIX_PARTS)
    target = Target(request.match_info["app"], path)
    return await answered(request, target, request.app[MEANS])


async def answered(request: web.Request, target: Target, means: Means) -> web.StreamResponse:
    """Call a function and return the response, whatever comes of it."""
    call_id = request[parts.CALL_ID] = ids.new_call_id()
    visit = _Visit(request, target, means, call_id)
    try:
        return await _performed(request, visit)
    except tokens.TokenRefused as error:
        return response(problems.route_token_refused(call_id, str(error)))
    except problems.NotFound:
        raise
    except MillraceError as error:
        metrics.CALLS.add(visit.mode, CODES[error.code].word)
        after_s = error.retry_after_s
        failed = answers.failed(
            call_id, error.code, error.message, visit.route, retry_after_s=after_s
        )
        return sending.whole(request, failed)
    except asyncio.CancelledError:
        metrics.CALLS.add(visit.mode, "cancelled")
        raise
    finally:
        if visit.held_bytes:
            means.room.give_back(visit.held_bytes)


async def _performed(request: web.Request, visit: _Visit) -> web.StreamResponse:
    found = await visit.find()
    if visit.mode == "async":
        return await _called(request, visit, found, None)
    line = visit.means.lines.of((found.route.app, found.route.path))
    if wait_s := line.enter(clock.monotonic_s()):
        raise LineFull(wait_s)
    try:
        return await _called(request, visit, found, line)
    finally:
        line.leave()


async def _called(
    request: web.Request, visit: _Visit, found: Found, line: Line | None
) -> web.StreamResponse:
    means = visit.means
    caller = _caller(request, await read_body(request, means.request_max_bytes, visit.hold))
    begun_s = clock.monotonic_s()
    wishes = None
    if visit.mode == "async" or idempotency.HEADER in request.headers:
        wishes = _wishes(request, visit, caller)
    performed = await means.gateway.call(visit.call_id, found, caller, visit.find, wishes)
    match performed.answer:
        case messages.Reply() as reply:
            now_s = clock.monotonic_s()
            if line is not None:
                line.served(reply.run_ms / 1000, now_s)
            return sending.whole(request, _whole(reply, visit, found, now_s - begun_s))
        case None:
            metrics.CALLS.add("async", "ok")
            return sending.whole(request, answers.accepted(visit.call_id, visit.route))
        case idempotency.Replay() as replay:
            return sending.whole(request, _replayed(replay, visit))
        case stream:
            answer = await _in_parts(request, stream, performed.longest_s, visit, begun_s)
            if line is not None:
                now_s = clock.monotonic_s()
                line.served(now_s - begun_s, now_s)
            return answer


def _wishes(request: web.Request, visit: _Visit, caller: invocation.Caller) -> Wishes | None:
    """Return what the headers of a call ask for beside it; None if nothing.

    Raises `BadRequest` and `BadCallback`, which name the header.
    """
    given = request.headers
    once = callback = None
    if idempotency.HEADER in given:
        target = idempotency.Target(
            visit.target.app, visit.target.path, request.method, request.rel_url.raw_query_string
        )
        once = idempotency.asked(given.getall(idempotency.HEADER), target, caller.payload)
    if callback_rules.HEADER in given and visit.mode == "async":
        urls = given.getall(callback_rules.HEADER)
        url = callback_rules.address(urls, visit.means.callback_networks)
        callback = messages.Callback(url, answers.declared_type(visit.route))
    return Wishes(once, callback) if once or callback else None


def _replayed(replay: idempotency.Replay, visit: _Visit) -> answers.Answer:
    """Return the answer of the first call with a key, once more."""
    metrics.REPLAYS.inc()
    visit.call_id, visit.route = replay.call_id, replay.route
    if replay.reply is None:
        answer = answers.accepted(replay.call_id, replay.route)
    else:
        answer = _told(replay.reply, visit, replay.reply.start_ms + replay.reply.run_ms)
    return answer._replace(headers=[*answer.headers, idempotency.REPLAYED])


def _whole(reply: messages.Reply, visit: _Visit, found: Found, total_s: float) -> answers.Answer:
    metrics.CALL_SECONDS.observe(total_s)
    outcome = reply.outcome
    if isinstance(outcome, messages.Failed) and outcome.code == "call_lost":
        visit.means.gateway.record_lost(visit.call_id, found, outcome)
    return _told(reply, visit, total_s * 1000)


def _told(reply: messages.Reply, visit: _Visit, total_ms: float) -> answers.Answer:
    outcome = _carried(reply.outcome)
    if isinstance(outcome, messages.Failed):
        return _failed(outcome, visit, answers.server_timing(reply, total_ms))
    metrics.CALLS.add("sync", "ok")
    return answers.succeeded(visit.call_id, reply, outcome, visit.route, total_ms)


def _carried(outcome: messages.Outcome) -> messages.Outcome:
    """Return the outcome, or why HTTP cannot carry it."""
    if isinstance(outcome, messages.Answered):
        why = answers.unfit(outcome.status, outcome.headers)
        return messages.Failed("bad_answer", why) if why else outcome
    return outcome


def _failed(failure: messages.Failed, visit: _Visit, timing: str = "") -> answers.Answer:
    code = failure.code if failure.code in CODES else "internal"
    _count(code)
    return answers.failed(visit.call_id, code, failure.message, visit.route, timing=timing)


async def _in_parts(
    request: web.Request,
    stream: AnswerStream,
    longest_s: float,
    visit: _Visit,
    begun_s: float,
) -> web.StreamResponse:
    gateway = visit.means.gateway
    head = stream.head
    try:
        if why := answers.unfit(head.status, head.headers):
            return sending.whole(request, _failed(messages.Failed("bad_answer", why), visit))
        total_ms = (clock.monotonic_s() - begun_s) * 1000
        sent = await sending.in_parts(
            request,
            answers.begun(visit.call_id, head, visit.route, total_ms),
            stream,
            took=partial(gateway.took, stream),
            rest_s=longest_s - (clock.monotonic_s() - begun_s),
        )
        _count(sent.code)
        return sent.response
    finally:
        gateway.leave(stream)
        metrics.CALL_SECONDS.observe(clock.monotonic_s() - begun_s)


def _count(code: str) -> None:
    """Count a sync call that has ended so: "ok", or a name of the error table."""
    word = code if code == "ok" else CODES[code if code in CODES else "internal"].word
    metrics.CALLS.add("sync", word)


#: Where calls are answered, as metrics and documents name it.
PLACE, ROOT_PLACE = "/r/{app}/{path}", "/r/{app}"
ROUTES = (
    web.route("*", "/r/{app}/{path:.*}", invoke),
    web.route("*", ROOT_PLACE, invoke),
)
