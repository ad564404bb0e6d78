"""Do the guide's commands, as they stand there, work against a real etcd?"""

from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from testcontainers.core.container import DockerContainer

from tests.e2e import images, readme
from tests.e2e.client import Client
from tests.e2e.outside import host_address, wait_for_http
from tests.e2e.platforms import ROOT, Platform, free_port
from tests.e2e.workshop import EXAMPLES, Workshop, run

README = EXAMPLES / "etcd_v3" / "README.md"
SERVER_IMAGE = "millrace/e2e-etcd:local"

# The commands are the guide's: commas, quotes and missing headers included.
BUILD, RUN, DEPLOY = "fn build\n", "fn run\n", "fn deploy etcd_v3\n"
CREATE_APP = """
curl -X POST --data '{
    "app": {
        "name": "etcd_v3",
        "config": { 
            "ETCD_SERVER": "'$ETCD_SERVER'",
        }
    }
}' http://$FUNCAPI/v1/apps
"""  # noqa: W291 (so it stands in the guide)
CREATE_ROUTE = """
 curl -X POST --data '{
    "route": {
        "image": "<镜像名>",
        "path": "/command",
    }
}' http://$FUNCAPI/v1/apps/etcd_v3/routes
"""
PUT = """
curl -X POST --data '{"method": "put","key":"/hello","value":"hello word"}' http://$FUNCAPI/r/etcd_v3/command
"""
GET = """
curl -X POST --data '{"method": "get","key":"/hello"}' http://$FUNCAPI/r/etcd_v3/command
"""


APP = "/v1/apps/etcd_v3"


def ask(image: str, server: str, command: str) -> str:
    """Return what the image prints for a request, run without a platform, or why it failed."""
    return run(image, command.encode(), ETCD_SERVER=server)


@pytest.fixture(scope="module")
def etcd(_engine: None) -> Iterator[str]:
    """The host:port of a real etcd on this machine, as functions can reach it."""
    images.build_folder(SERVER_IMAGE, ROOT / "tests" / "e2e" / "etcd")
    port, peer_port = free_port(), free_port()
    listens = (
        f"--listen-client-urls=http://0.0.0.0:{port} --advertise-client-urls=http://0.0.0.0:{port}"
    )
    peers = f"--listen-peer-urls=http://127.0.0.1:{peer_port}"
    server = DockerContainer(SERVER_IMAGE).with_kwargs(network_mode="host")
    with server.with_command(f"{listens} {peers}"):
        wait_for_http(f"127.0.0.1:{port}", "/health", HTTPStatus.OK)
        yield f"{host_address()}:{port}"


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> str:
    """The example's image."""
    return workshop.build("etcd_v3")


@pytest.fixture
async def no_app(client: Client) -> AsyncIterator[None]:
    """The guide's app is not there before, nor after."""
    yield
    for path in (f"{APP}/routes/command", APP):
        assert (await client.delete(path)).status == HTTPStatus.OK


@pytest.fixture
def folder(workshop: Workshop, request: pytest.FixtureRequest) -> Path:
    """A copy of the example's folder."""
    return workshop.copy(request.node.name) / "examples" / "etcd_v3"


@pytest.mark.usefixtures("no_app")
async def test_the_readme(platform: Platform, workshop: Workshop, etcd: str) -> None:
    here = {"192.168.1.10:2379": etcd, "<镜像名>": f"{workshop.hub}/millrace/etcd_v3:0.0.2"}
    await workshop.follow("etcd_v3", platform.url, here)


@pytest.mark.usefixtures("no_app")
async def test_the_guide_to_the_letter(
    platform: Platform, workshop: Workshop, etcd: str, folder: Path
) -> None:
    """Its steps 2.1 to 4, with `fn run` as bare as there, which says what is missing."""
    settings = f'FUNCAPI={platform.url.removeprefix("http://")}\nETCD_SERVER="{etcd}"\n'
    bare = RUN.replace("\n", " 2>&1 || true\n")
    texts = (BUILD, bare, DEPLOY, settings, CREATE_APP, CREATE_ROUTE, PUT, GET)
    steps = [readme.Step(text) for text in texts]
    here = {"<镜像名>": f"{workshop.hub}/millrace/etcd_v3:0.0.2"}
    printed = await readme.follow(steps, folder, workshop.env(API_URL=platform.url), here)
    assert "built successfully" in printed[0]
    assert 'standard input is empty; say {"method": "get"' in printed[1]
    assert "App successfully created" in printed[4]
    assert "Route already exists" in printed[5]
    assert printed[6:] == ["Put /hello success.\n", "/hello : hello word\n"]


@pytest.mark.usefixtures("no_app")
async def test_the_guide_without_a_deployment(
    platform: Platform, workshop: Workshop, etcd: str, image: str, folder: Path
) -> None:
    settings = f'FUNCAPI={platform.url.removeprefix("http://")}\nETCD_SERVER="{etcd}"\n'
    steps = [readme.Step(text) for text in (settings, CREATE_APP, CREATE_ROUTE, PUT, GET)]
    printed = await readme.follow(steps, folder, workshop.env(), {"<镜像名>": image})
    assert "App successfully created" in printed[1]
    assert "Route successfully created" in printed[2]
    assert printed[3:] == ["Put /hello success.\n", "/hello : hello word\n"]


def test_the_guides_commands_stand_in_the_readme() -> None:
    said = README.read_text()
    for command in (BUILD, DEPLOY, CREATE_APP, CREATE_ROUTE, PUT, GET):
        assert command.strip() in said


async def test_failures_are_told(client: Client, app: str, etcd: str, image: str) -> None:
    path = await client.deploy(app, "/command", image, config={"ETCD_SERVER": etcd})
    for body, exit_code, said in (
        (b'{"method": "get", "key": "/none"}', 1, "/none : no such key\n"),
        (b"hello", 2, "standard input is not JSON"),
    ):
        answer = await client.post(path, data=body)
        assert (answer.status, answer.message) == (500, f"exit code {exit_code}")
        await client.ended(answer.call_id)
        assert said in (await client.get(f"/v1/calls/{answer.call_id}/log")).text


@pytest.mark.parametrize("spelling", ["{}", "http://{}", "127.0.0.1:1,{}", "http://{}/"])
def test_spellings_of_the_server(etcd: str, image: str, spelling: str) -> None:
    put = '{"method": "put", "key": "/k", "value": "v"}'
    assert ask(image, spelling.format(etcd), put) == "0 Put /k success."


def test_values_come_back_as_they_went_in(etcd: str, image: str) -> None:
    for value in ("", "two\\nlines", "日本語", " \\u0000 "):
        ask(image, etcd, f'{{"method": "put", "key": "/v", "value": "{value}"}}')
        expected = value.replace("\\n", "\n").replace("\\u0000", "\0")
        assert ask(image, etcd, '{"method": "get", "key": "/v"}') == f"0 /v : {expected}".strip()


def test_no_server_is_told(image: str) -> None:
    get = '{"method": "get", "key": "/k"}'
    assert ask(image, "127.0.0.1:1", get).startswith("3 no etcd answers: 127.0.0.1:1: ")
    assert ask(image, "", get).startswith("3 ETCD_SERVER is not set")
