"""Does each call leave the record it should, and can its state be watched?"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import pytest

from shared import clock
from tests.e2e import images
from tests.e2e.client import Client
from tests.e2e.conftest import World

Image = Callable[[str], str]


def moment_ms(text: str) -> float:
    """Return epoch ms of a record's time."""
    return datetime.fromisoformat(text).timestamp() * 1000


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_success(client: Client, app: str, function_image: Image, kind: str) -> None:
    image = function_image("echo noted >&2; sleep 1; echo answered")
    path = await client.deploy(app, "/x", image, type=kind)
    before_ms = clock.epoch_ms()
    call_id = (await client.post(path)).call_id
    record = await client.ended(call_id)
    expected = {
        "id": call_id,
        "app_name": app,
        "path": "/x",
        "type": kind,
        "status": "success",
        "exit_code": 0,
        "attempt": 1,
        "image": image,
        "image_digest": images.docker("image", "inspect", "-f", "{{.Id}}", image),
        "code": None,
    }
    assert expected.items() <= record.items()
    assert record["runner"]
    created, started, completed = (
        moment_ms(record[f"{name}_at"]) for name in ("created", "started", "completed")
    )
    assert before_ms - 1 <= created <= started <= completed <= clock.epoch_ms() + 1
    assert completed - started >= 990
    log = await client.get(f"/v1/calls/{call_id}/log")
    assert (log.status, log.text) == (200, "noted\n")
    result = await client.get(f"/v1/calls/{call_id}/result")
    if kind == "async":
        assert (result.status, result.text) == (200, "answered\n")
    else:
        assert result.status == 404


@pytest.mark.parametrize(
    ("script", "fields", "expected"),
    [
        ("exit 9", {}, {"code": "exit", "exit_code": 9}),
        ("kill -TERM $$; sleep 9", {}, {"code": "signal"}),
        ("exec sleep 100", {"timeout": 1}, {"code": "timeout"}),
        ("exec cat /dev/zero", {}, {"code": "too_large"}),
    ],
)
async def test_a_failure(
    client: Client,
    app: str,
    function_image: Image,
    *,
    script: str,
    fields: dict[str, int],
    expected: dict[str, object],
) -> None:
    path = await client.deploy(app, "/x", function_image(script), **fields)
    answer = await client.post(path)
    assert answer.code == expected["code"]
    record = await client.ended(answer.call_id)
    assert ({"status": "error"} | expected).items() <= record.items()
    assert record["error"] == answer.message


async def test_a_call_is_seen_while_it_runs(
    client: Client, app: str, world: World, function_image: Image
) -> None:
    script = "wget -q -O- http://$WORLD/begun >/dev/null; sleep 3"
    path = await client.deploy(app, "/x", function_image(script), config=world.config)
    calling = asyncio.create_task(client.post(path))
    await world.hit("/begun")
    await asyncio.sleep(0.7)
    [record] = await client.calls(app)
    assert record["status"] == "running"
    assert record["started_at"]
    assert (await client.get(f"/v1/calls/{record['id']}/log")).status == 409
    answer = await calling
    assert answer.call_id == record["id"]
    assert (await client.ended(record["id"]))["status"] == "success"


async def test_wait_returns_when_the_call_ends(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("sleep 2"), type="async")
    call_id = (await client.post(path)).call_id
    started = clock.monotonic_s()
    early = await client.record(call_id)
    assert early["status"] in {"queued", "running"}
    answer = await client.get(f"/v1/calls/{call_id}?wait=30")
    assert answer.json()["call"]["status"] == "success"
    assert 1.5 < clock.monotonic_s() - started < 15


async def test_a_large_result_is_cut_and_says_so(
    client: Client, app: str, function_image: Image
) -> None:
    image = function_image("exec head -c 3000000 /dev/zero")
    path = await client.deploy(app, "/x", image, type="async")
    call_id = (await client.post(path)).call_id
    assert (await client.ended(call_id))["status"] == "success"
    result = await client.get(f"/v1/calls/{call_id}/result")
    assert len(result.body) == 1024 * 1024
    assert result.headers["X-Truncated"] == "true"


async def test_calls_are_listed_newest_first_and_filtered(
    client: Client, app: str, function_image: Image
) -> None:
    good = await client.deploy(app, "/good", function_image("exec cat"))
    bad = await client.deploy(app, "/bad", function_image("exit 1"))
    made = [(await client.post(path)).call_id for path in (good, bad, good)]
    for call_id in made:
        await client.ended(call_id)
    assert [c["id"] for c in await client.calls(app)] == made[::-1]
    assert [c["id"] for c in await client.calls(app, path="/good")] == [made[2], made[0]]
    assert [c["id"] for c in await client.calls(app, status="error")] == [made[1]]
    assert [c["id"] for c in await client.calls(app, limit="1")] == made[::-1]
    second = (await client.record(made[1]))["created_at"]
    assert made[1] in [c["id"] for c in await client.calls(app, **{"from": second})]
    assert [c["id"] for c in await client.calls(app, to=second)] == [made[0]]


@pytest.mark.parametrize("query", ["status=odd", "from=yesterday", "limit=0", "cursor=~"])
async def test_bad_filters_are_400(client: Client, app: str, query: str) -> None:
    answer = await client.get(f"/v1/apps/{app}/calls?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer.message


@pytest.mark.parametrize("call_id", ["nonsense", "01938f6e-0000-7000-8000-000000000000"])
async def test_an_unknown_call_is_404(client: Client, call_id: str) -> None:
    for what in ("", "/log", "/result"):
        answer = await client.get(f"/v1/calls/{call_id}{what}")
        assert (answer.status, answer.message) == (404, "Call not found")
