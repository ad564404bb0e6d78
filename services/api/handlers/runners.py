"""Which runners are there? `/v1/runners`."""

from aiohttp import web

from services.api import cursors, openapi
from services.api.handlers.apps import PAGES
from services.api.middleware import said
from services.api.runner_schemas import RunnersAnswer
from services.api.runners import Runners, as_json
from shared import clock

RUNNERS = web.AppKey("runners", Runners)


@openapi.operation(
    "List the runners by id, with their sandboxes.",
    tag="operating",
    answers={200: RunnersAnswer, 400: openapi.Problem("limit must be a whole number")},
    query=PAGES,
)
async def list_runners(request: web.Request) -> web.Response:
    """Answer all runners, or a page of them."""
    page = cursors.page(request.query)
    listed = await request.app[RUNNERS].list(page)
    now_ms = clock.epoch_ms()
    answer = {
        "message": "Successfully listed runners",
        "runners": [as_json(beat, now_ms) for beat in listed.beats],
        "unreadable": listed.unreadable,
    }
    return said(answer | ({"next_cursor": listed.next_cursor} if page.wanted else {}))


ROUTES = (web.get("/v1/runners", list_runners, allow_head=False),)
