"""Do images come from a registry: once for all who wait, with credentials, and anew when moved?"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import eventually
from tests.e2e import images
from tests.e2e.client import Client
from tests.e2e.platforms import Platform
from tests.e2e.registries import HTPASSWD, PASSWORD, USER, Registry, running


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
    registry.push_from_elsewhere(new, name)

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
