"""What signs the callbacks of an app? `/v1/apps/{app}/callback-secret`."""

from aiohttp import web

from services.api import openapi, parts, schemas
from services.api.callbacks import Secrets
from services.api.middleware import said
from shared import clock, timestamps

_NOT_FOUND = openapi.Problem("App not found")


@openapi.operation(
    "Show what signs an app's callbacks.",
    tag="apps",
    answers={200: schemas.CallbackSecretAnswer, 404: _NOT_FOUND},
)
async def show_secret(request: web.Request) -> web.Response:
    """Answer an app's secret; it is made when it is asked for first."""
    app = await request.app[parts.STORE].app(request.match_info["app"])
    found = await request.app[parts.CALLBACKS].secrets(app.name)
    return _told("Successfully loaded callback secret", found)


@openapi.operation(
    "Give an app a new secret; the one before signs beside it for a day.",
    tag="apps",
    answers={200: schemas.CallbackSecretAnswer, 404: _NOT_FOUND},
)
async def rotate_secret(request: web.Request) -> web.Response:
    """Change an app's secret and answer it."""
    app = await request.app[parts.STORE].app(request.match_info["app"])
    found = await request.app[parts.CALLBACKS].rotate(app.name, clock.epoch_ms())
    return _told("Callback secret successfully changed", found)


def _told(words: str, found: Secrets) -> web.Response:
    both = len(found.in_force(clock.epoch_ms())) > 1
    return said(
        {
            "message": words,
            "callback_secret": {
                "secret": found.secret,
                "previous": found.previous if both else None,
                "previous_until": timestamps.rfc3339(found.previous_until_ms) if both else None,
            },
        }
    )


ROUTES = (
    web.get("/v1/apps/{app}/callback-secret", show_secret, allow_head=False),
    web.post("/v1/apps/{app}/callback-secret", rotate_secret),
)
