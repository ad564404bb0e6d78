"""How are routes managed over HTTP? `/v1/apps/{app}/routes` and `/v1/routes`."""

from typing import Any

from aiohttp import web

from services.api import (
    cursors,
    merging,
    openapi,
    parts,
    paths,
    problems,
    reading,
    schemas,
    validation,
    views,
)
from services.api.bodies import read_body
from services.api.handlers.apps import PAGES
from services.api.middleware import said
from services.api.models import Route

MISSING = "Missing new route"
IMMUTABLE = "Could not update route - path is immutable"
#: Parts of a URL before a route's path: `v1`, `apps`, the app's name, `routes`.
_PREFIX_PARTS = 4

_FIELDS = schemas.RouteFields()
_NOT_FOUND = openapi.Problem(problems.ROUTE_NOT_FOUND)
_TOO_LARGE = openapi.Problem("The request body is over the limit")
_SLOW = openapi.Problem("The request body came too slowly")
_LIST_QUERY = (openapi.Query("image", "string", "Only routes of exactly this image."), *PAGES)
_LIST_ANSWERS: dict[int, openapi.Answer] = {
    200: schemas.RoutesAnswer,
    400: openapi.Problem("limit must be a whole number"),
}


async def _sent(request: web.Request) -> reading.Sent:
    raw = await read_body(request, reading.BODY_MAX_BYTES)
    sent = reading.sent(raw, "route", _FIELDS, MISSING)
    app = sent.fields.get("app_name", "")
    if app not in {"", request.match_info["app"]}:
        sent.warnings.append("route.app_name ignored: the app is the one in the URL")
    for name in merging.READ_ONLY:
        if sent.fields.get(name):
            sent.warnings.append(f"route.{name} ignored: it is read-only")
    return sent


def _told(message: str, route: Route, warnings: list[str]) -> web.Response:
    answer: dict[str, Any] = {"message": message, "route": views.route(route)}
    return said(answer | ({"warnings": warnings} if warnings else {}))


def _meant(request: web.Request) -> tuple[str, str]:
    """Return the app and the path of the route that the URL means."""
    return request.match_info["app"], paths.route_of(request.rel_url.raw_path, _PREFIX_PARTS)


async def _list(request: web.Request, app: str | None) -> web.Response:
    page = cursors.page(request.query)
    image = request.query.get("image") or None
    routes, following = await request.app[parts.STORE].routes(page, app, image)
    answer = {"message": "Sucessfully listed routes", "routes": [views.route(r) for r in routes]}
    return said(answer | ({"next_cursor": following} if page.wanted else {}))


@openapi.operation(
    "List an app's routes by path.", tag="routes", answers=_LIST_ANSWERS, query=_LIST_QUERY
)
async def list_routes(request: web.Request) -> web.Response:
    """Answer an app's routes, or a page of them; of an unknown app, none."""
    return await _list(request, request.match_info["app"])


@openapi.operation(
    "List all routes by app and path.", tag="routes", answers=_LIST_ANSWERS, query=_LIST_QUERY
)
async def list_all_routes(request: web.Request) -> web.Response:
    """Answer the routes of all apps, or a page of them."""
    return await _list(request, None)


@openapi.operation(
    "Make a route, and its app if there is none.",
    tag="routes",
    answers={
        200: schemas.RouteAnswer,
        400: openapi.Problem(MISSING),
        409: openapi.Problem("Route already exists"),
        408: _SLOW,
        413: _TOO_LARGE,
    },
    body=schemas.RouteBody,
)
async def create_route(request: web.Request) -> web.Response:
    """Make a route and answer it."""
    sent = await _sent(request)
    app = request.match_info["app"]
    validation.check_new_route(app, sent.fields)
    route = merging.new_route(app, sent.fields)
    validation.check_route(route)
    await request.app[parts.STORE].create_route(route)
    return _told("Route successfully created", route, sent.warnings)


@openapi.operation(
    "Show a route.", tag="routes", answers={200: schemas.RouteAnswer, 404: _NOT_FOUND}
)
async def show_route(request: web.Request) -> web.Response:
    """Answer a route."""
    route = await request.app[parts.STORE].route(*_meant(request))
    return _told("Successfully loaded route", route, [])


@openapi.operation(
    "Change a route: non-zero fields (and a 0 of min_sandboxes and retries) replace, config is "
    'merged ("" deletes), header values are added ([] deletes).',
    tag="routes",
    answers={
        200: schemas.RouteAnswer,
        400: openapi.Problem(IMMUTABLE),
        404: _NOT_FOUND,
        408: _SLOW,
        413: _TOO_LARGE,
    },
    body=schemas.RouteBody,
)
async def update_route(request: web.Request) -> web.Response:
    """Merge what was sent into a route and answer it."""
    sent = await _sent(request)
    if sent.fields.get("path"):
        raise problems.BadRequest(IMMUTABLE)
    validation.check_changed_fields(sent.fields)

    def change(route: Route) -> Route:
        changed = merging.patched_route(route, sent.fields)
        validation.check_route(changed)
        return changed

    route = await request.app[parts.STORE].update_route(*_meant(request), change)
    return _told("Route successfully updated", route, sent.warnings)


@openapi.operation("Delete a route.", tag="routes", answers={200: schemas.Message, 404: _NOT_FOUND})
async def delete_route(request: web.Request) -> web.Response:
    """Remove a route."""
    await request.app[parts.STORE].delete_route(*_meant(request))
    return said({"message": "Route deleted"})


ROUTES = (
    web.get("/v1/routes", list_all_routes, allow_head=False),
    web.get("/v1/apps/{app}/routes", list_routes, allow_head=False),
    web.post("/v1/apps/{app}/routes", create_route),
    web.get("/v1/apps/{app}/routes/{route:.*}", show_route, allow_head=False),
    web.patch("/v1/apps/{app}/routes/{route:.*}", update_route),
    web.delete("/v1/apps/{app}/routes/{route:.*}", delete_route),
)
