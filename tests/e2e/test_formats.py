"""Do hot functions answer, stream, and fail, as their format says, and hurt nobody else?"""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.client import Answer, Client

MIB = 1024 * 1024
HOT = ("http", "json")


async def ask(client: Client, path: str, do: str, **more: Any) -> Answer:
    return await client.post(path, data=json.dumps({"do": do, **more}).encode())


async def echo(client: Client, path: str, value: object) -> dict[str, Any]:
    answer = await ask(client, path, "echo", echo=value)
    assert answer.status == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert told["echo"] == value
    return told


@pytest.mark.parametrize("kind", HOT)
async def test_one_process_answers_call_after_call(
    client: Client, app: str, hot_image: str, kind: str
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format=kind, config={"KEY": "value"})
    told = [await echo(client, path, number) for number in range(5)]
    assert len({one["pid"] for one in told}) == 1
    assert told[0]["env"] == "value"


@pytest.mark.parametrize("kind", HOT)
async def test_status_and_headers_of_the_function_reach_the_caller(
    client: Client, app: str, hot_image: str, kind: str
) -> None:
    headers = {"X-Route": ["a", "b"]}
    path = await client.deploy(app, "/hot", hot_image, format=kind, headers=headers)
    answer = await ask(client, path, "echo", status=418)
    assert answer.status == 418
    assert answer.headers["X-Own"] == "yes"
    assert answer.headers.getall("X-Route") == ["a", "b"]
    assert answer.headers["X-Call-Id"]
    assert answer.headers["Server-Timing"]


#: What is asked for, and the status, code, and part of the message that come of it.
WRONG = [
    ({"do": "exit", "code": 3}, (500, "exit", "exit code 3")),
    ({"do": "exit", "code": 0}, (500, "bad_answer", "exit code 0")),
    ({"do": "garbage"}, (500, "bad_answer", "this is no answer")),
    ({"do": "twice"}, (500, "bad_answer", "twice")),
    ({"do": "hang"}, (504, "timeout", "Timed out")),
    ({"do": "allocate"}, (500, "out_of_memory", "out of memory error")),
]


@pytest.mark.parametrize("kind", HOT)
@pytest.mark.parametrize(("asked", "expected"), WRONG, ids=lambda v: str(v)[:30])
async def test_each_way_to_fail_has_its_code_and_hurts_no_other_call(
    client: Client, app: str, hot_image: str, kind: str, *, asked: Any, expected: Any
) -> None:
    status, code, message = expected
    path = await client.deploy(app, "/hot", hot_image, format=kind, timeout=2)
    await echo(client, path, "before")
    answer = await ask(client, path, **asked)
    assert (answer.status, answer.code) == (status, code), answer.text
    assert message in answer.message
    assert answer.json()["error"]["fault"] == "function"
    await echo(client, path, "after")
    await client.ended(answer.call_id)
    log = await client.get(f"/v1/calls/{answer.call_id}/log")
    assert f"log of {answer.call_id}\n" in log.text
    assert log.text.count("log of") == 1


async def test_a_function_that_speaks_before_it_is_asked(
    client: Client, app: str, hot_image: str
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http", config={"EARLY": "1"})
    answer = await ask(client, path, "echo")
    assert (answer.status, answer.code) == (500, "bad_answer")
    assert "anybody there" in answer.message


@pytest.mark.parametrize("kind", HOT)
@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.2])
async def test_a_late_second_answer_reaches_nobody(
    client: Client, app: str, hot_image: str, kind: str, after_s: float
) -> None:
    """Whether it comes while nothing is asked, or when the next call is already on its way."""
    path = await client.deploy(app, "/hot", hot_image, format=kind)
    for number in range(3):
        late = await ask(client, path, "late", after_s=after_s)
        assert late.text == "in time" or late.code == "bad_answer", late.text
        await echo(client, path, number)


@pytest.mark.parametrize("kind", HOT)
async def test_a_function_that_exits_after_its_answer_is_started_anew(
    client: Client, app: str, hot_image: str, kind: str
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format=kind)
    for number in range(5):
        answer = await ask(client, path, "answer and exit")
        assert (answer.status, answer.text) == (200, "last words"), number


async def test_a_streamed_answer_comes_as_it_is_made(
    client: Client, app: str, hot_image: str, http: aiohttp.ClientSession
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http")
    body = json.dumps({"do": "stream", "pieces": ["one", "two", "three"], "pause_s": 0.5})
    async with http.post(client.url + path, data=body) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        first = await answer.content.readany()
        # The function is still at it: the rest has not been written yet.
        assert first == b"one"
        assert await answer.content.read() == b"twothree"
    record = await client.ended(answer.headers["X-Call-Id"])
    assert record["status"] == "success"


async def test_a_stream_that_breaks_off_does_not_seem_whole(
    client: Client, app: str, hot_image: str, http: aiohttp.ClientSession
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http")
    async with http.post(client.url + path, data=b'{"do": "break off"}') as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()
    record = await client.ended(answer.headers["X-Call-Id"])
    assert (record["status"], record["code"]) == ("error", "exit")
    await echo(client, path, "after")


async def test_a_long_stream_passes_whole_to_a_slow_reader(
    client: Client, app: str, hot_image: str, http: aiohttp.ClientSession
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http")
    body = json.dumps({"do": "flood", "size": 32 * MIB})
    read = 0
    async with http.post(client.url + path, data=body) as answer:
        async for piece in answer.content.iter_any():
            read += len(piece)
            if read < MIB:
                await asyncio.sleep(0.01)
    assert read == 32 * MIB


async def test_a_caller_who_leaves_a_stream_stops_it(
    client: Client, app: str, hot_image: str, http: aiohttp.ClientSession
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http")
    body = json.dumps({"do": "stream", "pieces": ["x"] * 1000, "pause_s": 0.1})
    async with http.post(client.url + path, data=body) as answer:
        await answer.content.readany()
    record = await client.ended(answer.headers["X-Call-Id"])
    assert record["status"] == "cancelled"
    await echo(client, path, "after")


async def test_no_more_processes_than_max_concurrency(
    client: Client, app: str, hot_image: str
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http", max_concurrency=2)
    told = await asyncio.gather(*(echo(client, path, number) for number in range(40)))
    assert len({one["pid"] for one in told}) <= 2


async def test_an_async_call_of_a_hot_function_keeps_its_result(
    client: Client, app: str, hot_image: str
) -> None:
    path = await client.deploy(app, "/hot", hot_image, format="http", type="async")
    body = json.dumps({"do": "stream", "pieces": ["one", "two"]})
    accepted = await client.post(path, data=body)
    assert accepted.status == 202
    call_id = accepted.json()["call_id"]
    assert (await client.ended(call_id))["status"] == "success"
    assert (await client.get(f"/v1/calls/{call_id}/result")).text == "onetwo"
