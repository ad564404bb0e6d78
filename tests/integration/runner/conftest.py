"""What do the runner's integration tests share? A real engine, and sandboxes on it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import aiodocker
import pytest
import uvloop

from services.runner import sandbox
from services.runner.engine import Engine
from tests.integration.runner.bench import DOCKER_HOST, Bench, bench_of

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
    async with bench_of(docker, container_engine, places) as made:
        yield made
