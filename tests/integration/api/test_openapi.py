"""Is the OpenAPI document valid, complete, and true?"""

import json
from typing import Any

import msgspec
import pytest
from aiohttp import web
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse
from openapi_spec_validator import validate

from services.api.app import build_app, documented_paths
from services.api.handlers import meta
from services.api.settings import Settings
from shared import keys, messages, streams
from tests.conftest import eventually
from tests.integration.api.conftest import Client, Replica
from tests.integration.api.invoking import Api


def test_every_route_is_documented() -> None:
    routes = build_app(Settings()).router.resources()
    assert sorted(documented_paths()) == sorted(resource.canonical for resource in routes)


HELLO = {"route": {"path": "/hello", "image": "i", "config": {"A": "1"}, "headers": {"X": ["1"]}}}
#: Requests and the status each gets, one after the other.
VISITS: list[tuple[str, str, object, int]] = [
    ("GET", "/", None, 200),
    ("GET", "/version", None, 200),
    ("GET", "/v1/version", None, 200),
    ("GET", "/fn/download", None, 404),
    ("GET", "/fn/sha256", None, 404),
    ("GET", "/healthz", None, 200),
    ("GET", "/readyz", None, 200),
    ("GET", "/stats", None, 200),
    ("GET", "/tasks", None, 202),
    ("POST", "/v1/apps", {"app": {"name": "myapp"}}, 200),
    ("POST", "/v1/apps", {"app": {"name": "myapp"}}, 409),
    ("POST", "/v1/apps", {"app": {"name": "other", "x": 1, "config": {"A": None}}}, 200),
    ("POST", "/v1/apps", {"app": {"name": "a.b"}}, 400),
    ("GET", "/v1/apps", None, 200),
    ("GET", "/v1/apps?limit=1", None, 200),
    ("GET", "/v1/apps?limit=x", None, 400),
    ("GET", "/v1/apps/myapp", None, 200),
    ("GET", "/v1/apps/none", None, 404),
    ("PATCH", "/v1/apps/myapp", {"app": {"config": {"A": "1"}}}, 200),
    ("POST", "/v1/apps/myapp/routes", HELLO, 200),
    ("GET", "/v1/apps/myapp/routes", None, 200),
    ("GET", "/v1/routes?image=i", None, 200),
    ("GET", "/v1/apps/myapp/routes/hello", None, 200),
    ("PATCH", "/v1/apps/myapp/routes/hello", {"route": {"type": "async"}}, 200),
    ("POST", "/r/myapp/hello", "payload", 202),
    ("POST", "/r/myapp/none", "payload", 404),
    ("OPTIONS", "/r/myapp/hello", "payload", 202),
    ("OPTIONS", "/r/myapp/none", "payload", 404),
    ("DELETE", "/v1/apps/myapp/routes/hello", None, 200),
    ("DELETE", "/v1/apps/myapp/routes/hello", None, 404),
    ("GET", "/v1/apps/myapp/calls", None, 200),
    ("GET", "/v1/calls/none", None, 404),
    ("GET", "/v1/runners", None, 200),
    ("GET", "/v1/runners?limit=1", None, 200),
    ("GET", "/v1/runners?cursor=x", None, 400),
    ("DELETE", "/v1/apps/myapp", None, 200),
]


async def visited(client: Client, spec: OpenAPI, visit: tuple[str, str, object, int]) -> None:
    method, path, body, expected = visit
    data = None if body is None else json.dumps(body).encode()
    async with client.request(method, path, data=data) as answer:
        raw = await answer.read()
        assert answer.status == expected, (visit, raw)
        bare, _, query = path.partition("?")
        request = MockRequest(
            "http://127.0.0.1:8080",
            method.lower(),
            bare,
            args=dict(pair.split("=") for pair in query.split("&") if pair),
        )
        spec.validate_response(
            request, MockResponse(raw, answer.status, content_type=answer.content_type)
        )


async def test_what_is_answered_is_what_is_documented(client: Client, redis: streams.Redis) -> None:
    beat = messages.Heartbeat("r", "e", 1, 1024, 2.0, "x86_64", images=("i",))
    counts = (messages.SandboxCount("myapp", "/hello", "key", 1, 0, 0),)
    beat = msgspec.structs.replace(beat, sandboxes=counts)
    await redis.hset(keys.RUNNERS, "r", messages.encode(beat))
    async with client.get("/openapi.json") as answer:
        document: Any = await answer.json()
    validate(document)
    spec = OpenAPI.from_dict(document)

    async def ready() -> bool:
        async with client.get("/readyz") as answer:
            return answer.status == web.HTTPOk.status_code

    await eventually(ready)
    for visit in VISITS:
        await visited(client, spec, visit)


@pytest.mark.usefixtures("runner")
async def test_a_functions_answer_of_any_type_is_documented(api: Api) -> None:
    async with api.ask("GET", "/openapi.json") as answer:
        spec = OpenAPI.from_dict(await answer.json())
    for kind in ("image/png", "text/html"):
        path = await api.make(f"/{kind}", headers={"Content-Type": [kind]})
        for method in ("POST", "GET", "OPTIONS"):
            async with api.ask(method, path, data=b"x") as answer:
                assert (answer.status, answer.content_type) == (200, kind)
            request = MockRequest("http://127.0.0.1:8080", method.lower(), "/r/a/x")
            # The library takes no bytes for a string; it is the type that it looks up.
            spec.validate_response(request, MockResponse("x", 200, content_type=kind))


async def test_every_method_that_is_answered_is_documented(client: Client) -> None:
    paths = build_app(Settings())[meta.DOCUMENT]["paths"]
    for path in ("/healthz", "/readyz", "/metrics"):
        async with client.head(path) as answer:
            assert answer.status == web.HTTPOk.status_code
        assert "head" in paths[path]
    assert {"get", "head", "post", "put", "patch", "delete", "options"} <= set(paths["/r/{app}"])


async def test_refusals_are_documented(replica: Replica) -> None:
    client = await replica(jwt_auth_key="k")
    async with client.get("/openapi.json") as answer:
        spec = OpenAPI.from_dict(await answer.json())
    await visited(client, spec, ("GET", "/v1/apps", None, 401))


async def test_a_defect_is_answered_opaquely(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defect(_: object, __: object) -> None:
        raise ZeroDivisionError("a detail")

    monkeypatch.setattr("services.api.store.Store.app", defect)
    async with client.get("/v1/apps/myapp") as answer:
        body = await answer.json()
    assert answer.status == web.HTTPInternalServerError.status_code
    assert body["error"] == {"message": "Something unexpected happened on the server"}
    assert body["request_id"]
