"""Which ids in a URL can be those of dead letters?"""

from typing import Any, NoReturn

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from services.api.handlers import dead_letters
from services.api.problems import NotFound


class NoLetters:
    """Fails the test of who asks for one."""

    async def find(self, app: str, call_id: str) -> NoReturn:
        raise AssertionError(f"{call_id!r} of {app} was looked for")

    purge = find


@pytest.mark.parametrize("call_id", ["\u00fc", "x", "", "01938f6e-0000-4000-8000-000000000000"])
@pytest.mark.parametrize("handler", [dead_letters.show_letter, dead_letters.purge_letter])
async def test_what_is_no_id_is_not_found(handler: Any, call_id: str) -> None:
    """MySQL takes ids for ASCII, and failed at others; that was told as its outage, with 503."""
    app = web.Application()
    letters: Any = NoLetters()
    app[dead_letters.MEANS] = dead_letters.Means(letters, redriving=letters)
    found = {"app": "demo", "call_id": call_id}
    request = make_mocked_request("GET", "/", match_info=found, app=app)
    with pytest.raises(NotFound, match="Dead letter not found"):
        await handler(request)
