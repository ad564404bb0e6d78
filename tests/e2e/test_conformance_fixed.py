"""Are the known defects of IronFunctions gone? One fact a test."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from yarl import URL

from shared import clock, ids
from tests.e2e.client import Client
from tests.e2e.platforms import Service
from tests.e2e.test_conformance_copy import CAT, ENV, make_route, variables

Image = Callable[[str], str]


async def test_routes_of_all_apps_are_listed(client: Client, app: str) -> None:
    await make_route(client, app, path="/a", image=f"{app}/image")
    await make_route(client, f"{app}-2", path="/b", image=f"{app}/image")
    answer = await client.get("/v1/routes", params={"image": f"{app}/image"})
    assert answer.status == 200
    found = {(r["app_name"], r["path"]) for r in answer.json()["routes"]}
    assert found == {(app, "/a"), (f"{app}-2", "/b")}


async def test_deleting_the_unknown_is_404(client: Client, app: str) -> None:
    answer = await client.delete(f"/v1/apps/{app}")
    assert (answer.status, answer.message) == (404, "App not found")
    await make_route(client, app)
    answer = await client.delete(f"/v1/apps/{app}/routes/y")
    assert (answer.status, answer.message) == (404, "Route not found")


async def test_a_patch_that_changes_nothing_succeeds(client: Client, app: str) -> None:
    await make_route(client, app, timeout=5)
    for _ in range(2):
        answer = await client.patch(f"/v1/apps/{app}/routes/x", json={"route": {"timeout": 5}})
        assert answer.status == 200
        answer = await client.patch(f"/v1/apps/{app}", json={"app": {"config": {}}})
        assert answer.status == 200


async def test_a_jwt_key_is_kept(client: Client, second_api: Service, app: str) -> None:
    made = await make_route(client, app, jwt_key="secret")
    assert made["jwt_key"] == "secret"
    answer = await client.at(second_api.url).get(f"/v1/apps/{app}/routes/x")
    assert answer.json()["route"]["jwt_key"] == "secret"
    assert (await client.at(second_api.url).post(f"/r/{app}/x")).status == 401


async def test_call_ids_are_unique_and_sort_over_one_connection(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT), type="async")
    found = [(await client.post(path, data=b"x")).json()["call_id"] for _ in range(20)]
    assert len(set(found)) == 20
    assert found == sorted(found)
    times = [ids.call_time_ms(call_id) for call_id in found]
    assert all(t is not None and abs(t - clock.epoch_ms()) < 60_000 for t in times)


async def test_request_url_is_the_one_asked_for(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/env", function_image(ENV))
    env = variables((await client.get(f"{path}?a=b")).text)
    assert env["REQUEST_URL"] == f"{client.url}{path}?a=b"


async def test_idle_timeout_has_its_default(client: Client, app: str) -> None:
    assert (await make_route(client, app))["idle_timeout"] == 30


async def test_a_timed_out_calls_bytes_reach_nobody(
    client: Client, app: str, function_image: Image
) -> None:
    script = 'read who; echo "$who"; [ "$who" = slow ] && sleep 100; exit 0'
    path = await client.deploy(app, "/x", function_image(script), timeout=1)
    slow, *others = await asyncio.gather(
        client.post(path, data=b"slow\n"),
        *(client.post(path, data=b"quick %d\n" % n) for n in range(4)),
    )
    assert slow.status == 504
    assert [a.body for a in others] == [b"quick %d\n" % n for n in range(4)]
    assert (await client.post(path, data=b"after\n")).body == b"after\n"


async def test_a_function_that_dies_is_answered_at_once(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("kill -9 $$"), timeout=60)
    started = clock.monotonic_s()
    answer = await client.post(path)
    assert (answer.status, answer.code) == (500, "signal")
    assert clock.monotonic_s() - started < 20


async def test_async_calls_keep_their_routes_limits(
    client: Client, app: str, function_image: Image
) -> None:
    image = function_image("exec sleep 100")
    path = await client.deploy(app, "/x", image, type="async", timeout=1)
    record = await client.ended((await client.post(path)).call_id)
    assert (record["status"], record["code"]) == ("error", "timeout")


async def test_memory_is_enforced(client: Client, app: str, function_image: Image) -> None:
    hungry = "exec awk 'BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }'"
    path = await client.deploy(app, "/x", function_image(hungry), memory=32)
    answer = await client.post(path)
    assert (answer.status, answer.code) == (500, "out_of_memory")
    assert answer.message == "out of memory error"


async def test_a_response_has_a_limit(client: Client, app: str, function_image: Image) -> None:
    path = await client.deploy(app, "/x", function_image("exec cat /dev/zero"), timeout=60)
    started = clock.monotonic_s()
    answer = await client.post(path)
    assert (answer.status, answer.code) == (500, "too_large")
    assert answer.json()["error"]["fault"] == "function"
    assert clock.monotonic_s() - started < 30


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/routes"),
        ("GET", "/v1/apps/{app}/routes/%zz"),
        ("POST", "/r/{app}/%zz"),
        ("PUT", "/r/{app}/async"),
        ("DELETE", "/tasks"),
        ("GET", "/v1/apps/{app}/routes/%ff"),
        ("POST", "/r/{app}/%00"),
    ],
)
async def test_what_crashed_the_old_server_is_answered_in_json(
    client: Client, app: str, function_image: Image, method: str, path: str
) -> None:
    await client.deploy(app, "/async", function_image(CAT), type="async")
    url = URL(client.url + path.format(app=app), encoded=True)
    async with client.session.request(method, url, data=b"{}") as response:
        assert response.status < 500
        await response.json()


async def test_app_validation_is_400(client: Client) -> None:
    assert (await client.post("/v1/apps", json={"app": {"name": "a b"}})).status == 400


@pytest.mark.parametrize("name", ["Apple", "Z9", "a_b-c"])
async def test_capitals_are_allowed_in_names(client: Client, app: str, name: str) -> None:
    assert (await client.create_app(f"{name}{app[:12]}"))["name"].startswith(name)


@pytest.mark.parametrize("name", ["a^b", "a{b", "é", "日", "a~", "a[b"])
async def test_other_characters_are_not(client: Client, name: str) -> None:
    answer = await client.post("/v1/apps", json={"app": {"name": name}})
    assert answer.status == 400
    assert "Invalid app name" in answer.message


async def test_names_differ_by_case(client: Client, app: str) -> None:
    await client.create_app(app)
    assert (await client.get(f"/v1/apps/{app.upper()}")).status == 404
    await client.create_app(app.upper())


async def test_invalid_json_says_where_and_is_json(client: Client) -> None:
    answer = await client.post("/v1/apps", data=b'{\n  "app" 1}')
    assert answer.status == 400
    assert answer.message.startswith("Invalid JSON")
    assert "line 2" in answer.message
    assert "column" in answer.message
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
async def test_bodies_of_all_methods_reach_stdin(
    client: Client, app: str, function_image: Image, method: str
) -> None:
    path = await client.deploy(app, "/x", function_image('echo "$METHOD"; cat'))
    answer = await client.ask(method, path, data=b"body")
    assert (answer.status, answer.body) == (200, method.encode() + b"\nbody")


async def test_all_values_of_a_routes_header_are_sent(
    client: Client, app: str, function_image: Image
) -> None:
    headers = {"X-A": ["1", "2"]}
    path = await client.deploy(app, "/x", function_image("exit 1"), headers=headers)
    assert (await client.post(path)).headers.getall("X-A") == ["1", "2"]
    path = await client.deploy(app, "/y", function_image(CAT), headers=headers)
    assert (await client.post(path)).headers.getall("X-A") == ["1", "2"]


async def test_the_environment_has_more_than_before(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/env", function_image(ENV), timeout=20)
    before = clock.epoch_ms()
    answer = await client.post(path)
    env = variables(answer.text)
    assert env["CALL_ID"] == answer.call_id
    assert env["APP_NAME"] == app
    assert before + 20_000 <= int(env["DEADLINE"]) <= clock.epoch_ms() + 20_000


async def test_a_functions_host_name_is_its_own(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("exec hostname"))
    assert (await client.post(path)).text.strip() != socket.gethostname()


async def test_a_route_with_a_trailing_slash_can_be_called(
    client: Client, app: str, function_image: Image
) -> None:
    await client.deploy(app, "/x/", function_image(CAT))
    for written in ("/x", "/x/"):
        assert (await client.post(f"/r/{app}{written}", data=b"x")).body == b"x", written


async def test_the_root_route_can_be_called(
    client: Client, app: str, function_image: Image
) -> None:
    await client.deploy(app, "/", function_image(CAT))
    for written in ("", "/"):
        assert (await client.post(f"/r/{app}{written}", data=b"x")).body == b"x", written


async def test_many_callers_of_one_route_do_not_hold_up_another(
    client: Client, app: str, function_image: Image
) -> None:
    slow = await client.deploy(app, "/slow", function_image("exec sleep 8"))
    quick = await client.deploy(f"{app}-2", "/quick", function_image(CAT))
    waiting = [asyncio.create_task(client.post(slow)) for _ in range(4)]
    assert (await client.post(quick, data=b"x")).body == b"x"
    assert not any(task.done() for task in waiting)
    assert [a.status for a in await asyncio.gather(*waiting)] == [200] * 4


async def test_a_caller_who_leaves_stops_the_function(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("exec sleep 1000"), timeout=600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await client.post(path)
    [record] = await client.calls(app)
    ended = await client.ended(record["id"], timeout_s=15)
    assert (ended["status"], ended["code"]) == ("cancelled", "cancelled")


async def test_lists_have_pages(client: Client, app: str) -> None:
    for name in "abcde":
        await make_route(client, app, path=f"/{name}")
    found, cursor = [], ""
    for _ in range(3):
        answer = await client.get(f"/v1/apps/{app}/routes?limit=2&cursor={cursor}")
        found.append([r["path"] for r in answer.json()["routes"]])
        cursor = answer.json()["next_cursor"]
    assert found == [["/a", "/b"], ["/c", "/d"], ["/e"]]
    assert cursor == ""


async def test_every_failure_says_whose_fault_it_is(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("exit 3"))
    error = (await client.post(path)).json()["error"]
    assert error == {"message": "exit code 3", "code": "exit", "fault": "function"}


async def test_server_timing_adds_up(client: Client, app: str, function_image: Image) -> None:
    path = await client.deploy(app, "/x", function_image("exec sleep 1"))
    started = clock.monotonic_s()
    answer = await client.post(path)
    total_ms = (clock.monotonic_s() - started) * 1000
    parts = dict(p.strip().split(";dur=") for p in answer.headers["Server-Timing"].split(","))
    times = {name: float(value) for name, value in parts.items()}
    assert set(times) == {"queue", "start", "run"}
    assert times["run"] >= 990
    assert sum(times.values()) <= total_ms
