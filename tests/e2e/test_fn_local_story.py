"""Does a developer get from an empty folder to a running route, and back, by `fn` alone?"""

import http.client
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e import images, registries
from tests.e2e.client import Client
from tests.e2e.fnclient import Fn
from tests.e2e.platforms import Platform, free_port

PINNED = re.compile(r"/me/greet:(\S+)@sha256:[0-9a-f]{64}$")


@pytest.fixture(scope="module")
def hub(_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real registry with a password; the environment in which a developer is logged in."""
    with registries.running(tmp_path_factory.mktemp("hub"), htpasswd=registries.HTPASSWD) as made:
        config = tmp_path_factory.mktemp("docker")
        login = ("login", "-u", registries.USER, "--password-stdin", made.address)
        images.docker("--config", str(config), *login, stdin=registries.PASSWORD.encode())
        yield {"HUB": made.address, "DOCKER_CONFIG": str(config)}


@pytest.fixture(scope="module")
def pulling(new_platform: Callable[..., Any], hub: dict[str, str]) -> Iterator[Platform]:
    """A platform whose runner knows the hub's password."""
    user, password = registries.USER, registries.PASSWORD
    auth = [{"name": hub["HUB"], "username": user, "password": password}]
    with new_platform(DOCKER_AUTH=json.dumps(auth)) as made:
        yield made.start()


@pytest.fixture
def caller(pulling: Platform, http: aiohttp.ClientSession) -> Client:
    return Client(http, pulling.url)


@pytest.fixture
def fn(pulling: Platform, hub: dict[str, str], tmp_path: Path) -> Fn:
    folder = tmp_path / "greet"
    folder.mkdir()
    return Fn(folder, {**hub, "API_URL": pulling.url, "XDG_CONFIG_HOME": str(tmp_path)})


async def route(caller: Client, app: str) -> dict[str, Any]:
    """Return the route that everything here is about."""
    answer = await caller.get(f"/v1/apps/{app}/routes/greet")
    assert answer.status == 200, answer.text
    return dict(answer.json()["route"])


async def test_from_an_empty_folder_to_an_answer(fn: Fn, app: str, caller: Client) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    said = fn("deploy", app).good()
    assert "/greet created with" in said.out
    assert fn("call", app, "/greet").good().out == "Hello, World!\n"
    assert fn("call", app, "/greet", stdin=b"Ada").good().out == "Hello, Ada!\n"
    found = PINNED.search((await route(caller, app))["image"])
    assert found
    assert found[1] == "0.0.2"
    assert "version: 0.0.2\n" in fn.read("func.yaml")
    assert fn("test", "--remote", app).good().out.endswith("2 tests passed\n")


async def test_a_second_deployment_changes_the_route_and_says_what(
    fn: Fn, app: str, caller: Client
) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    fn("deploy", app).good()
    before = await route(caller, app)
    fn.write("func.py", "print('new')\n")
    more = "memory: 96\ntimeout: 1m\nidle_timeout: 2m\nheaders: {X-A: [one, two]}\n"
    more += "config: {LEVEL: $LEVEL}\njwt_key: a long secret\ncpus: 0.5\nmin_sandboxes: 1\n"
    fn.write("func.yaml", fn.read("func.yaml") + more)
    said = fn("deploy", app, LEVEL="high").good()
    now = await route(caller, app)
    assert {name: now[name] for name in ("memory", "timeout", "idle_timeout", "cpus")} == {
        "memory": 96,
        "timeout": 60,
        "idle_timeout": 120,
        "cpus": 0.5,
    }
    assert now["headers"] == {"X-A": ["one", "two"]}
    assert now["config"] == {"LEVEL": "high"}
    assert now["jwt_key"] == "a long secret"
    assert now["min_sandboxes"] == 1
    for line in (
        f"image: {before['image']} -> {now['image']}",
        "memory: 128 -> 96",
        "headers.X-A: (none) -> one; two",
        "config.LEVEL: (none) -> high",
        "jwt_key: (none) -> (secret)",
        f"to go back: fn routes rollback {app} /greet",
    ):
        assert line in said.out
    assert "a long secret" not in said.out
    assert fn("call", app, "/greet").good().out == "new\n"
    fn.write("func.yaml", fn.read("func.yaml").replace("[one, two]", "three"))
    fn("deploy", app, LEVEL="high").good()
    assert (await route(caller, app))["headers"] == {"X-A": ["three"]}


async def test_incremental_leaves_out_what_has_not_changed(
    fn: Fn, app: str, caller: Client
) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    fn("deploy", app, "-i").good()
    first = (await route(caller, app))["image"]
    assert "nothing has changed" in fn("deploy", app, "-i").good().err
    assert (await route(caller, app))["image"] == first
    fn.write("func.yaml", fn.read("func.yaml") + "memory: 96\n")
    fn("deploy", app, "-i").good()
    assert (await route(caller, app))["memory"] == 96


async def test_skip_push_still_makes_the_route(fn: Fn, app: str, caller: Client) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    fn("deploy", app, "--skip-push").good()
    assert (await route(caller, app))["image"].endswith("/me/greet:0.0.2")
    assert fn("call", app, "/greet").good().out == "Hello, World!\n"


async def test_the_functions_of_several_folders(fn: Fn, app: str) -> None:
    for name in ("one", "two"):
        fn.at(name)("init", "--runtime", "python", f"me/{name}").good()
    fn.at("three").write("func.yaml", "name: me/three\nmemroy: 3\n")
    said = fn("deploy", app, "--skip-push")
    assert said.code == 2
    assert "1 of 3 functions could not be deployed" in said.err
    assert "did you mean `memory`?" in said.err
    for name in ("one", "two"):
        assert fn("call", app, f"/{name}").good().out == "Hello, World!\n"


def test_bump_build_push_one_by_one(fn: Fn, hub: dict[str, str]) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    assert fn("bump").good().out == "Bumped to version 0.0.2\n"
    whole = f"{hub['HUB']}/me/greet:0.0.2"
    assert fn("images", "build").good().out == f"Function {whole} built successfully.\n"
    said = json.loads(fn("push", "-o", "json").good().out)
    assert said["image"] == whole
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", said["digest"])


def test_push_of_what_is_not_built(fn: Fn) -> None:
    fn("init", "--runtime", "python", "me/never").good()
    assert "fn build" in fn("push").refused(3, "is not built yet").err


def test_the_wrong_password_is_one_line(fn: Fn, app: str, tmp_path: Path) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    said = fn("deploy", app, DOCKER_CONFIG=str(tmp_path / "nobody"))
    assert "docker login localhost:" in said.refused(4, "does not know your password").err


def test_a_hub_that_does_not_answer_is_one_line(fn: Fn, app: str) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    fn("deploy", app, HUB=f"localhost:{free_port()}").refused(5, "does not answer")


def test_no_hub_at_all_is_one_line(fn: Fn, app: str) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    fn("deploy", app, HUB="").refused(5, "there is no hub")


def test_an_api_that_does_not_answer_is_told_before_anything_is_built(fn: Fn, app: str) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    said = fn("deploy", app, API_URL=f"http://localhost:{free_port()}")
    said.refused(5, "localhost")
    assert "version: 0.0.1\n" in fn.read("func.yaml")


def test_a_failed_build_names_its_line_and_bumps_nothing(fn: Fn, app: str) -> None:
    fn.write("Dockerfile", f"FROM {images.BASE}\n\nRUN exit 3\n")
    fn("init", "me/greet").good()
    fn("deploy", app).refused(1, "the build failed at line 3 of the Dockerfile: RUN exit 3")
    assert "version: 0.0.1\n" in fn.read("func.yaml")


def test_no_engine_is_one_line(fn: Fn, tmp_path: Path) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    nowhere = f"unix://{tmp_path}/none.sock"
    fn("build", DOCKER_HOST=nowhere).refused(5, "the container engine does not answer")
    fn("run", DOCKER_HOST=nowhere).refused(5, "the container engine does not answer")
    fn("build", PATH="/nowhere").refused(5, "no `docker` command")


def test_what_init_refuses(fn: Fn) -> None:
    fn("init", "--runtime", "python", "me/greet:1").refused(2, "a name has no tag")
    fn("init", "--runtime", "pyton", "me/greet").refused(2, "did you mean `python`?")
    fn("init", "me/greet").refused(2, "no code here")
    fn("init", "--runtime", "php", "--format", "http", "me/greet").refused(2, "of format http")
    assert list(fn.folder.iterdir()) == []
    fn("init", "--runtime", "python", "me/greet").good()
    fn("init", "--runtime", "python", "me/greet").refused(3, "func.yaml is here already")
    fn.write("func.py", "print('mine')\n")
    fn("init", "-f", "--runtime", "python", "--cmd", "x", "me/other").good()
    assert fn.read("func.py") == "print('mine')\n"
    assert "name: me/other\n" in fn.read("func.yaml")


def test_a_test_that_fails_shows_the_difference(fn: Fn) -> None:
    fn("init", "--runtime", "python", "me/greet").good()
    fn.write("func.yaml", fn.read("func.yaml").replace("Hello, Ada!", "Good day, Ada!"))
    said = fn("test", "--build").refused(1, "1 of 2 tests failed")
    assert "-Good day, Ada!" in said.out
    assert "+Hello, Ada!" in said.out


def test_run_gives_what_the_platform_would(fn: Fn) -> None:
    script = 'env; echo "body=$(cat)"; echo log >&2; exit 0'
    fn.write("Dockerfile", f"FROM {images.BASE}\nENTRYPOINT {json.dumps(['sh', '-c', script])}\n")
    fn("init", "me/greet").good()
    fn.write("func.yaml", fn.read("func.yaml") + "config: {db-host: $HOST_OF_DB}\nmemory: 64\n")
    fn("build").good()
    said = fn("run", "-e", "CITY=Rome", stdin=b"Ada", HOST_OF_DB="db").good()
    lines = said.out.splitlines()
    wanted = ["METHOD=POST", "ROUTE=/greet", "DB_HOST=db", "CITY=Rome", "HEADER_CITY=Rome"]
    assert [line for line in [*wanted, "body=Ada"] if line not in lines] == []
    assert "log" in said.err
    assert "METHOD=PUT" in fn("run", "--method", "put", HOST_OF_DB="db").good().out
    said = fn("run").good()
    assert "config db-host is left out: $HOST_OF_DB is not set here" in said.err
    assert "DB_HOST=" not in said.out


def test_run_ends_a_function_that_fails_or_takes_too_long(fn: Fn) -> None:
    script = 'read -r how; [ "$how" = sleep ] && sleep 60; exit 7'
    fn.write("Dockerfile", f"FROM {images.BASE}\nENTRYPOINT {json.dumps(['sh', '-c', script])}\n")
    fn("init", "me/greet").good()
    fn.write("func.yaml", fn.read("func.yaml") + "timeout: 2s\n")
    fn("build").good()
    fn("run", stdin=b"fail\n").refused(1, "exit code 7")
    fn("run", stdin=b"sleep\n").refused(1, "ended after 2 s, its timeout")


def test_build_lines_are_run_first_and_may_fail(fn: Fn) -> None:
    fn.write("Dockerfile", f'FROM {images.BASE}\nCOPY made /made\nENTRYPOINT ["cat", "/made"]\n')
    fn("init", "me/greet").good()
    head = fn.read("func.yaml")
    fn.write("func.yaml", head + "build: ['echo built > made']\n")
    fn("build").good()
    assert fn("run").good().out == "built\n"
    fn.write("func.yaml", head + "build: ['exit 9']\n")
    fn("build").refused(1, "`build` line failed with exit code 9: exit 9")


def test_the_hub_asks_for_its_password(hub: dict[str, str]) -> None:
    connection = http.client.HTTPConnection(hub["HUB"], timeout=5)
    connection.request("GET", "/v2/_catalog")
    assert connection.getresponse().status == http.client.UNAUTHORIZED
    connection.close()
