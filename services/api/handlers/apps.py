"""How are apps managed over HTTP? `/v1/apps`."""

from typing import Any

from aiohttp import web

from services.api import (
    cursors,
    merging,
    openapi,
    parts,
    problems,
    reading,
    schemas,
    validation,
    views,
)
from services.api.bodies import read_body
from services.api.middleware import said
from services.api.models import App

MISSING = "Missing new application"
IMMUTABLE = "Could not update app - name is immutable"

_FIELDS = schemas.AppFields()
_NOT_FOUND = openapi.Problem(problems.APP_NOT_FOUND)
_TOO_LARGE = openapi.Problem("The request body is over the limit")
_SLOW = openapi.Problem("The request body came too slowly")
PAGES = (
    openapi.Query("limit", "integer", f"At most so many, 1 to {cursors.LIMIT_MAX}; without, all."),
    openapi.Query("cursor", "string", "`next_cursor` of the page before."),
)


async def _sent(request: web.Request) -> reading.Sent:
    raw = await read_body(request, reading.BODY_MAX_BYTES)
    return reading.sent(raw, "app", _FIELDS, MISSING)


def _told(message: str, app: App, warnings: list[str]) -> web.Response:
    answer: dict[str, Any] = {"message": message, "app": views.app(app)}
    return said(answer | ({"warnings": warnings} if warnings else {}))


@openapi.operation(
    "List apps by name.",
    tag="apps",
    answers={200: schemas.AppsAnswer, 400: openapi.Problem("limit must be a whole number")},
    query=PAGES,
)
async def list_apps(request: web.Request) -> web.Response:
    """Answer all apps, or a page of them."""
    page = cursors.page(request.query)
    apps, following = await request.app[parts.STORE].apps(page)
    answer = {"message": "Successfully listed applications", "apps": [views.app(a) for a in apps]}
    return said(answer | ({"next_cursor": following} if page.wanted else {}))


@openapi.operation(
    "Make an app.",
    tag="apps",
    answers={
        200: schemas.AppAnswer,
        400: openapi.Problem(MISSING),
        409: openapi.Problem("App already exists"),
        408: _SLOW,
        413: _TOO_LARGE,
    },
    body=schemas.AppBody,
)
async def create_app(request: web.Request) -> web.Response:
    """Make an app and answer it."""
    sent = await _sent(request)
    app = merging.new_app(sent.fields)
    validation.check_app(app)
    await request.app[parts.STORE].create_app(app)
    return _told("App successfully created", app, sent.warnings)


@openapi.operation("Show an app.", tag="apps", answers={200: schemas.AppAnswer, 404: _NOT_FOUND})
async def show_app(request: web.Request) -> web.Response:
    """Answer an app."""
    app = await request.app[parts.STORE].app(request.match_info["app"])
    return _told("Successfully loaded app", app, [])


@openapi.operation(
    'Change an app: config is merged, and "" deletes a key.',
    tag="apps",
    answers={
        200: schemas.AppAnswer,
        400: openapi.Problem(IMMUTABLE),
        404: _NOT_FOUND,
        408: _SLOW,
        413: _TOO_LARGE,
    },
    body=schemas.AppBody,
)
async def update_app(request: web.Request) -> web.Response:
    """Merge what was sent into an app and answer it."""
    sent = await _sent(request)
    if sent.fields.get("name"):
        raise problems.BadRequest(IMMUTABLE)

    def change(app: App) -> App:
        changed = merging.patched_app(app, sent.fields)
        validation.check_app(changed)
        return changed

    app = await request.app[parts.STORE].update_app(request.match_info["app"], change)
    return _told("App successfully updated", app, sent.warnings)


@openapi.operation(
    "Delete an app without routes.",
    tag="apps",
    answers={
        200: schemas.Message,
        400: openapi.Problem("Cannot remove apps with routes"),
        404: _NOT_FOUND,
    },
)
async def delete_app(request: web.Request) -> web.Response:
    """Remove an app."""
    await request.app[parts.STORE].delete_app(request.match_info["app"])
    return said({"message": "App deleted"})


ROUTES = (
    web.get("/v1/apps", list_apps, allow_head=False),
    web.post("/v1/apps", create_app),
    web.get("/v1/apps/{app}", show_app, allow_head=False),
    web.patch("/v1/apps/{app}", update_app),
    web.delete("/v1/apps/{app}", delete_app),
)
