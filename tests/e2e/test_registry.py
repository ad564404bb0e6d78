"""Do images come from a registry: once for all who wait, with credentials, and anew when moved?"""

import asyncio
import base64
import http.client
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from testcontainers.core.container import DockerContainer

from tests.conftest import eventually
from tests.e2e import images
from tests.e2e.client import Client
from tests.e2e.platforms import ROOT, Platform, free_port

USER, PASSWORD = "fn", "the password"
#: Of that password, as `make hub-password` makes it but with less work.
HTPASSWD = f"{USER}:$2b$04$dwDANbOXYJqjsxdIXu96LOGeoJRbtTUHhlFELPdm5vZNRae2wqIqm"
HUB = ROOT / "deploy" / "hub"


@dataclass
class Registry:
    """The hub as compose.yaml has it, on a port of its own."""

    address: str
    container: DockerContainer
    docker_config: Path

    def push(self, image: str, name: str) -> str:
        """Push a local image under a name and forget it here; return the digest it has there."""
        images.docker("tag", image, name)
        images.docker("--config", str(self.docker_config), "push", "-q", name)
        named = "{{range .RepoDigests}}{{println .}}{{end}}"
        digests = images.docker("image", "inspect", "-f", named, name).split()
        repository = name.rpartition(":")[0]
        images.docker("rmi", "--force", name)
        return next(d.partition("@")[2] for d in digests if d.startswith(f"{repository}@"))

    def pin(self, image: str, name: str) -> str:
        """Push a local image and forget it wholly; return its name with its digest."""
        pinned = f"{name}@{self.push(image, name)}"
        images.docker("rmi", "--force", image)
        return pinned

    def manifests_asked(self, repository: str) -> int:
        """Return how often a manifest of a repository was sent."""
        lines = self.container.get_logs()[1].decode().splitlines()
        sent = [json.loads(line) for line in lines if '"response completed"' in line]
        uri = f"/v2/{repository}/manifests/"
        return sum(
            1
            for line in sent
            if line["http.request.uri"].startswith(uri)
            and line["http.request.method"] == "GET"
            and line["http.response.status"] == 200
        )

    def prune(self, routes: Any) -> str:
        """Do to its data what `make hub-gc` does, for these routes; return what was said of it."""
        name = self.container.get_wrapped_container().id
        said = images.docker(
            *("run", "--rm", "-i", "--network", "none", "--user", "root", "--volumes-from", name),
            *("millrace/python:local", "python3", "/etc/millrace/prune.py", "/var/lib/registry"),
            stdin=json.dumps(routes).encode(),
        )
        configuration = "/etc/docker/registry/config.yml"
        images.docker("exec", name, "registry", "garbage-collect", configuration)
        # It remembers what it had.
        images.docker("restart", name)
        wait_for_registry(f"localhost:{self.container.get_exposed_port(5000)}")
        return said


@contextmanager
def running(folder: Path, *, htpasswd: str = "") -> Iterator[Registry]:
    """Run the hub while inside; `folder` is for what belongs to it."""
    shutil.copytree(HUB, folder / "hub", ignore=shutil.ignore_patterns("htpasswd", "__pycache__"))
    if htpasswd:
        (folder / "hub" / "htpasswd").write_text(htpasswd)
    port = free_port()
    address = f"localhost:{port}"
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    container = (
        DockerContainer("millrace/hub:local")
        .with_kwargs(entrypoint=["sh", "/etc/millrace/start"])
        .with_bind_ports(5000, port)
        .with_volume_mapping(folder / "hub", "/etc/millrace")
        .with_env("REGISTRY_STORAGE_DELETE_ENABLED", "true")
        .with_env("REGISTRY_LOG_FORMATTER", "json")
    )
    with container:
        wait_for_registry(address)
        yield Registry(address, container, folder)


