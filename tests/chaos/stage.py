"""Where does the chaos happen? A platform of two replicas each, its stores, and ways to harm it.

If a host is to be played, the last runner is there, with a network and a container engine of its
own (`tests.e2e.hosts`).
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from services.runner.containers import PLATFORM_LABEL, SANDBOX_LABEL
from shared import clock, urls
from tests.chaos.adversary import Harm
from tests.chaos.cable import Cable
from tests.chaos.routes import CAPACITY_WAIT_S
from tests.chaos.stores import Store
from tests.e2e import hosts
from tests.e2e.hosts import Host, Lan
from tests.e2e.images import docker
from tests.e2e.platforms import Platform, Role, Service

#: Prints what a docker command of one container engine prints.
Docker = Callable[..., str]

ROLES: tuple[Role, ...] = ("api", "scheduler", "runner")
REPLICAS = 2


@dataclass
class Replica:
    """One service of the platform, and its own ways to the stores."""

    service: Service
    cables: list[Cable]
    #: When it was harmed, and until when; monotonic seconds.
    harmed_s: list[tuple[float, float]] = field(default_factory=list)

    def harmed(self, from_s: float, to_s: float) -> bool:
        """Say whether it was harmed at any moment of a time."""
        return any(began <= to_s and from_s <= ended for began, ended in self.harmed_s)


@dataclass
class Stage:
    """A platform and the ways to harm it."""

    platform: Platform
    redis: Store
    mysql: Store
    replicas: dict[Role, list[Replica]]
    hosts: list[Host] = field(default_factory=list)

    @property
    def engines(self) -> tuple[Docker, ...]:
        """All container engines: this machine's, and the hosts'."""
        return (docker, *(host.docker for host in self.hosts))

    @property
    def folders(self) -> set[str]:
        """The folders in which sandboxes reach their runners."""
        return {runner.service.env["RUNNER_FOLDER"] for runner in self.replicas["runner"]}

    def sandboxes(self) -> list[str]:
        """Return the ids of the sandboxes' containers, running or not."""
        return [found for _, found in self._containers("-a", "--filter", f"label={SANDBOX_LABEL}")]

    def ended(self) -> list[str]:
        """Return the ids of the platform's containers that do not run: nobody has removed them."""
        states = ("created", "exited", "dead", "removing")
        filters = (f"status={state}" for state in states)
        options = (option for each in filters for option in ("--filter", each))
        return [found for _, found in self._containers("-a", *options)]

    def _containers(self, *options: str) -> list[tuple[Docker, str]]:
        """Return the ids of the platform's containers that are asked for, each with its engine."""
        label = f"label={PLATFORM_LABEL}={self.platform.name}"
        return [
            (engine, container_id)
            for engine in self.engines
            for container_id in engine("ps", "-q", "--filter", label, *options).split()
        ]

    def load(self, image: str) -> None:
        """Give the hosts an image of this machine's."""
        for host in self.hosts:
            host.load(image)

    async def perform(self, harm: Harm) -> str:
        """Do a deed, and undo it when its time is over; return what was done."""
        if harm.target in {"engine", "host"}:
            return await self._harm_host(harm)
        if harm.target == "sandbox":
            return await self._kill_sandbox(harm)
        if harm.target in {"redis", "mysql"}:
            return await self._harm_store(harm)
        role: Role = harm.target  # type: ignore[assignment]  # what is left are the roles
        replicas = self.replicas[role]
        replica = replicas[harm.which % len(replicas)]
        began_s = clock.monotonic_s()
        replica.harmed_s.append((began_s, float("inf")))
        await self._harm(replica, harm)
        # Who was called just then may learn of it only a little later.
        replica.harmed_s[-1] = (began_s - 1.0, clock.monotonic_s() + 2.0)
        return f"{harm.deed} {role} {replicas.index(replica)}, {harm.lasts_s:.1f} s"

    async def _harm(self, replica: Replica, harm: Harm) -> None:
        if harm.deed == "cut":
            await _cut(replica, harm.lasts_s)
        elif harm.deed == "freeze":
            await _freeze(replica.service, harm.lasts_s)
        else:
            await _end(replica.service, harm)

    async def _kill_sandbox(self, harm: Harm) -> str:
        containers = sorted(await asyncio.to_thread(self._containers), key=lambda found: found[1])
        if not containers:
            return "no sandbox to kill"
        engine, victim = containers[harm.which % len(containers)]
        try:
            await asyncio.to_thread(engine, "kill", victim)
        except RuntimeError as error:
            return f"sandbox {victim[:12]} was gone: {error}"
        return f"kill sandbox {victim[:12]}"

    async def _harm_host(self, harm: Harm) -> str:
        host = self.hosts[harm.which % len(self.hosts)]
        began_s = clock.monotonic_s()
        if harm.target == "host":
            await asyncio.to_thread(host.cut)
            await asyncio.sleep(harm.lasts_s)
            await asyncio.to_thread(host.mend)
        else:
            how = host.kill_engine if harm.deed == "kill" else host.stop_engine
            await asyncio.to_thread(how)
            await asyncio.sleep(harm.lasts_s)
            await asyncio.to_thread(host.start_engine)
            await asyncio.to_thread(host.wait_for_engine)
        took_s = clock.monotonic_s() - began_s
        return f"{harm.deed} {harm.target}, {harm.lasts_s:.1f} s, over after {took_s:.1f} s"

    async def _harm_store(self, harm: Harm) -> str:
        store = self.redis if harm.target == "redis" else self.mysql
        how = "kill" if harm.deed == "kill" else "stop"
        await asyncio.to_thread(docker, how, store.container_id)
        await asyncio.sleep(harm.lasts_s)
        await asyncio.to_thread(docker, "start", store.container_id)
        return f"{how} {harm.target}, {harm.lasts_s:.1f} s"


