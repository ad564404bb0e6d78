"""Which runners are there, and which are to be empty? `/v1/runners`."""

from aiohttp import web

from services.api import cursors, openapi
from services.api.handlers.apps import PAGES
from services.api.middleware import said
from services.api.runner_schemas import DrainAnswer, RunnersAnswer
from services.api.runners import Runners, as_json, is_wished
from shared import clock

RUNNERS = web.AppKey("runners", Runners)
_UNKNOWN = openapi.Problem("No runner has the id or name host-2; did you mean host-1?")


@openapi.operation(
    "List the runners by id, with their sandboxes.",
    tag="operating",
    answers={200: RunnersAnswer, 400: openapi.Problem("limit must be a whole number")},
    query=PAGES,
)
async def list_runners(request: web.Request) -> web.Response:
    """Answer all runners, or a page of them."""
    page = cursors.page(request.query)
    listed = await request.app[RUNNERS].page(page)
    now_ms = clock.epoch_ms()
    answer = {
        "message": "Successfully listed runners",
        "runners": [
            as_json(beat, now_ms, drain_asked=is_wished(beat, listed.wished))
            for beat in listed.beats
        ],
        "unreadable": listed.unreadable,
        "absent": listed.absent,
    }
    return said(answer | ({"next_cursor": listed.next_cursor} if page.wanted else {}))


@openapi.operation(
    "Have a runner be empty: it gets no new calls, and stays. By its id, or all that bear a name.",
    tag="operating",
    answers={200: DrainAnswer, 404: _UNKNOWN},
)
async def drain_runner(request: web.Request) -> web.Response:
    """Answer the runners that are to drain from now on."""
    called, now_ms = request.match_info["runner"], clock.epoch_ms()
    beats = await request.app[RUNNERS].drain(called, now_ms)
    shown = [as_json(beat, now_ms, drain_asked=True) for beat in beats]
    return said({"message": f"Runner {called} is to drain", "runners": shown})


@openapi.operation(
    "Let a runner take calls again. By its id, or all that bear a name.",
    tag="operating",
    answers={
        200: DrainAnswer,
        404: _UNKNOWN,
        409: openapi.Problem("All runners named host-1 are to drain: undrain host-1"),
    },
)
async def undrain_runner(request: web.Request) -> web.Response:
    """Answer the runners that take calls again."""
    called, now_ms = request.match_info["runner"], clock.epoch_ms()
    beats = await request.app[RUNNERS].undrain(called)
    shown = [as_json(beat, now_ms, drain_asked=False) for beat in beats]
    return said({"message": f"Runner {called} takes calls", "runners": shown})


ROUTES = (
    web.get("/v1/runners", list_runners, allow_head=False),
    web.post("/v1/runners/{runner}/drain", drain_runner),
    web.delete("/v1/runners/{runner}/drain", undrain_runner),
)
