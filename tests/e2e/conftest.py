"""What do the end-to-end tests stand on? Platforms of real processes, and callers of them."""

import itertools
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis as redis_sync
from aiohttp import web
from testcontainers.core.container import DockerContainer

from tests.conftest import REDIS_IMAGE, MysqlServer, eventually
from tests.e2e import images, outside, registries
from tests.e2e.client import Client
from tests.e2e.platforms import Platform, Service, database
from tests.e2e.workshop import Workshop

JWT_AUTH_KEY = "the management key of the tests, long enough"

#: Platforms of the running test, for its logs if it fails.
_shown: list[Platform] = []


def show(platform: Platform) -> None:
    """Have the logs of a platform shown if the running test fails."""
    _shown.append(platform)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show what the services logged during a failed test."""
    report: pytest.TestReport = yield
    starts: dict[str, int] = getattr(item, "log_starts", {})
    if report.failed and report.when == "call":
        for service in (s for p in _shown for s in p.services):
            tail = service.log_tail(starts.get(str(service.log), 0))
            report.sections.append((f"log of {service.role} ({service.log.name})", tail))
    return report


@pytest.fixture(autouse=True)
def _log_starts(request: pytest.FixtureRequest) -> None:
    """Remember where the logs are when a test begins."""
    _shown[:] = [platform for platform in _shown if platform.living()]
    services = [s for p in _shown for s in p.services]
    request.node.log_starts = {str(s.log): s.log.stat().st_size for s in services}


@pytest.fixture(scope="package")
def _engine() -> None:
    """The container engine with the base image, or no test."""
    images.require_engine()


@contextmanager
def redis_container() -> Iterator[tuple[DockerContainer, str]]:
    """Give a Redis that keeps what it was told on disk, and its address."""
    command = "redis-server --appendonly yes --protected-mode no --databases 100"
    with DockerContainer(REDIS_IMAGE).with_command(command) as container:
        wrapped = container.get_wrapped_container()
        wrapped.reload()
        networks = wrapped.attrs["NetworkSettings"]["Networks"]
        url = f"redis://{next(iter(networks.values()))['IPAddress']}:6379"
        wait_for_redis(url)
        yield container, url


def wait_for_redis(url: str) -> None:
    """Wait until a Redis answers."""
    retry = redis_sync.retry.Retry(redis_sync.backoff.ConstantBackoff(0.1), 300)
    errors = [redis_sync.RedisError]
    with redis_sync.Redis.from_url(url, retry=retry, retry_on_error=errors) as client:
        client.ping()


@pytest.fixture(scope="package")
def platform_redis(_engine: None) -> Iterator[Callable[[], str]]:
    """Gives the address of an empty Redis database at each call."""
    numbers = itertools.count()
    with redis_container() as (_, url):
        yield lambda: f"{url}/{next(numbers)}"


@pytest.fixture(scope="package")
def new_platform(
    platform_redis: Callable[[], str],
    mysql_server: MysqlServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Any]:
    """Makes a platform with data stores of its own and nothing started yet: a context manager."""

    @contextmanager
    def make(**settings: str) -> Iterator[Platform]:
        folder = tmp_path_factory.mktemp("platform")
        with (
            database(mysql_server) as db_url,
            Platform(db_url, platform_redis(), folder, settings) as made,
        ):
            show(made)
            yield made

    return make


@pytest.fixture(scope="package")
def platform(new_platform: Callable[..., Any]) -> Iterator[Platform]:
    """The platform most tests share: one replica of each service."""
    with new_platform(CALLBACK_ALLOW_NETWORKS=outside.host_address()) as made:
        yield made.start()


@pytest.fixture(scope="package")
def second_api(platform: Platform) -> Service:
    """One more api replica of the shared platform."""
    service = platform.add("api")
    service.wait_ready()
    return service


@pytest.fixture(scope="package")
def guarded_api(platform: Platform) -> Service:
    """An api replica of the shared platform that asks for tokens of `JWT_AUTH_KEY`."""
    service = platform.add("api", JWT_AUTH_KEY=JWT_AUTH_KEY)
    service.wait_ready()
    return service


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections of one test."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


@pytest.fixture
def client(platform: Platform, http: aiohttp.ClientSession) -> Client:
    """A caller of the shared platform."""
    return Client(http, platform.url)


@pytest.fixture
def app() -> str:
    """A name that no other test's app has."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def function_image() -> Callable[[str], str]:
    """Gives the image of a function: a shell script, run once for each call."""
    return images.function_image


@pytest.fixture(scope="session")
def hot_image() -> str:
    """The hot function that does what its call asks for."""
    return images.build_folder("millrace/e2e-hot:1", Path(__file__).parent / "functions")


@pytest.fixture(scope="package")
def workshop(_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Where examples are built, with a registry that asks nobody who he is."""
    with registries.running(tmp_path_factory.mktemp("hub")) as hub:
        yield Workshop(tmp_path_factory.mktemp("workshop"), hub.address)


@dataclass
class World:
    """A server on this machine, outside the platform: what a function reaches if it may."""

    #: host:port, as a function can reach it.
    address: str
    #: How often each path was asked for.
    hits: Counter[str] = field(default_factory=Counter)

    @property
    def config(self) -> dict[str, str]:
        """The config by which a function knows the address: as `$WORLD`.

        (Were it in the function's script, each test would build an image of its own.)
        """
        return {"WORLD": self.address}

    async def hit(self, path: str, times: int = 1) -> None:
        """Wait until a path was asked for so often."""

        async def often_enough() -> bool:
            return self.hits[path] >= times

        await eventually(often_enough, 30)

    async def told(self, prefix: str) -> str:
        """Wait until a path with a prefix was asked for; return what comes after the prefix."""

        async def rest() -> str:
            found = (p.removeprefix(prefix) for p in self.hits if p.startswith(prefix))
            return next(found, "")

        return str(await eventually(rest, 30))


@pytest.fixture
async def world(_engine: None) -> AsyncIterator[World]:
    """The world outside; it counts who comes, and says hello."""
    here = World("")

    async def count(request: web.Request) -> web.Response:
        here.hits[request.path] += 1
        return web.Response(text="hello from outside\n")

    async with outside.served(count) as here.address:
        yield here
