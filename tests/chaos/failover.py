"""How long does it take until calls are answered again? `python -m tests.chaos.failover`.

Kills and stops one part after the other of a platform with two replicas each, while calls come one
after the other, and prints how long the longest of these took, and what the callers got.
"""

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from shared import clock
from tests.bench import echoes
from tests.chaos import stores
from tests.chaos.running import session, tell
from tests.chaos.stage import Replica, Stage, stage
from tests.e2e.client import Client
from tests.e2e.images import docker, function_image, require_engine
from tests.e2e.load import metric

#: How long is looked on after each deed, and the pause between two calls, in seconds.
_LOOK_S, _PAUSE_S = 12.0, 0.02
#: A function that never answers in time, and its caller's patience in seconds.
_SLEEPER, _SLEEPS_S = "sleep 600", 120


@dataclass(frozen=True, slots=True)
class Outage:
    """What callers saw of one failure."""

    what: str
    calls: int
    failed: int
    #: The longest that one call took until its answer, whatever it was.
    longest_s: float
    #: From the deed to the end of the last call that failed.
    failing_s: float

    def line(self) -> str:
        """Return it as a line of a Markdown table."""
        return (
            f"| {self.what} | {self.calls} | {self.failed} "
            f"| {self.longest_s:.2f} s | {self.failing_s:.2f} s |"
        )


async def watched(
    client: Client, path: str, what: str, deed: Callable[[], Awaitable[object]]
) -> Outage:
    """Do a deed while one caller calls without end; return what that caller saw."""
    over = asyncio.Event()
    began_s = clock.monotonic_s()
    calls: list[tuple[float, bool]] = []
    failing_s = 0.0

    async def caller() -> None:
        nonlocal failing_s
        while not over.is_set():
            asked_s = clock.monotonic_s()
            answer = await client.post(path, data=b"x")
            calls.append((clock.monotonic_s() - asked_s, answer.status == 200))
            if answer.status != 200:
                failing_s = clock.monotonic_s() - began_s
            await asyncio.sleep(_PAUSE_S)

    calling = asyncio.create_task(caller())
    await deed()
    await asyncio.sleep(_LOOK_S)
    over.set()
    await calling
    failed = sum(not fine for _, fine in calls)
    tell(f"{what}: longest {max(took for took, _ in calls):.2f} s, {failed} of {len(calls)} failed")
    return Outage(what, len(calls), failed, max(took for took, _ in calls), failing_s)


async def active(where: Stage, client: Client) -> Replica:
    """Return the scheduler that decides now."""
    for replica in where.replicas["scheduler"]:
        if await metric(client.at(replica.service.url), "millrace_scheduler_active"):
            return replica
    raise RuntimeError("no scheduler is active")


async def back(replica: Replica) -> None:
    """Start what was ended, and wait until it is ready."""
    replica.service.start()
    await asyncio.to_thread(replica.service.wait_ready)


async def restart(where: Stage, name: str) -> None:
    """Kill a store and start it at once."""
    store = where.redis if name == "redis" else where.mysql
    await asyncio.to_thread(docker, "kill", store.container_id)
    await asyncio.to_thread(docker, "start", store.container_id)


async def schedulers(where: Stage, client: Client, path: str) -> list[Outage]:
    """Measure what becomes of calls when the active scheduler ends."""
    found = []
    for what, signal in (("kill -9", "kill"), ("SIGTERM", "terminate")):
        replica = await active(where, client)

        async def deed(replica: Replica = replica, signal: str = signal) -> None:
            await asyncio.to_thread(getattr(replica.service, signal))

        found.append(await watched(client, path, f"active scheduler: {what}", deed))
        if signal == "terminate":
            await asyncio.to_thread(replica.service.wait_end)
        await back(replica)
    return found


async def runners(where: Stage, client: Client, path: str, sleeper: str) -> list[Outage]:
    """Measure what becomes of calls when a runner ends; also of one that it had started."""
    replica = where.replicas["runner"][0]
    told: list[str] = []

    async def started() -> None:
        began_s = clock.monotonic_s()
        answer = await client.post(sleeper)
        told.append(f"{answer.status} {answer.code} after {clock.monotonic_s() - began_s:.2f} s")

    async def deed() -> None:
        await asyncio.to_thread(replica.service.kill)

    waiting = [asyncio.create_task(started()) for _ in range(4)]
    await asyncio.sleep(3.0)
    found = [await watched(client, path, "runner: kill -9", deed)]
    await back(replica)
    await asyncio.sleep(1.0)
    tell(f"calls that had started: {told}")
    for left in waiting:
        left.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return found


async def rest(where: Stage, client: Client, path: str) -> list[Outage]:
    """Measure what becomes of calls when stores are killed, or a runner is stopped."""
    stopped = where.replicas["runner"][1]

    async def stop() -> None:
        stopped.service.terminate()
        await asyncio.to_thread(stopped.service.wait_end)

    found = [await watched(client, path, "runner: SIGTERM", stop)]
    await back(stopped)
    for name in ("redis", "mysql"):
        what = f"{name}: kill -9, started at once"
        found.append(await watched(client, path, what, lambda name=name: restart(where, name)))
    return found


async def main() -> None:
    """Set the stage, measure, print."""
    os.environ["CI"] = "1"
    require_engine()
    folder = Path(tempfile.mkdtemp(prefix="failover-"))
    with stores.redis() as redis, stores.mysql() as mysql:
        async with stage(redis, mysql, folder) as where, session() as calling:
            client = Client(calling, where.platform.url)
            app = f"failover-{secrets.token_hex(4)}"
            path = await client.deploy(app, "/echo", await echoes.image("default"))
            image = await asyncio.to_thread(function_image, _SLEEPER)
            sleeper = await client.deploy(app, "/sleep", image, timeout=_SLEEPS_S)
            await client.post(path, data=b"x")
            found = [
                *await schedulers(where, client, path),
                *await runners(where, client, path, sleeper),
                *await rest(where, client, path),
            ]
    lines = [outage.line() for outage in found]
    head = [
        "| failure | calls | failed | longest call | last failure after |",
        "|---|---:|---:|---:|---:|",
    ]
    sys.stdout.write("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
