"""What do the runner's integration tests share? A real engine, and sandboxes on it."""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import aiodocker
import pytest
import uvloop

from services.runner import containers, holders, images, namespaces, sandbox
from services.runner.engine import Engine
from services.runner.output import Bounds
from tests.integration.runner.bench import DOCKER_HOST, NETWORK, Bench

ROOT = Path(__file__).parents[3]
#: Made by deploy/images, of services/runner/init/init.c.
INIT = ROOT / ".cache" / "init"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run on the loop that the runner has: it is not alike in what it does with closed files."""
    return {"uvloop": uvloop.new_event_loop}


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


@pytest.fixture
def init() -> Path:
    """The first process of sandboxes."""
    if not INIT.exists():
        pytest.fail(f"{INIT} is missing; deploy/images makes it", pytrace=False)
    return INIT


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name is short enough for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="mr-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def places(short_folder: Path, init: Path) -> sandbox.Places:
    """Where runner and engine meet."""
    shutil.copyfile(init, short_folder / "init")
    (short_folder / "init").chmod(0o755)
    return sandbox.Places(short_folder, short_folder)


@pytest.fixture
async def bench(
    docker: aiodocker.Docker, container_engine: Engine, places: sandbox.Places
) -> AsyncIterator[Bench]:
    owner = containers.Owner(f"test-{secrets.token_hex(4)}", f"runner-{secrets.token_hex(4)}")
    known_images = images.Images(container_engine, [], tries=2, timeout_s=60, check_s=0)
    pool = namespaces.Pool(spares_wanted=0, idle_max=8, idle_max_s=60)
    network_holders = holders.Holders(container_engine, pool, owner, NETWORK)
    sandboxes = sandbox.Sandboxes(
        container_engine,
        known_images,
        network_holders,
        owner=owner,
        limits=containers.Limits(pids=64, files=1024, file_max_mb=16, disk_mb=0),
        bounds=Bounds(response=2 * 1024 * 1024, log=64 * 1024, stream=8 * 1024 * 1024),
        places=places,
        starts=4,
    )
    await network_holders.prepare()
    made = Bench(container_engine, docker, owner, known_images, network_holders, sandboxes, places)
    yield made
    await made.close()
    await network_holders.close()
    await known_images.close()
    assert os.listdir(places.here) == ["init"]
    assert await container_engine.labelled(owner.platform) == []
