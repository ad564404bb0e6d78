"""Do images come from a registry: once for all who wait, with credentials, and anew when moved?"""

import asyncio
import base64
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from testcontainers.core.container import DockerContainer

from tests.conftest import eventually
from tests.e2e import images
from tests.e2e.client import Client
from tests.e2e.conftest import REGISTRY_IMAGE
from tests.e2e.outside import wait_for_http
from tests.e2e.platforms import ROOT, Platform

USER, PASSWORD = "fn", "the password"


@dataclass
class Registry:
    """A real registry on this machine."""

    address: str
    container: DockerContainer
    docker_config: Path

    def push(self, image: str, name: str) -> None:
        """Push a local image under a name and forget that name here."""
        images.docker("tag", image, name)
        images.docker("--config", str(self.docker_config), "push", "-q", name)
        images.docker("rmi", "--force", name)

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


@pytest.fixture(scope="module")
def registry(_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    images.build_folder(REGISTRY_IMAGE, ROOT / "tests" / "e2e" / "registry")
    with DockerContainer(REGISTRY_IMAGE).with_exposed_ports(5000) as container:
        address = f"localhost:{container.get_exposed_port(5000)}"
        config = tmp_path_factory.mktemp("docker")
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (config / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
        wait_for_http(address, "/v2/", http.client.UNAUTHORIZED)
        yield Registry(address, container, config)


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


async def test_without_the_password_it_is_refused(
    client: Client, registry: Registry, app: str, function_image: Callable[[str], str]
) -> None:
    name = f"{registry.address}/{app}:1"
    registry.push(function_image("echo pulled"), name)
    path = await client.deploy(app, "/x", name)
    answer = await client.post(path)
    assert (answer.status, answer.code) == (500, "image_pull")
    assert answer.message.startswith(f"Failed to pull image '{name}'")
