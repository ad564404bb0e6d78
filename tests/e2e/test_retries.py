"""Is what failed tried again as its route says, and if that does not help, kept to be redriven?"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web

from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.conftest import World
from tests.e2e.load import accept
from tests.e2e.outside import served
from tests.e2e.test_kill import removed

Image = Callable[[str], str]
CALLS = 4


async def test_a_function_that_fails_twice_succeeds_at_its_third_attempt(
    client: Client, app: str, function_image: Image
) -> None:
    asked: Counter[str] = Counter()

    async def fails_twice(request: web.Request) -> web.Response:
        asked[request.path] += 1
        return web.Response(status=200 if asked[request.path] > 2 else 503)

    async with served(fails_twice) as address:
        image = function_image(
            'wget -q -O- "http://$WORLD/$CALL_ID" || { echo no luck >&2; exit 7; }; exec cat'
        )
        config = {"WORLD": address}
        path = await client.deploy(app, "/x", image, type="async", retries=2, config=config)
        call_id = (await client.post(path, data=b"body")).json()["call_id"]
        call = await client.ended(call_id)
    assert (call["status"], call["attempt"], call["error"]) == ("success", 3, None)
    told = [(f["attempt"], f["code"], f["exit_code"]) for f in call["failures"]]
    assert told == [(1, "exit", 7), (2, "exit", 7)]
    assert asked == {f"/{call_id}": 3}
    assert (await client.get(f"/v1/calls/{call_id}/result")).body == b"body"
    log = (await client.get(f"/v1/calls/{call_id}/log")).text
    assert log.count("no luck") == 2
    assert "--- attempt 2 failed: exit: exit code 7 ---" in log
    assert (await client.get(f"/v1/apps/{app}/dead-letters")).json()["dead_letters"] == []


async def test_calls_whose_runners_are_killed_die_in_the_end_and_are_redriven(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    with new_platform(RUNNER_LOST_S="2") as platform:
        platform.start()
        client = Client(http, platform.url)
        image = function_image(
            'wget -q -O- "http://$WORLD/$CALL_ID"; [ "$FATE" = well ] || exec sleep 1000; exec cat'
        )
        path = await client.deploy(
            app, "/x", image, type="async", timeout=600, max_attempts=2, config=world.config
        )
        accepted = await accept(client, path, CALLS)
        left: set[str] = set()
        for attempt in (1, 2):
            for call_id in accepted:
                await world.hit(f"/{call_id}", attempt)
            runner = platform.first("runner")
            runner.kill()
            left |= platform.containers()
            runner.start()
            await asyncio.to_thread(runner.wait_ready)

        letters = await dead_letters(client, app, CALLS)
        assert sorted(letter["call_id"] for letter in letters) == sorted(accepted)
        assert {(letter["code"], letter["attempt"]) for letter in letters} == {("runner_lost", 2)}
        for call_id in accepted:
            call = await client.ended(call_id)
            assert (call["status"], call["code"], call["attempt"]) == ("error", "runner_lost", 2)
            assert [failure["code"] for failure in call["failures"]] == ["runner_lost"]
            assert world.hits[f"/{call_id}"] == 2

        mended = {"route": {"config": {"FATE": "well"}}}
        assert (await client.patch(f"/v1/apps/{app}/routes/x", json=mended)).status == 200
        one, *others = accepted
        answer = await client.post(f"/v1/apps/{app}/dead-letters/{one}/redrive")
        assert answer.status == 202, answer.text
        redriven = {one: answer.json()["call_id"]}
        answer = await client.post(f"/v1/apps/{app}/dead-letters/redrive")
        assert [told["redrive_of"] for told in answer.json()["redriven"]] == sorted(others)
        redriven |= {told["redrive_of"]: told["call_id"] for told in answer.json()["redriven"]}
        for call_id, new_id in redriven.items():
            ended = await client.ended(new_id)
            assert (ended["status"], ended["attempt"]) == ("success", 1)
            assert ended["redrive_of"] == call_id
            assert world.hits[f"/{new_id}"] == 1
        assert await dead_letters(client, app, 0) == []
        assert len(await client.calls(app)) == 2 * CALLS
        await eventually(lambda: removed(platform, left), 45)


async def dead_letters(client: Client, app: str, count: int) -> list[dict[str, Any]]:
    """Return an app's dead letters once there are so many."""

    async def enough() -> list[list[dict[str, Any]]]:
        answer = await client.get(f"/v1/apps/{app}/dead-letters")
        found = answer.json()["dead_letters"]
        return [found] if len(found) == count else []

    found = await eventually(enough, 60)
    assert isinstance(found, list)
    return list(found[0])
