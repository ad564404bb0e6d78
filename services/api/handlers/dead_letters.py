"""What of async calls that failed for good? `/v1/apps/{app}/dead-letters`."""

from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import web

from services.api import cursors, openapi, paths
from services.api.letter_schemas import (
    LetterAnswer,
    LettersAnswer,
    PurgedAnswer,
    RedrivenAnswer,
    RedrivenManyAnswer,
    letter_json,
    request_json,
)
from services.api.letters import Filter, Letters
from services.api.problems import BadRequest, Conflict, NotFound
from services.api.redriving import Redriving
from services.api.waiters import Overloaded
from shared import ids
from shared.errors import CODES, MillraceError, Unavailable


class Means(NamedTuple):
    """What requests are answered with."""

    letters: Letters
    redriving: Redriving


MEANS = web.AppKey("dead_letters_means", Means)

LIMIT_DEFAULT = 100
_NOT_FOUND = "Dead letter not found"
_GONE = openapi.Problem(_NOT_FOUND)
_AWAY = openapi.Problem("Redis does not answer; the dead letters are all still there")
_PATH = openapi.Query("path", "string", "Only those of this route.")
_CODE = openapi.Query("code", "string", "Only those that failed so.")
_PAGE = (
    openapi.Query("limit", "integer", "At most so many, 1 to 1000; default 100."),
    openapi.Query("cursor", "string", "`next_cursor` of the page before."),
)
_WORDS = {"": False, "false": False, "true": True}


def _wanted(query: Mapping[str, str]) -> Filter:
    """Return which letters a query string means. Raises `BadRequest`, which names the field."""
    path, code = query.get("path") or query.get("route"), query.get("code") or None
    if code and code not in {row.word for row in CODES.values()}:
        raise BadRequest(f"code must be a word of the error table, not {code!r}")
    redriven = query.get("redriven", "")
    if redriven not in _WORDS:
        raise BadRequest(f"redriven must be true or false, not {redriven!r}")
    return Filter(paths.clean(path) if path else None, code, redriven=_WORDS[redriven])


@openapi.operation(
    "List an app's dead letters, newest first.",
    tag="dead letters",
    answers={200: LettersAnswer, 400: openapi.Problem("redriven must be true or false, not 'x'")},
    query=[
        _PATH,
        _CODE,
        openapi.Query("redriven", "boolean", "true: those that are calls again; default false."),
        *_PAGE,
    ],
)
async def list_letters(request: web.Request) -> web.Response:
    """Answer one page of an app's dead letters."""
    page = cursors.page(request.query)
    before_id = cursors.call_id(page)
    limit = page.limit or LIMIT_DEFAULT
    letters = request.app[MEANS].letters
    app, wanted = request.match_info["app"], _wanted(request.query)
    found = await letters.listed(app, wanted, limit, before_id)
    following = cursors.encode(found[-1].call_id) if len(found) == limit else ""
    return web.json_response(
        {
            "message": "Successfully listed dead letters",
            "dead_letters": [letter_json(letter) for letter in found],
            "next_cursor": following,
        }
    )


@openapi.operation(
    "Show a dead letter, with what its caller sent.",
    tag="dead letters",
    answers={200: LetterAnswer, 404: _GONE},
)
async def show_letter(request: web.Request) -> web.Response:
    """Answer one dead letter."""
    letters, (app, call_id) = request.app[MEANS].letters, _meant(request)
    letter = await letters.find(app, call_id)
    if letter is None:
        raise NotFound(_NOT_FOUND)
    shown = letter_json(letter) | {"request": request_json(await letters.parcel(letter))}
    return web.json_response({"message": "Successfully loaded dead letter", "dead_letter": shown})


@openapi.operation(
    "Remove a dead letter for good.",
    tag="dead letters",
    answers={200: PurgedAnswer, 404: _GONE},
)
async def purge_letter(request: web.Request) -> web.Response:
    """Remove one dead letter."""
    if not await request.app[MEANS].letters.purge(*_meant(request)):
        raise NotFound(_NOT_FOUND)
    return web.json_response({"message": "Dead letter purged", "purged": 1})


