"""Are apps and routes managed as clients of the original expect, and as it should have been?"""

import asyncio
import io
import json
from typing import Any

from yarl import URL

from services.api.handlers import meta
from tests.integration.api.conftest import Client, Replica

HELLO = {"route": {"path": "/hello", "image": "millrace/hello"}}


async def ask(client: Client, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Send a request as curl does and return status and JSON."""
    data = body if isinstance(body, bytes | io.BytesIO | None) else json.dumps(body).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url = URL(path, encoded=True)
    async with client.request(
        method, url, data=data, headers=headers, allow_redirects=False
    ) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


def problem(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": {"message": message}}


async def test_an_app_lives_and_dies(client: Client) -> None:
    made = {"name": "myapp", "config": {"A": "1", "B": "2"}}
    assert await ask(client, "POST", "/v1/apps", {"app": made}) == (
        200,
        {"message": "App successfully created", "app": made},
    )
    patch = {"app": {"config": {"A": "", "C": "3"}}}
    changed = {"name": "myapp", "config": {"B": "2", "C": "3"}}
    assert await ask(client, "PATCH", "/v1/apps/myapp", patch) == (
        200,
        {"message": "App successfully updated", "app": changed},
    )
    assert await ask(client, "GET", "/v1/apps/myapp") == (
        200,
        {"message": "Successfully loaded app", "app": changed},
    )
    assert await ask(client, "GET", "/v1/apps") == (
        200,
        {"message": "Successfully listed applications", "apps": [changed]},
    )
    assert await ask(client, "DELETE", "/v1/apps/myapp") == (200, {"message": "App deleted"})
    assert await ask(client, "GET", "/v1/apps/myapp") == problem(404, "App not found")


async def test_a_route_sent_back_whole_had_its_headers_doubled(client: Client) -> None:
    route = {**HELLO["route"], "headers": {"X-A": ["a", "b"]}}
    _, made = await ask(client, "POST", "/v1/apps/myapp/routes", {"route": route})
    path = "/v1/apps/myapp/routes/hello"
    whole = {name: value for name, value in made["route"].items() if name != "path"}
    _, changed = await ask(client, "PATCH", path, {"route": whole})
    assert changed["route"]["headers"] == {"X-A": ["a", "b"]}
    added = {"route": {"headers": {"x-a": ["b", "c"]}}}
    _, changed = await ask(client, "PATCH", path, added)
    assert changed["route"]["headers"] == {"X-A": ["a", "b", "c"]}


async def test_a_route_lives_and_dies(client: Client) -> None:
    status, made = await ask(client, "POST", "/v1/apps/myapp/routes", HELLO)
    assert status == 200
    assert made == {
        "message": "Route successfully created",
        "route": {
            "app_name": "myapp",
            "path": "/hello",
            "image": "millrace/hello",
            "memory": 128,
            "cpus": 1.0,
            "headers": {},
            "type": "sync",
            "format": "default",
            "max_concurrency": 1,
            "timeout": 30,
            "idle_timeout": 30,
            "config": {},
            "jwt_key": "",
            "isolation": "sandbox",
            "min_sandboxes": 0,
            "max_attempts": 3,
            "retries": 0,
            "retry_delay": 1,
            "previous_images": [],
        },
    }
    patch = {"route": {"timeout": 60, "memory": 0, "headers": {"x-a": ["1"]}, "jwt_key": "k"}}
    changed = {**made["route"], "timeout": 60, "headers": {"X-A": ["1"]}, "jwt_key": "k"}
    assert await ask(client, "PATCH", "/v1/apps/myapp/routes/hello", patch) == (
        200,
        {"message": "Route successfully updated", "route": changed},
    )
    assert await ask(client, "GET", "/v1/apps/myapp/routes/hello") == (
        200,
        {"message": "Successfully loaded route", "route": changed},
    )
    for path in ("/v1/apps/myapp/routes", "/v1/routes"):
        assert await ask(client, "GET", path) == (
            200,
            {"message": "Sucessfully listed routes", "routes": [changed]},
        )
    assert await ask(client, "DELETE", "/v1/apps/myapp") == problem(
        400, "Cannot remove apps with routes"
    )
    assert await ask(client, "DELETE", "/v1/apps/myapp/routes/hello") == (
        200,
        {"message": "Route deleted"},
    )
    assert await ask(client, "DELETE", "/v1/apps/myapp/routes/hello") == problem(
        404, "Route not found"
    )
    assert (await ask(client, "DELETE", "/v1/apps/myapp"))[0] == 200
    assert await ask(client, "DELETE", "/v1/apps/myapp") == problem(404, "App not found")
    assert await ask(client, "DELETE", "/v1/apps/myapp/routes/hello") == problem(
        404, "App not found"
    )
    assert await ask(client, "GET", "/v1/apps/myapp/routes") == (
        200,
        {"message": "Sucessfully listed routes", "routes": []},
    )


async def test_how_calls_share_sandboxes_is_kept_and_can_be_taken_back(client: Client) -> None:
    chosen = {"format": "http-stream", "isolation": "call", "min_sandboxes": 3}
    body = {"route": {**HELLO["route"], **chosen}}
    status, made = await ask(client, "POST", "/v1/apps/myapp/routes", body)
    assert status == 200
    assert chosen.items() <= made["route"].items()
    for patch, expected in (
        ({"timeout": 5}, 3),
        ({"min_sandboxes": None}, 3),
        ({"min_sandboxes": 0}, 0),
    ):
        url = "/v1/apps/myapp/routes/hello"
        status, changed = await ask(client, "PATCH", url, {"route": patch})
        assert status == 200
        assert changed["route"]["min_sandboxes"] == expected
    assert (await ask(client, "GET", "/v1/apps/myapp/routes/hello"))[1]["route"] == {
        **made["route"],
        "timeout": 5,
        "min_sandboxes": 0,
    }


async def test_a_route_knows_what_its_image_was_before(client: Client) -> None:
    url = "/v1/apps/myapp/routes/hello"
    pinned = f"127.0.0.1:5000/me/hello:0.0.2@sha256:{'0' * 64}"
    await ask(client, "POST", "/v1/apps/myapp/routes", HELLO)
    for image, previous in (
        (pinned, ["millrace/hello"]),
        ("", ["millrace/hello"]),
        (pinned, ["millrace/hello"]),
        ("millrace/hello", [pinned, "millrace/hello"]),
    ):
        status, answer = await ask(client, "PATCH", url, {"route": {"image": image, "timeout": 9}})
        assert (status, answer["route"]["previous_images"]) == (200, previous)
    assert (await ask(client, "GET", url))[1]["route"] == answer["route"]


async def test_previous_images_cannot_be_set(client: Client) -> None:
    warnings = ["route.previous_images ignored: it is read-only"]
    body = {"route": {**HELLO["route"], "previous_images": ["evil"]}}
    _, made = await ask(client, "POST", "/v1/apps/myapp/routes", body)
    assert (made["warnings"], made["route"]["previous_images"]) == (warnings, [])
    patch = {"route": {"image": "new", "previous_images": ["evil"]}}
    _, changed = await ask(client, "PATCH", "/v1/apps/myapp/routes/hello", patch)
    assert changed["warnings"] == warnings
    assert changed["route"]["previous_images"] == ["millrace/hello"]


async def test_the_version_tells_where_the_hub_is(replica: Replica) -> None:
    client = await replica(hub="127.0.0.1:5000")
    assert await ask(client, "GET", "/v1/version") == (
        200,
        {"version": meta.VERSION, "hub": "127.0.0.1:5000"},
    )


async def test_the_guides_commands_work_verbatim(client: Client) -> None:
    app = b"""{
          "app": {
              "name": "etcd_v3",
              "config": {\x20
                  "ETCD_SERVER": "'$ETCD_SERVER'",
              }
          }
      }"""
    route = """{
          "route": {
              "image": "<镜像名>",
              "path": "/command",
          }
      }""".encode()
    status, made = await ask(client, "POST", "/v1/apps", app)
    assert (status, made["app"]["config"]) == (200, {"ETCD_SERVER": "'$ETCD_SERVER'"})
    status, made = await ask(client, "POST", "/v1/apps/etcd_v3/routes", route)
    assert (status, made["route"]["image"]) == (200, "<镜像名>")


WRONG: list[tuple[str, str, object, str]] = [
    ("POST", "/v1/apps", b"{}", "Missing new application"),
    ("POST", "/v1/apps", b"null", "Missing new application"),
    ("POST", "/v1/apps", b'{"app": {}}', "validation failure list:\nMissing app name"),
    (
        "POST",
        "/v1/apps",
        {"app": {"name": "a" * 31}},
        "validation failure list:\nApp name must be 30 characters or less",
    ),
    ("POST", "/v1/apps", {"app": {"name": "a.b"}}, "validation failure list:\nInvalid app name"),
    ("POST", "/v1/apps", b'{\n "app" 1}', "Invalid JSON: line 2 column 8: Expecting ':' delimiter"),
    (
        "POST",
        "/v1/apps",
        {"app": {"name": 5}},
        'Invalid JSON: app.name must be a string: write "5"',
    ),
    ("POST", "/v1/apps/a/routes", b"{}", "Missing new route"),
    (
        "POST",
        "/v1/apps/a/routes",
        {"route": {"path": "x", "timeout": -1}},
        (
            "validation failure list:\nvalidation failure list:\n"
            "Missing route Image\nInvalid Path format\nNegative timeout"
        ),
    ),
    (
        "POST",
        "/v1/apps/a.b/routes",
        HELLO,
        "validation failure list:\nInvalid app name",
    ),
    ("PATCH", "/v1/apps/a", {"app": {"name": "b"}}, "Could not update app - name is immutable"),
    (
        "PATCH",
        "/v1/apps/a/routes/b",
        {"route": {"path": "/c"}},
        "Could not update route - path is immutable",
    ),
    (
        "GET",
        "/v1/apps?limit=0",
        None,
        "limit must be a whole number from 1 to 1000, not '0'",
    ),
    (
        "GET",
        "/v1/routes?cursor=x",
        None,
        "cursor must be a next_cursor of the same list, unchanged",
    ),
]


async def test_what_is_wrong_is_400_and_said(client: Client) -> None:
    answers = [await ask(client, method, path, body) for method, path, body, _ in WRONG]
    assert answers == [problem(400, message) for *_, message in WRONG]


async def test_the_unknown_is_a_json_string(client: Client) -> None:
    unknown = (
        ("GET", "/nowhere"),
        ("PUT", "/v1/apps"),
        ("OPTIONS", "/v1/apps/a"),
        ("DELETE", "/v1/routes"),
        ("POST", "/v1/apps/a"),
        ("GET", "/v1/nowhere/"),
    )
    for method, path in unknown:
        assert await ask(client, method, path) == (404, "Not Found"), (method, path)


async def test_head_is_unknown(client: Client) -> None:
    assert await ask(client, "HEAD", "/v1/apps") == (404, None)


async def test_slashes_at_the_end_are_redirected(client: Client) -> None:
    redirected = (
        ("GET", "/v1/apps/?limit=1", 301, "/v1/apps?limit=1"),
        ("POST", "/v1/apps/", 307, "/v1/apps"),
        ("GET", "/v1/routes/", 301, "/v1/routes"),
        ("DELETE", "/v1/apps/a/", 307, "/v1/apps/a"),
        ("DELETE", "/v1/apps/a/routes", 307, "/v1/apps/a/routes/"),
        ("GET", "/version/", 301, "/version"),
    )
    for method, path, status, location in redirected:
        async with client.request(method, path, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (status, location)


async def test_one_route_has_many_spellings(client: Client) -> None:
    route = {"route": {"path": "//a/b%20c/../d/", "image": "i"}}
    status, made = await ask(client, "POST", "/v1/apps/myapp/routes", route)
    assert (status, made["route"]["path"]) == (200, "/a/d")
    for spelling in ("a/d", "/a/d", "%2Fa%2Fd", "a//d/", "x/../a/d"):
        assert (await ask(client, "GET", f"/v1/apps/myapp/routes/{spelling}"))[0] == 200, spelling
    assert (await ask(client, "GET", "/v1/apps/myapp/routes/%zz"))[0] == 404


async def test_a_space_at_the_end_is_another_name(client: Client) -> None:
    """MySQL compares without it: what was asked for was another app's or route's."""
    await ask(client, "POST", "/v1/apps/myapp/routes", {"route": {"path": "/a", "image": "i"}})
    change = {"app": {"config": {"A": "1"}}, "route": {"config": {"A": "1"}}}
    for method, body in (("GET", None), ("PATCH", change), ("DELETE", None)):
        for path in ("/v1/apps/myapp%20", "/v1/apps/myapp/routes/a%20"):
            assert (await ask(client, method, path, body))[0] == 404, (method, path)
    assert (await ask(client, "GET", "/v1/apps/myapp%20/routes"))[1]["routes"] == []
    assert (await ask(client, "GET", "/v1/apps/myapp"))[1]["app"]["config"] is None
    assert (await ask(client, "GET", "/v1/apps/myapp/routes/a"))[0] == 200


async def test_names_differ_by_case_and_accent(client: Client) -> None:
    for app in ("hello", "Hello"):
        for path in ("/e", "/E", "/é"):
            route = {"route": {"path": path, "image": "i"}}
            assert (await ask(client, "POST", f"/v1/apps/{app}/routes", route))[0] == 200
    assert len((await ask(client, "GET", "/v1/routes"))[1]["routes"]) == 6


async def test_pages_go_through_a_list(client: Client) -> None:
    for app in ("a", "b"):
        for path in ("/1", "/2", "/3"):
            route = {"route": {"path": path, "image": f"image{path}"}}
            await ask(client, "POST", f"/v1/apps/{app}/routes", route)
    found: list[tuple[str, str]] = []
    cursor = ""
    for _ in range(3):
        _, page = await ask(client, "GET", f"/v1/routes?limit=2&cursor={cursor}")
        found += [(r["app_name"], r["path"]) for r in page["routes"]]
        cursor = page["next_cursor"]
    assert (found, cursor) == ([(a, p) for a in "ab" for p in ("/1", "/2", "/3")], "")
    _, page = await ask(client, "GET", "/v1/routes?image=image/2")
    assert [r["app_name"] for r in page["routes"]] == ["a", "b"]
    assert "next_cursor" not in page
    _, page = await ask(client, "GET", "/v1/apps?limit=1")
    _, page = await ask(client, "GET", f"/v1/apps?cursor={page['next_cursor']}")
    assert [a["name"] for a in page["apps"]] == ["b"]


async def test_unknown_fields_are_named(client: Client) -> None:
    body = {"App": {"NAME": "myapp", "colour": 1}, "more": 2}
    _, answer = await ask(client, "POST", "/v1/apps", body)
    assert answer["warnings"] == [
        "unknown field more ignored",
        "unknown field app.colour ignored",
    ]
    route = {"route": {"path": "/a", "image": "i", "memroy": 5, "app_name": "other"}}
    _, answer = await ask(client, "POST", "/v1/apps/myapp/routes", route)
    assert answer["warnings"] == [
        "unknown field route.memroy ignored; did you mean route.memory?",
        "route.app_name ignored: the app is the one in the URL",
    ]


async def test_large_bodies_are_413(client: Client) -> None:
    status, answer = await ask(client, "POST", "/v1/apps", io.BytesIO(b" " * (1024 * 1024 + 1)))
    assert (status, answer["error"]["message"]) == (
        413,
        "The request body is over the limit of 1048576 bytes",
    )


async def test_of_two_that_make_a_route_at_once_one_wins(replica: Replica) -> None:
    clients = [await replica(), await replica()]
    made = await asyncio.gather(
        *(ask(c, "POST", "/v1/apps/myapp/routes", HELLO) for c in clients * 5)
    )
    assert sorted(status for status, _ in made) == [200] + [409] * 9
    made = await asyncio.gather(
        *(ask(c, "POST", "/v1/apps", {"app": {"name": "other"}}) for c in clients * 5)
    )
    assert sorted(status for status, _ in made) == [200] + [409] * 9


async def test_concurrent_changes_do_not_lose_each_other(replica: Replica) -> None:
    clients = [await replica(), await replica()]
    await ask(clients[0], "POST", "/v1/apps/myapp/routes", HELLO)

    async def set_keys(number: int) -> None:
        client, config = clients[number % 2], {"config": {f"K{number}": "1"}}
        path = "/v1/apps/myapp/routes/hello"
        assert (await ask(client, "PATCH", path, {"route": config}))[0] == 200
        assert (await ask(client, "PATCH", "/v1/apps/myapp", {"app": config}))[0] == 200

    await asyncio.gather(*(set_keys(n) for n in range(20)))
    _, route = await ask(clients[0], "GET", "/v1/apps/myapp/routes/hello")
    _, app = await ask(clients[0], "GET", "/v1/apps/myapp")
    assert len(route["route"]["config"]) == len(app["app"]["config"]) == 20


async def test_a_change_with_no_effect_is_200(client: Client) -> None:
    await ask(client, "POST", "/v1/apps/myapp/routes", HELLO)
    bodies: list[Any] = [{"route": {}}, {"route": {"timeout": 30}}]
    for body in bodies:
        path = "/v1/apps/myapp/routes/hello"
        assert (await ask(client, "PATCH", path, body))[0] == 200
    assert (await ask(client, "PATCH", "/v1/apps/myapp", {"app": {}}))[0] == 200


async def test_the_front_page_version_and_health(client: Client) -> None:
    assert await ask(client, "GET", "/") == (
        200,
        {"goto": "https://github.com/iron-io/functions", "hello": "world!"},
    )
    for path in ("/version", "/v1/version"):
        assert await ask(client, "GET", path) == (200, {"version": meta.VERSION, "hub": ""})
    assert await ask(client, "GET", "/healthz") == (200, {"status": "ok"})
    async with client.get("/metrics") as response:
        text = await response.text()
    assert 'millrace_http_requests_total{handler="/version",method="GET",status="200"}' in text
