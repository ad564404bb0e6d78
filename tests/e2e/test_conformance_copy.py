"""Does the platform answer as IronFunctions did, where clients depend on it? One fact a test."""

from collections.abc import Callable
from typing import Any

import pytest
from yarl import URL

from tests.e2e.client import Client

Image = Callable[[str], str]
CAT = "exec cat"
ENV = "exec env"


def variables(text: str) -> dict[str, str]:
    """Return what `env` printed; values of these tests have no newlines."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


async def make_route(client: Client, app: str, **fields: Any) -> dict[str, Any]:
    """Make a route /x and return it as the platform tells it."""
    route = {"path": "/x", "image": "any/image", **fields}
    answer = await client.post(f"/v1/apps/{app}/routes", json={"route": route})
    assert answer.status == 200, answer.text
    return dict(answer.json()["route"])


# The server itself.


async def test_root_says_hello(client: Client) -> None:
    answer = await client.get("/")
    assert answer.status == 200
    assert answer.json() == {"goto": "https://github.com/iron-io/functions", "hello": "world!"}


async def test_version(client: Client) -> None:
    answer = await client.get("/version")
    assert answer.status == 200
    assert isinstance(answer.json()["version"], str)


async def test_stats_have_capitals(client: Client) -> None:
    answer = await client.get("/stats")
    assert answer.status == 200
    assert {"Queue", "Running", "Complete"} <= set(answer.json())


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_an_unknown_path_is_404_and_a_json_string(client: Client, method: str) -> None:
    answer = await client.ask(method, "/no/such/page")
    assert answer.status == 404
    assert answer.json() == "Not Found"


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "DELETE"])
async def test_an_unknown_method_is_404_never_405(client: Client, method: str) -> None:
    answer = await client.ask(method, "/v1/apps")
    assert answer.status == 404
    assert answer.json() == "Not Found"


async def test_head_of_management_is_404(client: Client) -> None:
    assert (await client.ask("HEAD", "/v1/apps")).status == 404


async def test_a_trailing_slash_is_redirected(client: Client) -> None:
    answer = await client.get("/v1/apps/")
    assert answer.status == 301
    assert answer.headers["Location"].endswith("/v1/apps")
    assert (await client.post("/v1/apps/", json={})).status == 307


# Apps.


async def test_apps_are_made_with_200(client: Client, app: str) -> None:
    answer = await client.post("/v1/apps", json={"app": {"name": app, "config": {"A": "1"}}})
    assert answer.status == 200
    assert answer.json() == {
        "message": "App successfully created",
        "app": {"name": app, "config": {"A": "1"}},
    }


async def test_config_of_an_app_made_without_any_is_null(client: Client, app: str) -> None:
    assert (await client.create_app(app))["config"] is None


async def test_apps_are_listed(client: Client, app: str) -> None:
    await client.create_app(app)
    answer = await client.get("/v1/apps")
    assert answer.status == 200
    assert answer.json()["message"] == "Successfully listed applications"
    assert app in [a["name"] for a in answer.json()["apps"]]


async def test_an_app_is_loaded(client: Client, app: str) -> None:
    await client.create_app(app, config={"A": "1"})
    answer = await client.get(f"/v1/apps/{app}")
    assert answer.status == 200
    assert answer.json()["message"] == "Successfully loaded app"
    assert answer.json()["app"] == {"name": app, "config": {"A": "1"}}


async def test_an_unknown_app_is_404(client: Client, app: str) -> None:
    answer = await client.get(f"/v1/apps/{app}")
    assert (answer.status, answer.json()) == (404, {"error": {"message": "App not found"}})


async def test_a_second_app_of_the_name_is_409(client: Client, app: str) -> None:
    await client.create_app(app)
    answer = await client.post("/v1/apps", json={"app": {"name": app}})
    assert (answer.status, answer.message) == (409, "App already exists")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "Missing new application"),
        (b"null", "Missing new application"),
        (b'{"app": null}', "Missing new application"),
        (b'{"app": {}}', "Missing app name"),
        (b'{"app": {"name": "%s"}}' % (b"a" * 31), "App name must be 30 characters or less"),
        (b'{"app": {"name": "a b"}}', "Invalid app name"),
        (b'{"app": {"name": "a/b"}}', "Invalid app name"),
        (b'{"app": {"name": "a.b"}}', "Invalid app name"),
        (b'{"app"', "Invalid JSON"),
        (b"", "Invalid JSON"),
    ],
)
async def test_bad_apps_are_400(client: Client, body: bytes, message: str) -> None:
    answer = await client.post("/v1/apps", data=body)
    assert answer.status == 400
    assert message in answer.message


async def test_app_validation_messages_have_their_prefix(client: Client) -> None:
    answer = await client.post("/v1/apps", json={"app": {}})
    assert answer.message.startswith("validation failure list:\n")


async def test_a_name_of_30_is_allowed(client: Client, app: str) -> None:
    name = (app + "_" * 30)[:30]
    assert (await client.create_app(name))["name"] == name


async def test_patch_merges_config_and_empty_deletes(client: Client, app: str) -> None:
    await client.create_app(app, config={"keep": "1", "change": "1", "drop": "1"})
    patch = {"app": {"config": {"change": "2", "drop": "", "add": "3"}}}
    answer = await client.patch(f"/v1/apps/{app}", json=patch)
    assert answer.status == 200
    assert answer.json() == {
        "message": "App successfully updated",
        "app": {"name": app, "config": {"keep": "1", "change": "2", "add": "3"}},
    }


async def test_an_apps_name_is_immutable(client: Client, app: str) -> None:
    await client.create_app(app)
    answer = await client.patch(f"/v1/apps/{app}", json={"app": {"name": app}})
    assert (answer.status, answer.message) == (400, "Could not update app - name is immutable")


async def test_patch_of_an_unknown_app_is_404(client: Client, app: str) -> None:
    answer = await client.patch(f"/v1/apps/{app}", json={"app": {"config": {}}})
    assert (answer.status, answer.message) == (404, "App not found")


async def test_patch_without_an_app_is_400(client: Client, app: str) -> None:
    await client.create_app(app)
    answer = await client.patch(f"/v1/apps/{app}", json={})
    assert (answer.status, answer.message) == (400, "Missing new application")


async def test_an_app_is_deleted(client: Client, app: str) -> None:
    await client.create_app(app)
    answer = await client.delete(f"/v1/apps/{app}")
    assert (answer.status, answer.json()) == (200, {"message": "App deleted"})
    assert (await client.get(f"/v1/apps/{app}")).status == 404


async def test_an_app_with_routes_stays(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.delete(f"/v1/apps/{app}")
    assert (answer.status, answer.message) == (400, "Cannot remove apps with routes")


# Routes.


async def test_a_route_makes_its_app(client: Client, app: str) -> None:
    answer = await client.post(
        f"/v1/apps/{app}/routes", json={"route": {"path": "/x", "image": "any/image"}}
    )
    assert answer.status == 200
    assert answer.json()["message"] == "Route successfully created"
    assert (await client.get(f"/v1/apps/{app}")).status == 200


async def test_a_route_has_defaults(client: Client, app: str) -> None:
    route = await make_route(client, app)
    expected = {
        "app_name": app,
        "path": "/x",
        "image": "any/image",
        "memory": 128,
        "type": "sync",
        "format": "default",
        "max_concurrency": 1,
        "timeout": 30,
        "config": {},
    }
    assert expected.items() <= route.items()


async def test_a_second_route_of_the_path_is_409(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.post(
        f"/v1/apps/{app}/routes", json={"route": {"path": "/x", "image": "any/other"}}
    )
    assert (answer.status, answer.message) == (409, "Route already exists")


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ({"path": "/x"}, "Missing route Image"),
        ({"image": "i"}, "Missing route Path"),
        ({"path": "x", "image": "i"}, "Invalid Path format"),
        ({"path": "/a/:b", "image": "i"}, "Dynamic URL is not allowed"),
        ({"path": "/x", "image": "i", "type": "later"}, "Invalid route Type"),
        ({"path": "/x", "image": "i", "format": "xml"}, "Invalid route Format"),
        ({"path": "/x", "image": "i", "timeout": -1}, "Negative timeout"),
        ({"path": "/x", "image": "i", "idle_timeout": -1}, "Negative idle timeout"),
        ({"path": "/x", "image": "i", "max_concurrency": -1}, "Negative MaxConcurrency"),
    ],
)
async def test_bad_routes_are_400(
    client: Client, app: str, route: dict[str, Any], message: str
) -> None:
    answer = await client.post(f"/v1/apps/{app}/routes", json={"route": route})
    assert answer.status == 400
    assert message in answer.message
    assert answer.message.startswith("validation failure list:\nvalidation failure list:\n")


async def test_several_mistakes_are_told_together(client: Client, app: str) -> None:
    bad = {"path": "x", "timeout": -1}
    answer = await client.post(f"/v1/apps/{app}/routes", json={"route": bad})
    for message in ("Missing route Image", "Invalid Path format", "Negative timeout"):
        assert message in answer.message.split("\n")


async def test_a_route_missing_from_the_body_is_400(client: Client, app: str) -> None:
    answer = await client.post(f"/v1/apps/{app}/routes", json={})
    assert (answer.status, answer.message) == (400, "Missing new route")


async def test_a_bad_name_of_an_app_to_be_made_is_told(client: Client) -> None:
    answer = await client.post("/v1/apps/a.b/routes", json={"route": {"path": "/x", "image": "i"}})
    assert answer.status == 400
    assert "Invalid app name" in answer.message


async def test_the_list_of_routes_has_its_typo(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.get(f"/v1/apps/{app}/routes")
    assert answer.status == 200
    assert answer.json()["message"] == "Sucessfully listed routes"
    assert [r["path"] for r in answer.json()["routes"]] == ["/x"]


async def test_routes_are_found_by_image(client: Client, app: str) -> None:
    await make_route(client, app, path="/a", image="one/image")
    await make_route(client, app, path="/b", image="one/image:2")
    answer = await client.get(f"/v1/apps/{app}/routes?image=one/image")
    assert [r["path"] for r in answer.json()["routes"]] == ["/a"]


async def test_routes_of_an_unknown_app_are_an_empty_list(client: Client, app: str) -> None:
    answer = await client.get(f"/v1/apps/{app}/routes")
    assert (answer.status, answer.json()["routes"]) == (200, [])


async def test_a_route_is_loaded(client: Client, app: str) -> None:
    made = await make_route(client, app, path="/a/b", timeout=5)
    answer = await client.get(f"/v1/apps/{app}/routes/a/b")
    assert answer.status == 200
    assert answer.json() == {"message": "Successfully loaded route", "route": made}


@pytest.mark.parametrize("written", ["%2Fa", "/a", "a", "b/../a", "./a"])
async def test_spellings_of_one_route(client: Client, app: str, written: str) -> None:
    await make_route(client, app, path="/a")
    url = URL(f"{client.url}/v1/apps/{app}/routes/{written}", encoded=True)
    async with client.session.get(url) as response:
        assert response.status == 200
        assert (await response.json())["route"]["path"] == "/a"


async def test_an_unknown_route_is_404(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.get(f"/v1/apps/{app}/routes/y")
    assert (answer.status, answer.json()) == (404, {"error": {"message": "Route not found"}})


async def test_patch_replaces_what_is_not_zero(client: Client, app: str) -> None:
    await make_route(client, app, timeout=5, memory=64)
    patch = {"route": {"image": "other/image", "timeout": 0, "memory": 256}}
    answer = await client.patch(f"/v1/apps/{app}/routes/x", json=patch)
    assert answer.status == 200
    assert answer.json()["message"] == "Route successfully updated"
    expected = {"image": "other/image", "timeout": 5, "memory": 256}
    assert expected.items() <= answer.json()["route"].items()


async def test_patch_merges_the_routes_config(client: Client, app: str) -> None:
    await make_route(client, app, config={"keep": "1", "drop": "1"})
    patch = {"route": {"config": {"drop": "", "add": "2"}}}
    answer = await client.patch(f"/v1/apps/{app}/routes/x", json=patch)
    assert answer.json()["route"]["config"] == {"keep": "1", "add": "2"}


async def test_patch_adds_header_values_and_an_empty_list_deletes(client: Client, app: str) -> None:
    await make_route(client, app, headers={"X-Keep": ["1"], "X-Drop": ["1"]})
    patch = {"route": {"headers": {"X-Keep": ["2"], "X-Drop": []}}}
    answer = await client.patch(f"/v1/apps/{app}/routes/x", json=patch)
    assert answer.json()["route"]["headers"] == {"X-Keep": ["1", "2"]}


async def test_a_routes_path_is_immutable(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.patch(f"/v1/apps/{app}/routes/x", json={"route": {"path": "/y"}})
    assert (answer.status, answer.message) == (400, "Could not update route - path is immutable")


async def test_patch_of_an_unknown_route_is_404(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.patch(f"/v1/apps/{app}/routes/y", json={"route": {"timeout": 5}})
    assert (answer.status, answer.message) == (404, "Route not found")


async def test_patch_validates(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.patch(f"/v1/apps/{app}/routes/x", json={"route": {"timeout": -5}})
    assert answer.status == 400
    assert "Negative timeout" in answer.message


async def test_a_route_is_deleted(client: Client, app: str) -> None:
    await make_route(client, app)
    answer = await client.delete(f"/v1/apps/{app}/routes/x")
    assert (answer.status, answer.json()) == (200, {"message": "Route deleted"})
    assert (await client.get(f"/v1/apps/{app}/routes/x")).status == 404


# What bodies may look like.


async def test_keys_match_in_any_case(client: Client, app: str) -> None:
    answer = await client.post("/v1/apps", json={"App": {"NAME": app}})
    assert answer.status == 200
    assert answer.json()["app"]["name"] == app


async def test_text_after_the_first_value_is_ignored(client: Client, app: str) -> None:
    body = f'{{"app": {{"name": "{app}"}}}} and more'
    assert (await client.post("/v1/apps", data=body)).status == 200


async def test_unknown_fields_are_ignored_and_named(client: Client, app: str) -> None:
    answer = await client.post("/v1/apps", json={"app": {"name": app, "colour": "red"}})
    assert answer.status == 200
    assert any("colour" in warning for warning in answer.json()["warnings"])


async def test_trailing_commas_and_curls_content_type(client: Client, app: str) -> None:
    body = f'{{ "app": {{ "name": "{app}", "config": {{ "A": "1", }} }} }}'
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.post("/v1/apps", data=body.encode(), headers=headers)
    assert answer.status == 200
    assert answer.json()["app"]["config"] == {"A": "1"}


# Calls.


async def test_a_body_comes_back(client: Client, app: str, function_image: Image) -> None:
    path = await client.deploy(app, "/x", function_image(CAT))
    answer = await client.post(path, data=b"hello")
    assert (answer.status, answer.body) == (200, b"hello")


async def test_a_get_has_its_payload_in_the_query(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT))
    answer = await client.get(path, params={"payload": "hi there"})
    assert (answer.status, answer.body) == (200, b"hi there")


async def test_spellings_of_one_path_call_it(
    client: Client, app: str, function_image: Image
) -> None:
    await client.deploy(app, "/a", function_image(CAT))
    for written in ("%2Fa", "/a", "b/../a"):
        url = URL(f"{client.url}/r/{app}/{written}", encoded=True)
        async with client.session.post(url, data=b"x", allow_redirects=False) as response:
            assert (response.status, await response.read()) == (200, b"x"), written


async def test_calls_of_the_unknown_are_404(client: Client, app: str) -> None:
    answer = await client.post(f"/r/{app}/x")
    assert (answer.status, answer.message) == (404, "App not found")
    await make_route(client, app)
    answer = await client.post(f"/r/{app}/y")
    assert (answer.status, answer.message) == (404, "Route not found on that application")


async def test_the_environment_of_a_call(client: Client, app: str, function_image: Image) -> None:
    await client.create_app(app, config={"db-host": "of the app", "both": "app"})
    path = await client.deploy(app, "/env", function_image(ENV), config={"both": "route"})
    headers = [("X-Tag", "1"), ("X-Tag", "2"), ("X-Other", "3")]
    env = variables((await client.post(path, headers=headers)).text)
    expected = {
        "METHOD": "POST",
        "ROUTE": "/env",
        "DB_HOST": "of the app",
        "BOTH": "route",
        "HEADER_X_TAG": "1 2",
        "HEADER_X_OTHER": "3",
    }
    assert expected.items() <= env.items()
    assert "HEADER_HOST" not in env


async def test_config_overrides_and_headers_override_config(
    client: Client, app: str, function_image: Image
) -> None:
    config = {"METHOD": "CONFIGURED", "header-x-a": "configured"}
    path = await client.deploy(app, "/env", function_image(ENV), config=config)
    env = variables((await client.post(path, headers={"X-A": "asked"})).text)
    assert env["METHOD"] == "CONFIGURED"
    assert env["HEADER_X_A"] == "asked"


async def test_an_exit_code_is_500(client: Client, app: str, function_image: Image) -> None:
    path = await client.deploy(app, "/x", function_image("echo lost; exit 3"))
    answer = await client.post(path)
    assert (answer.status, answer.message) == (500, "exit code 3")
    assert answer.json()["request_id"] == answer.call_id


async def test_a_timeout_is_504(client: Client, app: str, function_image: Image) -> None:
    path = await client.deploy(app, "/x", function_image("exec sleep 100"), timeout=1)
    answer = await client.post(path)
    assert (answer.status, answer.message) == (504, "Timed out")
    assert answer.json()["request_id"] == answer.call_id


async def test_an_image_that_cannot_be_pulled_is_500(client: Client, app: str) -> None:
    path = await client.deploy(app, "/x", "localhost:1/no/such:image")
    answer = await client.post(path)
    assert answer.status == 500
    assert answer.message.startswith("Failed to pull image 'localhost:1/no/such:image'")


async def test_async_is_202_with_a_call_id(client: Client, app: str, function_image: Image) -> None:
    path = await client.deploy(app, "/x", function_image(CAT), type="async")
    answer = await client.post(path, data=b"hello")
    assert answer.status == 202
    assert answer.json() == {"call_id": answer.call_id}


async def test_a_routes_headers_are_sent(client: Client, app: str, function_image: Image) -> None:
    headers = {"Content-Type": ["image/x-test"], "X-A": ["1"]}
    path = await client.deploy(app, "/x", function_image(CAT), headers=headers)
    answer = await client.post(path, data=b"x")
    assert answer.headers["Content-Type"] == "image/x-test"
    assert answer.headers["X-A"] == "1"
