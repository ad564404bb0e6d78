"""How do outside workers get async calls and say what became of them? `/tasks`."""

from typing import Any

from aiohttp import web

from services.api import jsontext, openapi
from services.api.bodies import read_body
from services.api.call_schemas import TaskReport, TaskView
from services.api.calls import STATUSES
from services.api.problems import BadRequest, NotFound
from services.api.reservations import Report, Reservations, task_json

RESERVATIONS = web.AppKey("reservations", Reservations)
TASK_MAX_BYTES = web.AppKey("task_max_bytes", int)

_NOT_RESERVED = "Task not found: it is not reserved, or no longer"


@openapi.operation(
    "Reserve the async call that has waited longest, for 60 seconds; null if none waits.",
    tag="tasks",
    answers={202: openapi.Nullable(TaskView)},
)
async def reserve(request: web.Request) -> web.Response:
    """Answer a task that is the client's to run, or null."""
    task = await request.app[RESERVATIONS].reserve()
    return web.json_response(task and task_json(task), status=202)


@openapi.operation(
    "Say that a reserved call has been run, and how it ended.",
    tag="tasks",
    answers={
        202: TaskView,
        400: openapi.Problem('id must be a string: write {"id": "<the task\'s id>"}'),
        404: openapi.Problem(_NOT_RESERVED),
        408: openapi.Problem("The request body came too slowly"),
        413: openapi.Problem("The request body is over the limit"),
    },
    body=TaskReport,
)
async def acknowledge(request: web.Request) -> web.Response:
    """End the call as its worker says, and answer it."""
    report = _report(jsontext.parse(await read_body(request, request.app[TASK_MAX_BYTES])))
    task = await request.app[RESERVATIONS].acknowledge(report)
    if task is None:
        raise NotFound(_NOT_RESERVED)
    return web.json_response(task_json(task), status=202)


def _report(value: Any) -> Report:  # noqa: ANN401 (any JSON)
    """Return what a worker says; fields other than these are the task's own, and known."""
    fields = {k.lower(): v for k, v in value.items()} if isinstance(value, dict) else {}
    if not isinstance(fields.get("id"), str):
        raise BadRequest('id must be a string: write {"id": "<the task\'s id>"}')
    said = {name: fields.get(name) for name in ("status", "error", "reason")}
    for name, text in said.items():
        if not isinstance(text, str | None):
            raise BadRequest(f"{name} must be a string")
    if said["status"] and said["status"] not in STATUSES:
        raise BadRequest(f"status must be one of {', '.join(STATUSES)}, not {said['status']!r}")
    return Report(fields["id"], **{name: text for name, text in said.items() if text})


ROUTES = tuple(
    route
    for path in ("/tasks", "/v1/tasks")
    for route in (web.get(path, reserve, allow_head=False), web.delete(path, acknowledge))
)
