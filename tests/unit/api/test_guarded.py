"""Does a name whose servers are silent hold up anything but its own callback?"""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from services.api import guarded
from tests.conftest import eventually


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let names that begin with `silent` be looked up in vain until the test ends; gives those."""
    over, asked, real = threading.Event(), [], guarded.look_up

    def look_up(host: str, *rest: Any) -> list[Any]:
        if host.startswith("silent"):
            asked.append(host)
            over.wait(30)
        return real(host, *rest)

    monkeypatch.setattr(guarded, "look_up", look_up)
    yield asked
    over.set()


async def test_silent_names_hold_up_nothing_else(silent: list[str]) -> None:
    async def all_are_looked_up() -> bool:
        return len(silent) == 8

    async with guarded.session((), 10, at_once=8) as session, asyncio.TaskGroup() as group:
        asking = [
            group.create_task(session.post(f"http://silent-{number}.invalid/"))
            for number in range(8)
        ]
        await eventually(all_are_looked_up)
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            with pytest.raises(aiohttp.ClientConnectorError, match="where callbacks do not go"):
                await session.post("http://localhost:1/")
        for one in asking:
            one.cancel()


async def test_a_name_given_up_has_its_time_and_no_more(silent: list[str]) -> None:
    async with guarded.session((), 0.1) as session:
        with pytest.raises(TimeoutError):
            await session.post("http://silent.invalid/")
    assert silent == ["silent.invalid"]
