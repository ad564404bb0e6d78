"""Where do the data live amid the chaos? A Redis and a MySQL that may be killed and come back."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pymysql
from testcontainers.core.container import DockerContainer

from shared import clock
from tests.conftest import MYSQL_IMAGE, REDIS_IMAGE, START_TIMEOUT_S
from tests.e2e.conftest import wait_for_redis
from tests.e2e.platforms import free_port


@dataclass(frozen=True, slots=True)
class Store:
    """A data store in a container, and its address, which outlives a restart."""

    container: DockerContainer
    url: str

    @property
    def container_id(self) -> str:
        """What the engine calls it."""
        return str(self.container.get_wrapped_container().id)


@contextmanager
def redis() -> Iterator[Store]:
    """Give a Redis that keeps on disk what it was told."""
    port = free_port()
    command = "redis-server --appendonly yes --protected-mode no"
    container = DockerContainer(REDIS_IMAGE).with_command(command).with_bind_ports(6379, port)
    with container:
        url = f"redis://127.0.0.1:{port}/0"
        wait_for_redis(url)
        yield Store(container, url)


@contextmanager
def mysql() -> Iterator[Store]:
    """Give a MySQL with an empty database."""
    port, password = free_port(), secrets.token_hex(8)
    container = (
        DockerContainer(MYSQL_IMAGE)
        .with_env("MYSQL_ROOT_PASSWORD", secrets.token_hex(8))
        .with_env("MYSQL_DATABASE", "func")
        .with_env("MYSQL_USER", "func")
        .with_env("MYSQL_PASSWORD", password)
        .with_bind_ports(3306, port)
    )
    with container:
        _wait_for_mysql(port, password)
        yield Store(container, f"mysql://func:{password}@127.0.0.1:{port}/func")


def _wait_for_mysql(port: int, password: str) -> None:
    until_s = clock.monotonic_s() + START_TIMEOUT_S
    while True:
        try:
            pymysql.connect(
                host="127.0.0.1", port=port, user="func", password=password, database="func"
            ).close()
        except pymysql.MySQLError:
            if clock.monotonic_s() > until_s:
                raise
            time.sleep(0.2)
        else:
            return
