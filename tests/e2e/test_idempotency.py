"""Does a call with an `Idempotency-Key` run once, through the whole platform?"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp

from tests.e2e.client import Client
from tests.e2e.conftest import World
from tests.e2e.platforms import Service

Image = Callable[[str], str]
KEY = {"Idempotency-Key": "order-17"}
#: Tells the world that it runs, and its caller by which call.
TELL = 'wget -q -O /dev/null "http://$WORLD/ran"; sleep 1; echo "$CALL_ID"'


async def test_it_runs_once_through_two_replicas(
    client: Client, second_api: Service, app: str, world: World, function_image: Image
) -> None:
    other = client.at(second_api.url)
    path = await client.deploy(app, "/x", function_image(TELL), config=world.config)
    asking = [(client, other)[n % 2].post(path, data=b"x", headers=KEY) for n in range(10)]
    answers = await asyncio.gather(*asking)
    assert {answer.status for answer in answers} == {200}
    assert {answer.text.strip() for answer in answers} == {answers[0].call_id}
    assert world.hits["/ran"] == 1
    again = await other.post(path, data=b"x", headers=KEY)
    assert (again.text, again.call_id) == (answers[0].text, answers[0].call_id)
    assert again.headers["Idempotent-Replayed"] == "true"
    refused = await other.post(path, data=b"y", headers=KEY)
    assert (refused.status, refused.code) == (409, "idempotency_mismatch")
    assert world.hits["/ran"] == 1


async def test_an_answer_outlives_the_replica_of_its_caller(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    app: str,
    world: World,
    function_image: Image,
) -> None:
    with new_platform() as platform:
        platform.start()
        second = platform.add("api")
        second.wait_ready()
        dying, other = Client(http, platform.url), Client(http, second.url)
        image = function_image(TELL)
        path = await other.deploy(app, "/x", image, config=world.config)
        first = asyncio.create_task(dying.post(path, data=b"x", headers=KEY))
        await world.hit("/ran")
        platform.first("api").kill()
        with suppress(aiohttp.ClientError):
            await first
        answer = await other.post(path, data=b"x", headers=KEY)
        assert (answer.status, answer.text.strip()) == (200, answer.call_id)
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert world.hits["/ran"] == 1


async def test_a_caller_who_left_comes_back_for_the_answer(
    client: Client, app: str, world: World, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(TELL), config=world.config)
    first = asyncio.create_task(client.post(path, data=b"x", headers=KEY))
    await world.hit("/ran")
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    answer = await client.post(path, data=b"x", headers=KEY)
    assert (answer.status, answer.text.strip()) == (200, answer.call_id)
    assert (await client.ended(answer.call_id))["status"] == "success"
    assert world.hits["/ran"] == 1


async def test_a_function_that_fails_is_not_run_again(
    client: Client, app: str, world: World, function_image: Image
) -> None:
    image = function_image('wget -q -O /dev/null "http://$WORLD/ran"; exit 3')
    path = await client.deploy(app, "/x", image, config=world.config)
    answers = [await client.post(path, data=b"x", headers=KEY) for _ in range(3)]
    assert {(answer.status, answer.body) for answer in answers} == {(500, answers[0].body)}
    assert world.hits["/ran"] == 1


async def test_an_image_that_is_not_there_leaves_the_key_free(client: Client, app: str) -> None:
    path = await client.deploy(app, "/x", "127.0.0.1:1/nobody/has:this")
    first = await client.post(path, data=b"x", headers=KEY)
    again = await client.post(path, data=b"x", headers=KEY)
    assert first.status == again.status == 500
    assert first.call_id != again.call_id
    assert "Idempotent-Replayed" not in again.headers


async def test_a_stream_is_collected_and_kept(client: Client, app: str, hot_image: str) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http")
    body = json.dumps({"do": "stream", "pieces": ["one", "two"], "pause_s": 0.2})
    first = await client.post(path, data=body.encode(), headers=KEY)
    again = await client.post(path, data=body.encode(), headers=KEY)
    for answer in (first, again):
        assert (answer.status, answer.text) == (200, "onetwo")
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Content-Length"] == "6"
    assert first.call_id == again.call_id


async def test_an_async_call_is_one(
    client: Client, second_api: Service, app: str, world: World, function_image: Image
) -> None:
    other = client.at(second_api.url)
    image = function_image(TELL)
    path = await client.deploy(app, "/x", image, config=world.config, type="async")
    asking = [(client, other)[n % 2].post(path, data=b"x", headers=KEY) for n in range(10)]
    answers = await asyncio.gather(*asking)
    assert {answer.status for answer in answers} == {202}
    [call_id] = {answer.json()["call_id"] for answer in answers}
    assert (await client.ended(call_id))["status"] == "success"
    assert [call["id"] for call in await client.calls(app)] == [call_id]
    assert world.hits["/ran"] == 1
