"""Where does the chaos happen? A platform of two replicas each, its stores, and ways to harm it."""

import asyncio
import signal
from collections.abc import AsyncIterator
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
from tests.e2e.images import docker
from tests.e2e.platforms import Platform, Role, Service

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

    def sandboxes(self) -> list[str]:
        """Return the ids of the sandboxes' containers, running or not."""
        label = f"label={PLATFORM_LABEL}={self.platform.name}"
        found = docker("ps", "-aq", "--filter", label, "--filter", f"label={SANDBOX_LABEL}")
        return found.split()

    async def perform(self, harm: Harm) -> str:
        """Do a deed, and undo it when its time is over; return what was done."""
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
        containers = sorted(await asyncio.to_thread(self.platform.containers))
        if not containers:
            return "no sandbox to kill"
        victim = containers[harm.which % len(containers)]
        try:
            await asyncio.to_thread(docker, "kill", victim)
        except RuntimeError as error:
            return f"sandbox {victim[:12]} was gone: {error}"
        return f"kill sandbox {victim[:12]}"

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
async def stage(redis: Store, mysql: Store, folder: Path) -> AsyncIterator[Stage]:
    """Give a platform with `REPLICAS` of each service while inside; all are ready."""
    settings = {"CAPACITY_WAIT_S": f"{CAPACITY_WAIT_S}", "LOG_LEVEL": "info"}
    platform = Platform(mysql.url, redis.url, folder, settings)
    async with AsyncExitStack() as cables:
        with platform:
            replicas = {
                role: [await _replica(platform, role, cables) for _ in range(REPLICAS)]
                for role in ROLES
            }
            for service in platform.services:
                await asyncio.to_thread(service.wait_ready)
            yield Stage(platform, redis, mysql, replicas)


async def _replica(platform: Platform, role: Role, stack: AsyncExitStack) -> Replica:
    """Start a replica whose ways to the stores can be cut."""
    redis, mysql = urlsplit(platform.mq_url), urls.parse_mysql(platform.db_url)
    to_redis = await stack.enter_async_context(Cable(redis.hostname or "", redis.port or 6379))
    to_mysql = await stack.enter_async_context(Cable(mysql.host, mysql.port))
    db_url = f"mysql://{mysql.user}:{mysql.password}@127.0.0.1:{to_mysql.port}/{mysql.name}"
    service = platform.add(
        role, MQ_URL=f"redis://127.0.0.1:{to_redis.port}{redis.path}", DB_URL=db_url
    )
    return Replica(service, [to_redis, to_mysql])
