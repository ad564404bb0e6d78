"""What happens to every request? It is counted, let in or not, and its errors become answers."""

import json
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from prometheus_client import Histogram

from services.api import parts, problems, tokens
from services.api.tallies import Tally, Timings
from shared import clock, ids
from shared.errors import CODES, MillraceError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
CLIENT_GONE = 499
SERVER_ERROR = 500

REQUESTS = Tally(
    "millrace_http_requests_total",
    "HTTP requests by route, method and status.",
    ["handler", "method", "status"],
)
REQUEST_SECONDS = Timings(
    "millrace_http_request_seconds",
    "From a request's head to its answer.",
    ["handler"],
    Histogram.DEFAULT_BUCKETS,
)

log = structlog.get_logger()


def is_management(path: str) -> bool:
    """Tell whether a path is one that needs the management token, if there is one."""
    return path.startswith("/v1/") or path in {"/tasks", "/stats"}


def response(answer: problems.Answer) -> web.Response:
    """Return the answer as JSON over HTTP."""
    return web.json_response(
        answer.body,
        status=answer.status,
        headers=answer.headers,
        dumps=lambda body: json.dumps(body, ensure_ascii=False),
    )


def said(body: object, status: int = 200) -> web.Response:
    """Return a JSON response."""
    return response(problems.Answer(status, body))


@web.middleware
async def handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the request in or not, make an answer of every error, and count what it led to."""
    resource = request.match_info.route.resource
    place = resource.canonical if resource else ""
    return await attended(request, place, _let_in(request, place, handler))


async def _let_in(request: web.Request, place: str, handler: Handler) -> web.StreamResponse:
    if is_management(place or request.path):
        _authorise(request)
    return await handler(request)


async def attended(
    request: web.Request, place: str, answering: Awaitable[web.StreamResponse]
) -> web.StreamResponse:
    """Make an answer of every error, and count what the request led to.

    `place` is the path of its handler with names for what varies; "" if there is none.
    """
    begun_s = clock.monotonic_s()
    status = CLIENT_GONE
    try:
        try:
            answer = await answering
        except Exception as error:  # noqa: BLE001 (each becomes an answer, the unknown a log line)
            answer = await _answer(request, error)
        status = answer.status
    finally:
        name = place or "unknown"
        method = request.method if request.method in METHODS else "other"
        REQUESTS.add(name, method, str(status))
        REQUEST_SECONDS.observe(clock.monotonic_s() - begun_s, name)
    return answer


def _authorise(request: web.Request) -> None:
    """Let a management request through only with a token, if there is a key for them."""
    key = request.app[parts.SETTINGS].jwt_auth_key
    if not key:
        return
    try:
        tokens.verify(request.headers.get("Authorization"), key, clock.wall_ms() / 1000)
    except tokens.TokenRefused as error:
        log.info("token_refused", request_id=_id(request), why=str(error))
        raise problems.ManagementTokenRefused from error


async def _answer(request: web.Request, error: Exception) -> web.StreamResponse:
    if isinstance(error, MillraceError):
        return _known(request, error)
    if isinstance(error, web.HTTPException):
        return await _http(request, error)
    if isinstance(error, ConnectionResetError | web.RequestPayloadError):
        return response(problems.management(problems.BadRequest("The request body broke off")))
    log.error("request_failed", request_id=_id(request), path=request.path, exc_info=error)
    return _unexpected(request)


def _id(request: web.Request) -> str:
    """Return the call's id if the request is a call, else the request's own, made at need."""
    call_id: str | None = request.get(parts.CALL_ID)
    if call_id:
        return call_id
    if parts.REQUEST_ID not in request:
        request[parts.REQUEST_ID] = ids.new_call_id()
    return request[parts.REQUEST_ID]


def _is_call(request: web.Request) -> bool:
    return request.path.startswith("/r/")


def _known(request: web.Request, error: MillraceError) -> web.Response:
    if error.code == "internal":
        log.error("request_failed", request_id=_id(request), path=request.path, exc_info=error)
        return _unexpected(request)
    if CODES[error.code].status >= SERVER_ERROR:
        log.warning("request_refused", request_id=_id(request), why=error.message)
    if _is_call(request):
        return response(_invocation(request, error))
    return response(problems.management(error))


def _invocation(request: web.Request, error: MillraceError) -> problems.Answer:
    return problems.invocation(_id(request), error.code, error.message, error.retry_after_s)


def _unexpected(request: web.Request) -> web.Response:
    if _is_call(request):
        return response(problems.invocation(_id(request), "internal", problems.INTERNAL))
    return response(problems.unexpected(_id(request)))


async def _http(request: web.Request, error: web.HTTPException) -> web.Response:
    """Answer what the server itself has to say: mostly that there is no such page.

    An unknown method is an unknown page, too. A page with one slash more or less at its end is
    redirected to.
    """
    if not isinstance(error, web.HTTPNotFound | web.HTTPMethodNotAllowed):
        return said({"error": {"message": error.reason}}, error.status)
    target = request.rel_url
    path = target.raw_path
    other = path[:-1] if path.endswith("/") else path + "/"
    match = await request.app.router.resolve(
        request.clone(rel_url=target.with_path(other, encoded=True))
    )
    if match.http_exception is not None:
        return said("Not Found", 404)
    query = f"?{target.raw_query_string}" if target.raw_query_string else ""
    status = 301 if request.method == "GET" else 307
    return web.Response(status=status, headers={"Location": other + query})
