"""How long does a caller with a key wait?"""

import asyncio
from typing import Any

import pytest

from services.api import gateway, idempotency, invocation, plans
from services.api.catalog import Found
from services.api.gateway import Gateway, Late, Wishes
from services.api.models import Route
from services.api.settings import Settings
from shared import clock
from shared.scripts import Command

#: Seconds that a call may wait for capacity. Its function has no time at all.
WAITS_S = 1.0
ASKED = idempotency.Asked("key", "digest", "fingerprint")
#: The claim of a call that runs for long, as Redis has it.
RUNNING = [b"fingerprint", b"first", b"sync", b"run", b"9999999999999", b"\x90", None, b"1"]
FREE = [None] * 8


class Claims:
    """A Redis that says of a key what is in `answers`; the last of them again and again."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def follow(self, _: object) -> None:
        """Wait for no more."""

    def post(self, *_: object) -> None:
        """Say nothing."""

    async def send(self, _: Command) -> object:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "DEADLINE_SLACK_MS", 0)


async def asking(*answers: object) -> float:
    """Ask with a key and get no answer; return after how many seconds that was over."""
    settings = Settings(capacity_wait_s=WAITS_S)
    unused: Any = None
    outbox: Any = Claims(*answers)
    asked = Gateway(unused, outbox, unused, settings, "api-1")
    route = Route(app="a", path="/p", image="img", timeout=0)
    found = Found({}, route, "1", plans.plan({}, route, "1"))
    caller = invocation.Caller("POST", "http://h/r/a/p", [], b"")
    begun_s = clock.monotonic_s()
    with pytest.raises((idempotency.KeyRunning, Late)):
        async with asyncio.timeout(5):
            await asked.call("second", found, caller, unused, Wishes(ASKED))
    return clock.monotonic_s() - begun_s


async def test_who_waits_for_the_first_call_is_told_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway, "_FIRST_LOOK_S", 60)
    assert WAITS_S <= await asking(RUNNING) < WAITS_S + 0.5


async def test_who_has_waited_for_a_key_has_only_the_rest_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway, "_FIRST_LOOK_S", 0.9 * WAITS_S)
    assert await asking(RUNNING, FREE, b"1-0") < WAITS_S + 0.5
