"""Do the guide's commands, as they stand there, work against a real etcd?"""

import asyncio
import http.client
import os
import time
from collections.abc import Iterator

import pytest
from testcontainers.core.container import DockerContainer

from shared import clock
from tests.e2e import examples, images
from tests.e2e.client import Client
from tests.e2e.outside import host_address
from tests.e2e.platforms import ROOT, Platform, free_port

README = ROOT / "examples" / "etcd_v3" / "README.md"
SERVER_IMAGE = "millrace/e2e-etcd:local"

# The four commands are the guide's: commas, quotes and missing headers included.
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


def ask(image: str, server: str, command: str) -> str:
    """Return what the image prints for a request, run without a platform, or why it failed."""
    return examples.run(image, command.encode(), ETCD_SERVER=server)


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
        wait_for_etcd(port)
        yield f"{host_address()}:{port}"


def wait_for_etcd(port: int) -> None:
    """Wait until etcd says that it is healthy."""
    until = clock.monotonic_s() + 60
    while clock.monotonic_s() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if b"true" in connection.getresponse().read():
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    pytest.fail("etcd does not become healthy")


@pytest.fixture(scope="module")
def image(_engine: None) -> str:
    """The example's image."""
    return examples.build("etcd_v3")


async def shell(script: str, **env: str) -> str:
    """Return what a script of bash prints."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        env={"PATH": os.environ["PATH"], **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, script
    return printed.decode()


async def test_the_guides_commands(
    platform: Platform, client: Client, etcd: str, image: str
) -> None:
    env = {"FUNCAPI": platform.url.removeprefix("http://"), "ETCD_SERVER": etcd}
    assert "App successfully created" in await shell(CREATE_APP, **env)
    route = CREATE_ROUTE.replace("<镜像名>", image)
    assert "Route successfully created" in await shell(route, **env)
    assert await shell(PUT, **env) == "Put /hello success.\n"
    assert await shell(GET, **env) == "/hello : hello word\n"
    for path in ("/v1/apps/etcd_v3/routes/command", "/v1/apps/etcd_v3"):
        assert (await client.delete(path)).status == 200


def test_the_commands_stand_in_the_examples_readme() -> None:
    readme = README.read_text()
    for command in (CREATE_APP, CREATE_ROUTE, PUT, GET):
        assert command.strip() in readme


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
