"""How does a whole platform run on this machine? Its real processes, to start, stop and kill."""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pymysql
import pytest

from shared import clock, urls
from tests.conftest import MysqlServer
from tests.e2e.images import docker

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 60
#: SIGTERM to the end: what draining may take.
DRAIN_TIMEOUT_S = 60
#: What a service inherits from the test's own environment; all else it gets from its platform.
INHERITED = ("PATH", "HOME", "DOCKER_HOST")

#: The first process of sandboxes, out of the image of the services.
INIT = ROOT / ".cache" / "init"

Role = Literal["api", "scheduler", "runner"]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """One replica of a service: a process that may be killed and started again."""

    role: Role
    env: dict[str, str]
    log: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    #: What Python runs, if it is not the service's module itself.
    arguments: list[str] = field(default_factory=list)
    #: What the process is started by, for one that is elsewhere; and the address it has there.
    starter: tuple[str, ...] = ()
    address: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """Where it serves HTTP."""
        return f"http://{self.address}:{self.port}"

    def start(self) -> None:
        """Start the process; does not wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.starter,
                    sys.executable,
                    *(self.arguments or ["-m", f"services.{self.role}"]),
                ],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ready(self) -> bool:
        """Return whether `/readyz` says 200; fails the test if the process has ended."""
        if self.process is None or self.process.poll() is not None:
            pytest.fail(f"{self.role} ended; its log:\n{self.log_tail()}")
        connection = http.client.HTTPConnection(self.address, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait_ready(self) -> None:
        """Wait until it is ready."""
        until = clock.monotonic_s() + READY_TIMEOUT_S
        while not self.ready():
            if clock.monotonic_s() > until:
                pytest.fail(f"{self.role} is not ready; its log:\n{self.log_tail()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Send SIGTERM; see `wait_end`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait_end(self) -> int:
        """Return the exit code after a SIGTERM; kills a process that does not end, and fails."""
        assert self.process is not None
        try:
            return self.process.wait(DRAIN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.role} ignores SIGTERM; its log:\n{self.log_tail()}")

    def log_tail(self, start: int = 0, most: int = 20_000) -> str:
        """Return the end of its log after a position, in bytes."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(start, self.log.stat().st_size - most))
            return log.read().decode(errors="replace")


@dataclass
class Platform:
    """A platform of its own: name, data stores, processes. Use as a context manager.

    Leaving it ends all processes by SIGTERM and fails if one does not end well or if a
    container of the platform is left.
    """

    db_url: str
    mq_url: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"e2e-{secrets.token_hex(4)}")
    services: list[Service] = field(default_factory=list)

    def add(
        self,
        role: Role,
        *,
        starter: tuple[str, ...] = (),
        address: str = "127.0.0.1",
        **settings: str,
    ) -> Service:
        """Start one more replica, with settings of its own; does not wait until it is ready."""
        port = free_port()
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        env |= {
            "DB_URL": self.db_url,
            "MQ_URL": self.mq_url,
            "PLATFORM_NAME": self.name,
            "RUNNER_NETWORK": self.network,
            "PORT": str(port),
            "LOG_LEVEL": "info",
            "RUNNER_INIT": str(INIT),
            "RUNNER_FOLDER": f"/tmp/{self.name}",
        }
        log = self.folder / f"{len(self.services)}-{role}.log"
        service = Service(
            role, env | self.settings | settings, log, port, starter=starter, address=address
        )
        service.start()
        self.services.append(service)
        return service

    def remove(self, service: Service) -> None:
        """End a replica by SIGTERM; fails if it does not end well."""
        service.terminate()
        code = service.wait_end()
        assert code == 0, f"{service.role} ended with {code}:\n{service.log_tail()}"

    def start(self) -> Self:
        """Start one replica of each service and wait until all are ready."""
        roles: tuple[Role, ...] = ("api", "scheduler", "runner")
        for service in [self.add(role) for role in roles]:
            service.wait_ready()
        return self

    def first(self, role: Role) -> Service:
        """Return the oldest replica of a service that lives."""
        return next(s for s in self.living() if s.role == role)

    @property
    def network(self) -> str:
        """The name of its functions' network."""
        return f"{self.name}-functions"

    @property
    def url(self) -> str:
        """Where the first api replica serves."""
        return self.first("api").url

    def living(self) -> list[Service]:
        """Return the services whose processes run."""
        return [s for s in self.services if s.process and s.process.poll() is None]

    def containers(self) -> set[str]:
        """Return the ids of the platform's containers, running or not."""
        label = f"label=millrace.platform={self.name}"
        return set(docker("ps", "-aq", "--filter", label).split())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        living = self.living()
        for service in living:
            service.terminate()
        codes = {f"{s.role} {s.log}": s.wait_end() for s in living}
        left = self.containers()
        if left:
            docker("rm", "-fv", *left)
        # Runners that start at the same instant may each make one; all of them use the oldest.
        networks = docker("network", "ls", "-q", "--filter", f"name=^{self.network}$").split()
        if networks:
            docker("network", "rm", *networks)
        if error is None:
            assert not left, f"containers left after all services had ended: {left}"
            assert set(codes.values()) <= {0}, f"exit codes after SIGTERM: {codes}"


@contextmanager
def database(server: MysqlServer) -> Iterator[str]:
    """Give the `DB_URL` of an empty database of its own while inside."""
    name = f"e2e_{secrets.token_hex(6)}"
    _execute(server, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        yield server.url(name)
    finally:
        _execute(server, f"DROP DATABASE {name}")


def _execute(server: MysqlServer, statement: str) -> None:
    where = urls.parse_mysql(server.url("mysql"))
    with (
        pymysql.connect(
            host=where.host, port=where.port, user=where.user, password=where.password
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
