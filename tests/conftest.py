"""What do tests of every tier share? Real data stores in containers, one each for a session."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import aiomysql
import pytest
import redis as redis_sync
import structlog
from blockbuster import blockbuster_ctx
from testcontainers.core.container import DockerContainer

from shared import clock, streams, urls

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

# With `rich` there structlog would render tracebacks by it, which reads sources in the event loop.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

MYSQL_IMAGE = os.environ.get("MYSQL_IMAGE", "millrace/mysql:local")
REDIS_IMAGE = os.environ.get("REDIS_IMAGE", "millrace/redis:local")
START_TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Fail a test in which our own code blocks the event loop."""
    with blockbuster_ctx(["services", "shared"]):
        yield


async def eventually(condition: Callable[[], Awaitable[object]], timeout_s: float = 10) -> object:
    """Return what `condition` gives as soon as it is true; fail if that takes `timeout_s`."""
    until = clock.monotonic_s() + timeout_s
    while True:
        result = await condition()
        if result:
            return result
        if clock.monotonic_s() > until:
            pytest.fail(f"not true within {timeout_s} s; last: {result!r}")
        await asyncio.sleep(0.02)


def container_ip(container: DockerContainer) -> str:
    """Return the address of a container on its network, where this machine reaches it."""
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    networks = wrapped.attrs["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Address of a real Redis of this test session, as `MQ_URL` has it, without a database."""
    command = "redis-server --appendonly yes --protected-mode no"
    container = DockerContainer(REDIS_IMAGE).with_command(command)
    with container:
        url = f"redis://{container_ip(container)}:6379"
        wait_for(lambda: redis_sync.Redis.from_url(url).ping())
        yield url


@pytest.fixture
async def redis(redis_server: str) -> AsyncIterator[streams.Redis]:
    """A client of an empty Redis."""
    client = streams.connect(redis_server)
    await client.flushall()
    yield client
    await client.aclose()


@dataclass(frozen=True)
class MysqlServer:
    """A real MySQL server of this test session."""

    host: str
    root_password: str

    def url(self, database: str) -> str:
        """Return the address of a database on it, as `DB_URL` has it."""
        return f"mysql://root:{self.root_password}@{self.host}:3306/{database}"


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[MysqlServer]:
    """A real MySQL of this test session."""
    password = secrets.token_hex(8)
    container = (
        DockerContainer(MYSQL_IMAGE)
        .with_env("MYSQL_ROOT_PASSWORD", password)
        .with_env("MYSQL_DATABASE", "func")
        .with_env("MYSQL_USER", "func")
        .with_env("MYSQL_PASSWORD", "func-password")
    )
    with container:
        server = MysqlServer(container_ip(container), password)
        wait_for(lambda: asyncio.run(_answers(server)))
        yield server


async def _answers(server: MysqlServer) -> bool:
    connection = await _connect_root(server)
    connection.close()
    return True


async def _connect_root(server: MysqlServer) -> aiomysql.Connection:
    where = urls.parse_mysql(server.url("mysql"))
    return await aiomysql.connect(
        host=where.host, port=where.port, user=where.user, password=where.password, autocommit=True
    )


@pytest.fixture
async def database(mysql_server: MysqlServer) -> AsyncIterator[str]:
    """`DB_URL` of an empty database of its own for one test."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await _connect_root(mysql_server)
    async with connection.cursor() as cursor:
        await cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield mysql_server.url(name)
        await cursor.execute(f"DROP DATABASE {name}")
    connection.close()


def wait_for(ready: Callable[[], object]) -> None:
    """Wait for a server to come up; its last error is the failure's."""
    until = clock.monotonic_s() + START_TIMEOUT_S
    while True:
        over = clock.monotonic_s() > until
        try:
            if ready():
                return
        except Exception:  # (whatever a starting server does)
            if over:
                raise
        if over:
            pytest.fail(f"not ready within {START_TIMEOUT_S} s")
        time.sleep(0.1)
