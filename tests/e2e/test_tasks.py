"""Can an outside worker take async calls? On a platform without a runner."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest

from tests.e2e.client import Client
from tests.e2e.platforms import Platform


@pytest.fixture(scope="module")
def queue_only(new_platform: Callable[..., Any]) -> Iterator[Platform]:
    """An api and a scheduler: nobody but the test takes calls."""
    with new_platform() as platform:
        for service in [platform.add("api"), platform.add("scheduler")]:
            service.wait_ready()
        yield platform


@pytest.fixture
def worker(queue_only: Platform, http: aiohttp.ClientSession) -> Client:
    return Client(http, queue_only.url)


async def accept(client: Client, app: str, body: bytes, **fields: Any) -> str:
    """Have an async call accepted; return its id."""
    name = f"/x{len(body)}"
    await client.delete(f"/v1/apps/{app}/routes{name}")
    path = await client.deploy(app, name, "any/image", type="async", **fields)
    answer = await client.post(path, data=body, headers={"X-A": "1"})
    assert answer.status == 202
    return str(answer.json()["call_id"])


async def test_nothing_to_do_is_null(worker: Client) -> None:
    answer = await worker.get("/tasks")
    assert (answer.status, answer.json()) == (202, None)


async def test_the_oldest_is_reserved_and_acknowledged(worker: Client, app: str) -> None:
    first = await accept(worker, app, b"one", config={"K": "v"}, timeout=7)
    second = await accept(worker, app, b"three")
    answer = await worker.get("/tasks")
    task = answer.json()
    assert answer.status == 202
    expected = {
        "id": first,
        "image": "any/image",
        "app_name": app,
        "path": "/x3",
        "payload": "one",
        "timeout": 7,
    }
    assert expected.items() <= task.items()
    assert {"K": "v", "HEADER_X_A": "1", "METHOD": "POST"}.items() <= task["env_vars"].items()
    assert (await worker.get("/tasks")).json()["id"] == second
    assert (await worker.get("/tasks")).json() is None
    for call_id in (first, second):
        answer = await worker.delete("/tasks", json={"id": call_id})
        assert (answer.status, answer.json()["id"]) == (202, call_id)
        assert (await worker.ended(call_id))["status"] == "success"
        assert (await worker.delete("/tasks", json={"id": call_id})).status == 404


async def test_a_worker_may_say_that_it_failed(worker: Client, app: str) -> None:
    call_id = await accept(worker, app, b"x")
    task = (await worker.get("/tasks")).json()
    task |= {"status": "error", "error": "it broke", "reason": "bad_exit"}
    assert (await worker.delete("/tasks", json=task)).status == 202
    record = await worker.ended(call_id)
    assert (record["status"], record["error"]) == ("error", "it broke")


async def test_bytes_that_are_not_text_stay_themselves(worker: Client, app: str) -> None:
    call_id = await accept(worker, app, b"\xff\x00\xfe")
    task = (await worker.get("/tasks")).json()
    assert base64.b64decode(task["payload"]) == b"\xff\x00\xfe"
    assert task["payload_encoding"] == "base64"
    assert (await worker.delete("/tasks", json={"id": call_id})).status == 202


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"id": 1}', b"nonsense"])
async def test_a_bad_acknowledgement_is_400(worker: Client, body: bytes) -> None:
    answer = await worker.delete("/tasks", data=body)
    assert answer.status == 400
    assert answer.message