@openapi.operation(
    "Remove an app's dead letters for good.",
    tag="dead letters",
    answers={200: PurgedAnswer, 400: openapi.Problem("code must be a word of the error table")},
    query=[_PATH, _CODE],
)
async def purge_letters(request: web.Request) -> web.Response:
    """Remove all dead letters of an app, or of a route."""
    app, wanted = request.match_info["app"], _wanted(request.query)
    purged = await request.app[MEANS].letters.purge_all(app, wanted)
    return web.json_response({"message": f"{_letters(purged)} purged", "purged": purged})


@openapi.operation(
    "Make a call of a dead letter: with its input, by its route as it is now.",
    tag="dead letters",
    answers={
        202: RedrivenAnswer,
        404: openapi.Problem("Route not found"),
        409: openapi.Problem("The input of this call is lost; it can only be purged"),
        503: _AWAY,
    },
)
async def redrive_letter(request: web.Request) -> web.Response:
    """Accept a call made of a dead letter; asked again, answer the same call."""
    app, call_id = _meant(request)
    new_id = await request.app[MEANS].redriving.redrive(app, call_id)
    answer = {"message": "Dead letter redriven", "call_id": new_id, "redrive_of": call_id}
    return web.json_response(answer, status=202)


@openapi.operation(
    "Make calls of an app's dead letters, oldest first; `next_cursor` goes on.",
    tag="dead letters",
    answers={
        202: RedrivenManyAnswer,
        400: openapi.Problem("limit must be a whole number"),
        503: _AWAY,
    },
    query=[_PATH, _CODE, *_PAGE],
)
async def redrive_letters(request: web.Request) -> web.Response:
    """Accept calls made of some dead letters; one that cannot be made is told and passed over."""
    page = cursors.page(request.query)
    after_id = cursors.call_id(page) or ""
    limit = page.limit or LIMIT_DEFAULT
    letters, redriving = request.app[MEANS]
    app = request.match_info["app"]
    found = await letters.ids(app, _wanted(request.query), limit, after_id)
    told: list[dict[str, str]] = []
    for call_id in found:
        try:
            told.append({"redrive_of": call_id, "call_id": await redriving.redrive(app, call_id)})
        except (NotFound, Conflict) as error:
            told.append({"redrive_of": call_id, "error": error.message})
        except (Unavailable, Overloaded) as error:
            raise _broken_off(error, len([one for one in told if "call_id" in one])) from error
    redriven = len([one for one in told if "call_id" in one])
    answer = {
        "message": f"{_letters(redriven)} redriven",
        "redriven": told,
        "next_cursor": cursors.encode(found[-1]) if len(found) == limit else "",
    }
    return web.json_response(answer, status=202)


def _broken_off(error: MillraceError, redriven: int) -> MillraceError:
    if not redriven:
        return error
    more = f"before, {_letters(redriven)} had been redriven; the others stay"
    return type(error)(f"{error.message}; {more}")


def _letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"


def _meant(request: web.Request) -> tuple[str, str]:
    """Return the app and the call id that the URL means.

    Raises `NotFound` for what is no id: MySQL takes ids for ASCII, and fails at other text.
    """
    call_id = request.match_info["call_id"].lower()
    if ids.call_time_ms(call_id) is None:
        raise NotFound(_NOT_FOUND)
    return request.match_info["app"], call_id


_ALL, _ONE = "/v1/apps/{app}/dead-letters", "/v1/apps/{app}/dead-letters/{call_id}"
ROUTES = (
    web.get(_ALL, list_letters, allow_head=False),
    web.delete(_ALL, purge_letters),
    web.post(f"{_ALL}/redrive", redrive_letters),
    web.get(_ONE, show_letter, allow_head=False),
    web.delete(_ONE, purge_letter),
    web.post(f"{_ONE}/redrive", redrive_letter),
)
