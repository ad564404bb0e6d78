"""For how long is it known that a dead letter is a call again?"""

from typing import Any

import pytest

from services.api import plans
from services.api.catalog import Found
from services.api.letters import Letter
from services.api.models import Route
from services.api.redriving import Redriving
from shared import keys, messages, scripts
from shared.errors import Unavailable
from shared.scripts import Command

ROUTE = Route(app="a", path="/p", image="img", type="async")
FOUND = Found({}, ROUTE, "1", plans.plan({}, ROUTE, "1"))
LETTER = Letter("dead", "a", "/p", "exit", "why", 1, 5, FOUND.plan.head, 1, None, None)


class Stores:
    """MySQL with one letter, a catalog with its route, and a Redis that takes all it is sent."""

    def __init__(self, *, away: bool) -> None:
        self.away = away
        self.sent: list[Command] = []

    async def find(self, *_: object) -> Letter:
        return LETTER

    async def parcel(self, _: Letter) -> bytes:
        return messages.encode(messages.Parcel({}, {}, b"in"))

    async def name(self, _: str, new_id: str) -> str:
        return new_id

    async def redriven(self, *_: object) -> None:
        if self.away:
            raise Unavailable

    async def lookup(self, *_: object) -> Found:
        return FOUND

    async def send(self, command: Command) -> bytes:
        self.sent.append(command)
        return b"1-0"


@pytest.mark.parametrize("away", [False, True])
async def test_redis_knows_it_until_the_letter_does(away: bool) -> None:  # noqa: FBT001 (a case)
    stores: Any = Stores(away=away)
    new_id = await Redriving(stores, stores, stores, 10).redrive("a", "dead")
    noted = ("PEXPIRE", keys.redriven(new_id), scripts.REDRIVEN_NOTED_KEPT_MS)
    [_, *after] = stores.sent
    assert after == ([] if away else [noted])
