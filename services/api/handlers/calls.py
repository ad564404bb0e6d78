"""What became of calls? `/v1/apps/{app}/calls` and `/v1/calls/{id}`."""

from aiohttp import web

from services.api import calls, cursors, openapi, parts
from services.api.call_schemas import CallAnswer, CallsAnswer

CALLS = web.AppKey("calls", calls.Calls)

_NOT_FOUND = openapi.Problem("Call not found")
_BAD = openapi.Problem("wait must be seconds from 0 to 60, not 'x'")
_NOT_ENDED = openapi.Problem("The call is running; add ?wait=30 to wait for its end")
_WAIT = openapi.Query("wait", "number", "Seconds to wait for the call's end, up to 60.")


@openapi.operation(
    "List an app's calls, newest first.",
    tag="calls",
    answers={
        200: CallsAnswer,
        400: openapi.Problem("status must be one of queued, running, ..., not 'x'"),
    },
    query=[
        openapi.Query("path", "string", "Only calls of this route."),
        openapi.Query("route", "string", "The same."),
        openapi.Query("status", "string", "Only calls in this state."),
        openapi.Query("from", "string", "Only calls since: RFC 3339 or epoch milliseconds."),
        openapi.Query("to", "string", "Only calls before: RFC 3339 or epoch milliseconds."),
        openapi.Query("limit", "integer", "At most so many, 1 to 1000; default 100."),
        openapi.Query("cursor", "string", "`next_cursor` of the page before."),
    ],
)
async def list_calls(request: web.Request) -> web.Response:
    """Answer one page of an app's calls."""
    wanted, limit = calls.wanted(request.query)
    found = await request.app[CALLS].list(request.match_info["app"], wanted, limit)
    following = cursors.encode(found[-1].call_id) if len(found) == limit else ""
    return web.json_response(
        {
            "message": "Successfully listed calls",
            "calls": [calls.as_json(record) for record in found],
            "next_cursor": following,
        }
    )


@openapi.operation(
    "Show a call.",
    tag="calls",
    answers={200: CallAnswer, 400: _BAD, 404: _NOT_FOUND},
    query=[_WAIT],
)
async def show_call(request: web.Request) -> web.Response:
    """Answer what is known of a call by now, or by its end."""
    wait_s = calls.wait_s(request.query)
    record = await request.app[CALLS].find(request.match_info["id"], wait_s)
    failures = await request.app[CALLS].failures(record)
    shown = calls.as_json(record) | {"failures": [calls.failure_json(f) for f in failures]}
    if record.mode == "async":
        shown["callback"] = calls.callback_json(
            await request.app[parts.CALLBACKS].find(record.call_id)
        )
    return web.json_response({"message": "Successfully loaded call", "call": shown})


@openapi.operation(
    "Show what a call's function wrote to stderr.",
    tag="calls",
    answers={
        200: openapi.Raw("The log, as it was written.", "text/plain"),
        400: _BAD,
        404: _NOT_FOUND,
        409: _NOT_ENDED,
    },
    query=[_WAIT],
)
async def show_log(request: web.Request) -> web.Response:
    """Answer the bytes of a call's log."""
    wait_s = calls.wait_s(request.query)
    body = await request.app[CALLS].log(request.match_info["id"], wait_s)
    return web.Response(body=body, headers={"Content-Type": "text/plain; charset=utf-8"})


@openapi.operation(
    "Show what an async call's function wrote to stdout.",
    tag="calls",
    answers={
        200: openapi.Raw(
            "The result; with `X-Truncated: true` if it was longer than is kept.",
            "application/octet-stream",
        ),
        400: _BAD,
        404: openapi.Problem("The result of this call was not kept"),
        409: _NOT_ENDED,
    },
    query=[_WAIT],
)
async def show_result(request: web.Request) -> web.Response:
    """Answer the bytes of a call's result."""
    wait_s = calls.wait_s(request.query)
    result = await request.app[CALLS].result(request.match_info["id"], wait_s)
    headers = {"Content-Type": "application/octet-stream"}
    if result.truncated:
        headers["X-Truncated"] = "true"
    return web.Response(body=result.body, headers=headers)


ROUTES = (
    web.get("/v1/apps/{app}/calls", list_calls, allow_head=False),
    web.get("/v1/calls/{id}", show_call, allow_head=False),
    web.get("/v1/calls/{id}/log", show_log, allow_head=False),
    web.get("/v1/calls/{id}/result", show_result, allow_head=False),
)