@pytest.fixture(scope="module")
def registry(_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A hub that asks for a password."""
    with running(tmp_path_factory.mktemp("hub"), htpasswd=HTPASSWD) as made:
        yield made


@pytest.fixture
def open_registry(_engine: None, tmp_path: Path) -> Iterator[Registry]:
    """A hub that asks for none, of one test alone."""
    with running(tmp_path) as made:
        yield made


def wait_for_registry(address: str) -> None:
    """Wait until a registry answers, be it by asking who we are."""
    for _ in range(300):
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status in {http.client.OK, http.client.UNAUTHORIZED}:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    pytest.fail("the registry does not answer")


@pytest.fixture(scope="module")
def pulling(new_platform: Callable[..., Any], registry: Registry) -> Iterator[Platform]:
    """A platform that knows the registry's password and checks tags each second."""
    auth = [{"name": registry.address, "username": USER, "password": PASSWORD}]
    with new_platform(DOCKER_AUTH=json.dumps(auth), IMAGE_CHECK_S="1") as platform:
        yield platform.start()


@pytest.fixture
def puller(pulling: Platform, http: aiohttp.ClientSession) -> Client:
    return Client(http, pulling.url)


async def test_it_is_pulled_once_for_all_who_wait(
    puller: Client, registry: Registry, app: str, function_image: Callable[[str], str]
) -> None:
    name = f"{registry.address}/{app}:1"
    # Nobody has pulled this one before: the engine keeps manifests.
    image = function_image(f"echo {app}")
    registry.push(image, name)
    path = await puller.deploy(app, "/x", name)
    answers = await asyncio.gather(*(puller.post(path) for _ in range(6)))
    images.docker("rmi", "--force", name, image)
    assert [a.text for a in answers] == [f"{app}\n"] * 6
    assert registry.manifests_asked(app) == 1


async def test_a_tag_that_moved_is_pulled_again(
    puller: Client, registry: Registry, app: str, function_image: Callable[[str], str]
) -> None:
    name = f"{registry.address}/{app}:latest"
    old, new = function_image("echo old"), function_image("echo new")
    registry.push(old, name)
    path = await puller.deploy(app, "/x", name)
    assert (await puller.post(path)).text == "old\n"
    here = images.docker("image", "inspect", "-f", "{{.Id}}", name)
    registry.push(new, name)
    images.docker("tag", here, name)

    async def is_new() -> bool:
        return (await puller.post(path)).text == "new\n"

    await eventually(is_new, 20)
    images.docker("rmi", "--force", name)


async def route(client: Client, app: str, **change: Any) -> Any:
    """Return the route `/x` of an app as the api tells it, after a change if there is one."""
    path = f"/v1/apps/{app}/routes/x"
    answer = await (client.patch(path, json={"route": change}) if change else client.get(path))
    assert answer.status == 200, answer.text
    return answer.json()["route"]


async def test_a_deployment_is_taken_back_by_its_digest(
    puller: Client, registry: Registry, app: str, function_image: Callable[[str], str]
) -> None:
    """Both versions have one tag, as `latest` would be: only the digests tell them apart."""
    name = f"{registry.address}/{app}/greet:1"
    one = registry.pin(function_image(f"echo {app} one"), name)
    two = registry.pin(function_image(f"echo {app} two"), name)
    path = await puller.deploy(app, "/x", one)
    assert (await puller.post(path)).text == f"{app} one\n"
    assert (await route(puller, app, image=two))["previous_images"] == [one]
    assert (await puller.post(path)).text == f"{app} two\n"
    previous = (await route(puller, app))["previous_images"]
    assert (await route(puller, app, image=previous[0]))["previous_images"] == [two, one]
    assert (await puller.post(path)).text == f"{app} one\n"


async def test_calls_of_a_route_do_not_notice_its_deployments(
    puller: Client, registry: Registry, app: str, function_image: Callable[[str], str]
) -> None:
    name = f"{registry.address}/{app}/greet"
    pinned = [
        registry.pin(function_image(f"sleep 0.1; echo {app} {n}"), f"{name}:{n}") for n in range(4)
    ]
    path = await puller.deploy(app, "/x", pinned[0])
    answers: list[tuple[int, str]] = []
    ended = asyncio.Event()

    async def call_and_call() -> None:
        while not ended.is_set():
            answer = await puller.post(path)
            answers.append((answer.status, answer.text))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(call_and_call())
        for number, image in enumerate(pinned):
            await route(puller, app, image=image)
            assert (await puller.post(path)).text == f"{app} {number}\n"
        ended.set()
    assert {status for status, _ in answers} == {200}


async def test_a_digest_on_disk_is_run_while_its_hub_is_away(
    client: Client,
    open_registry: Registry,
    app: str,
    function_image: Callable[[str], str],
) -> None:
    """Without a password, and as what it is: the same image can be pulled by nobody now."""
    here = open_registry.pin(function_image(f"echo {app}"), f"{open_registry.address}/{app}:1")
    path = await client.deploy(app, "/x", here)
    assert (await client.post(path)).text == f"{app}\n"
    open_registry.container.get_wrapped_container().stop(timeout=0)
    await route(client, app, config={"A": "1"})
    assert (await client.post(path)).text == f"{app}\n"
    elsewhere = await client.deploy(app, "/y", f"{open_registry.address}/{app}/other:1")
    answer = await client.post(elsewhere)
    assert (answer.status, answer.code, answer.fault) == (500, "image_pull", "platform")
    assert f"the registry {open_registry.address} cannot be used now" in answer.message


async def test_without_the_password_it_is_refused(
    client: Client, registry: Registry, app: str, function_image: Callable[[str], str]
) -> None:
    name = registry.pin(function_image(f"echo {app}"), f"{registry.address}/{app}:1")
    path = await client.deploy(app, "/x", name)
    answer = await client.post(path)
    assert (answer.status, answer.code, answer.fault) == (500, "image_pull", "platform")
    assert answer.message.startswith(f"Failed to pull image '{name}': the registry")
    assert "wants a password" in answer.message


async def test_a_wrong_password_is_the_platforms_fault(
    new_platform: Callable[..., Any],
    http: aiohttp.ClientSession,
    registry: Registry,
    app: str,
    function_image: Callable[[str], str],
) -> None:
    name = registry.pin(function_image(f"echo {app}"), f"{registry.address}/{app}:1")
    auth = [{"name": registry.address, "username": USER, "password": "guessed"}]
    with new_platform(DOCKER_AUTH=json.dumps(auth)) as platform:
        client = Client(http, platform.start().url)
        answer = await client.post(await client.deploy(app, "/x", name))
    assert (answer.status, answer.code, answer.fault) == (500, "image_pull", "platform")
    assert f"refuses the password of {USER!r} in the runners' DOCKER_AUTH" in answer.message
    assert "guessed" not in answer.message


@pytest.mark.parametrize("version", [":2", f":1@sha256:{'0' * 64}"])
async def test_an_unknown_image_is_the_functions_fault(
    puller: Client, registry: Registry, app: str, version: str
) -> None:
    path = await puller.deploy(app, "/x", f"{registry.address}/{app}{version}")
    answer = await puller.post(path)
    assert (answer.status, answer.code, answer.fault) == (500, "image_pull", "function")
    assert f"the registry {registry.address} does not have it" in answer.message


async def test_what_no_route_needs_is_freed(
    client: Client, open_registry: Registry, app: str, function_image: Callable[[str], str]
) -> None:
    name = f"{open_registry.address}/{app}/greet:latest"
    now, before, unneeded, tagged = [
        open_registry.pin(function_image(f"echo {app} {word}"), name)
        for word in ("now", "before", "unneeded", "tagged")
    ]
    path = await client.deploy(app, "/x", before)
    await route(client, app, image=now)
    said = open_registry.prune((await client.get(f"/v1/apps/{app}/routes")).json())
    assert said == "1 manifests removed, 3 kept"
    for image, word in ((now, "now"), (before, "before"), (tagged, "tagged")):
        await route(client, app, image=image)
        assert (await client.post(path)).text == f"{app} {word}\n"
    await route(client, app, image=unneeded)
    assert (await client.post(path)).code == "image_pull"