async def _cut(replica: Replica, lasts_s: float) -> None:
    for cable in replica.cables:
        cable.cut()
    await asyncio.sleep(lasts_s)
    for cable in replica.cables:
        cable.mend()


async def _freeze(service: Service, lasts_s: float) -> None:
    assert service.process is not None
    service.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(lasts_s)
    service.process.send_signal(signal.SIGCONT)


async def _end(service: Service, harm: Harm) -> None:
    if harm.deed == "kill":
        await asyncio.to_thread(service.kill)
    else:
        service.terminate()
        code = await asyncio.to_thread(service.wait_end)
        assert code == 0, f"{service.role} ended with {code}:\n{service.log_tail()}"
    await asyncio.sleep(harm.lasts_s)
    service.start()
    await asyncio.to_thread(service.wait_ready)


@asynccontextmanager
async def stage(
    redis: Store, mysql: Store, folder: Path, *, hosts_played: int = 0
) -> AsyncIterator[Stage]:
    """Give a platform with `REPLICAS` of each service while inside; all are ready.

    With `hosts_played` 1, the last of the runners is on a host of its own. Fails if anything of
    the platform is left on that when all services have ended.
    """
    settings = {"CAPACITY_WAIT_S": f"{CAPACITY_WAIT_S}", "LOG_LEVEL": "info"}
    platform = Platform(mysql.url, redis.url, folder, settings)
    async with AsyncExitStack() as stack:
        lan = stack.enter_context(hosts.lan(hosts_played)) if hosts_played else None
        with platform:
            made = Stage(platform, redis, mysql, {role: [] for role in ROLES})
            for role in ROLES:
                for number in range(REPLICAS):
                    there = lan if role == "runner" and number == REPLICAS - 1 else None
                    made.replicas[role].append(await _replica(platform, role, stack, there))
            for service in platform.services:
                await asyncio.to_thread(service.wait_ready)
            made.hosts += lan.hosts if lan else []
            yield made
        for host in made.hosts:
            left = host.containers(f"{PLATFORM_LABEL}={platform.name}")
            assert not left, f"containers left on a host after all services had ended: {left}"


async def _replica(
    platform: Platform, role: Role, stack: AsyncExitStack, lan: Lan | None
) -> Replica:
    """Start a replica whose ways to the stores can be cut; `lan`: on its host, a runner."""
    redis, mysql = urlsplit(platform.mq_url), urls.parse_mysql(platform.db_url)
    listen = lan.gateway if lan else "127.0.0.1"
    to_redis = await stack.enter_async_context(
        Cable(redis.hostname or "", redis.port or 6379, listen)
    )
    to_mysql = await stack.enter_async_context(Cable(mysql.host, mysql.port, listen))
    at = {
        "MQ_URL": f"redis://{listen}:{to_redis.port}{redis.path}",
        "DB_URL": f"mysql://{mysql.user}:{mysql.password}@{listen}:{to_mysql.port}/{mysql.name}",
    }
    service = lan.hosts[0].join(platform, **at) if lan else platform.add(role, **at)
    return Replica(service, [to_redis, to_mysql])
