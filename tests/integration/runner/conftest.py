"""What do the runner's integration tests share? A real engine, a few images, and a sandbox."""

import asyncio
import hashlib
import io
import json
import os
import secrets
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiodocker
import msgspec
import pytest

from services.runner import containers, holders, images, namespaces, runs, sandbox
from services.runner.engine import Engine, Found
from shared import clock, ids, messages

DOCKER_HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
BUSYBOX = os.environ.get("BUSYBOX_IMAGE", "millrace/busybox:local")
NETWORK = "millrace-test-functions"


@pytest.fixture
async def docker() -> AsyncIterator[aiodocker.Docker]:
    """A client of the engine, for looking and for preparing."""
    async with aiodocker.Docker(DOCKER_HOST) as client:
        yield client


@pytest.fixture
async def container_engine() -> AsyncIterator[Engine]:
    real = Engine(DOCKER_HOST)
    yield real
    await real.close()


async def build(docker: aiodocker.Docker, name: str, *instructions: str) -> str:
    """Make an image from busybox with a Dockerfile's instructions."""
    text = "\n".join([f"FROM {BUSYBOX}", *instructions]).encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    context.seek(0)
    await docker.images.build(fileobj=context, encoding="identity", tag=name)
    return name


def digest(text: str) -> str:
    """Return a tag for an image made from a text: the same text, the same image."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def shell(docker: aiodocker.Docker, script: str) -> str:
    """Make an image whose command is a shell script; its name says which."""
    name = f"millrace-test/sh:{digest(script)}"
    return await build(docker, name, "ENTRYPOINT " + json.dumps(["/bin/sh", "-c", script]))


HEAD = messages.CallHead(
    call_id="",
    mode="sync",
    app="app",
    path="/p",
    image=BUSYBOX,
    memory_mb=64,
    cpus=1.0,
    accepted_ms=0,
    wait_until_ms=0,
    deadline_ms=0,
    reply_to="api-1",
    timeout_ms=30_000,
)
PARCEL = messages.Parcel({}, {}, b"")


def head(**changes: Any) -> messages.CallHead:
    """Return a new call."""
    given = {"call_id": ids.new_call_id(), "accepted_ms": clock.epoch_ms(), **changes}
    return msgspec.structs.replace(HEAD, **given)


@dataclass
class Bench:
    """Sandboxes on the real engine, under a platform's name of their own."""

    engine: Engine
    docker: aiodocker.Docker
    owner: containers.Owner
    images: images.Images
    holders: holders.Holders
    sandboxes: sandbox.ContainerPerCall

    async def run(
        self,
        script: str,
        payload: bytes = b"",
        *,
        stop: asyncio.Event | None = None,
        **changes: Any,
    ) -> runs.Result:
        """Run a shell script as a function, up to its container being gone."""
        return await self.run_image(await shell(self.docker, script), payload, stop=stop, **changes)

    async def run_image(
        self,
        image: str,
        payload: bytes = b"",
        *,
        env: dict[str, str] | None = None,
        config: dict[str, str] | None = None,
        stop: asyncio.Event | None = None,
        **changes: Any,
    ) -> runs.Result:
        parcel = messages.Parcel(env or {}, config or {}, payload)
        job = runs.Job(head(image=image, **changes), parcel)
        async with self.sandboxes.run(job, lambda: None, stop or asyncio.Event()) as result:
            return result

    async def containers(self) -> list[Found]:
        """Return what there is of calls in the engine."""
        found = await self.engine.labelled(self.owner.platform)
        return [container for container in found if container.call_id]


@asynccontextmanager
async def bench_of(
    docker: aiodocker.Docker, container_engine: Engine, platform: str
) -> AsyncIterator[Bench]:
    owner = containers.Owner(platform, f"runner-{secrets.token_hex(4)}")
    known_images = images.Images(container_engine, [], tries=2, timeout_s=60, check_s=0)
    pool = namespaces.Pool(spares_wanted=0, idle_max=8, idle_max_s=60)
    network_holders = holders.Holders(container_engine, pool, owner, NETWORK)
    sandboxes = sandbox.ContainerPerCall(
        container_engine,
        known_images,
        network_holders,
        owner=owner,
        limits=containers.Limits(pids=64, files=1024, file_max_mb=16, disk_mb=0),
        bounds=sandbox.Bounds(response=2 * 1024 * 1024, log=64 * 1024),
        starts=4,
    )
    await network_holders.prepare()
    yield Bench(container_engine, docker, owner, known_images, network_holders, sandboxes)
    await network_holders.close()
    await known_images.close()


@pytest.fixture
async def bench(docker: aiodocker.Docker, container_engine: Engine) -> AsyncIterator[Bench]:
    platform = f"test-{secrets.token_hex(4)}"
    async with bench_of(docker, container_engine, platform) as made:
        yield made
    assert await container_engine.labelled(platform) == []
