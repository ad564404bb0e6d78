"""What does the api say of itself? `/`, `/version` (also as `/v1/version`), `/openapi.json`."""

from typing import Any

from aiohttp import web

from services.api import openapi, parts, schemas
from services.api.middleware import said
from shared.version import VERSION

#: The document, made once the application has all its routes.
DOCUMENT = web.AppKey("openapi", dict[str, Any])


@openapi.operation("Say hello.", tag="operating", answers={200: schemas.Welcome})
async def welcome(_: web.Request) -> web.Response:
    """Answer as the front page ever did."""
    return said({"goto": "https://github.com/iron-io/functions", "hello": "world!"})


@openapi.operation(
    "Tell the version, and where images are pushed to.",
    tag="operating",
    answers={200: schemas.VersionAnswer},
)
async def version(request: web.Request) -> web.Response:
    """Answer this server's version and the address of the hub."""
    return said({"version": VERSION, "hub": request.app[parts.SETTINGS].hub})


@openapi.operation(
    "Describe this API.",
    tag="operating",
    answers={200: openapi.Raw("An OpenAPI 3 document.", "application/json")},
)
async def describe(request: web.Request) -> web.Response:
    """Answer the OpenAPI document."""
    return said(request.app[DOCUMENT])


def _health(summary: str, answers: dict[int, openapi.Answer]) -> openapi.Operation:
    return openapi.Operation(summary, "operating", answers)


#: What `shared.service` serves, here as elsewhere.
OPERATING = {
    "/healthz": _health("Tell whether the process lives.", {200: schemas.HealthAnswer}),
    "/readyz": _health(
        "Tell whether it can serve.", {200: schemas.HealthAnswer, 503: schemas.NotReadyAnswer}
    ),
    "/metrics": _health("Count, for Prometheus.", {200: openapi.Raw("Metrics.", "text/plain")}),
}

ROUTES = (
    web.get("/", welcome, allow_head=False),
    web.get("/version", version, allow_head=False),
    web.get("/v1/version", version, allow_head=False),
    web.get("/openapi.json", describe, allow_head=False),
)
