"""Does any call fail while each replica is restarted in turn? `python -m tests.chaos.rolling`.

Two replicas each of api, scheduler and runner. Callers go to a replica that says it is ready (asked
four times a second, as a load balancer does), on connections that are kept. Each replica gets
SIGTERM, ends, is started again and is ready before it is the turn of the next one. Prints a
Markdown table. Ends with 1 if a call failed.
"""

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from shared import clock
from tests.bench import echoes
from tests.chaos import stores
from tests.chaos.running import session, tell
from tests.chaos.stage import ROLES, Replica, Stage, stage
from tests.conftest import eventually
from tests.e2e.client import Client
from tests.e2e.images import require_engine
from tests.e2e.platforms import Role, Service

#: How often a replica is asked if it is ready, and what passes between two restarts, in seconds.
_CHECK_S, _BETWEEN_S = 0.25, 2.0
_UNDER_WAY_MAX = 2_000


@dataclass
class Front:
    """Knows which api replicas are ready, and calls those."""

    calling: aiohttp.ClientSession
    services: list[Service]
    ready: set[int] = field(default_factory=set)

    async def check(self) -> None:
        """Ask all replicas, for ever."""
        while True:
            answers = await asyncio.gather(*map(self._is_ready, self.services))
            self.ready = {number for number, ready in enumerate(answers) if ready}
            await asyncio.sleep(_CHECK_S)

    async def whole(self) -> bool:
        """Say whether all replicas are ready."""
        return len(self.ready) == len(self.services)

    async def _is_ready(self, service: Service) -> bool:
        try:
            async with (
                asyncio.timeout(1.0),
                self.calling.get(f"{service.url}/readyz") as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def call(self, path: str, body: bytes) -> str:
        """Call a replica; return what was wrong, "" if nothing was."""
        if not self.ready:
            return "no replica is ready"
        service = self.services[random.choice(sorted(self.ready))]
        try:
            async with self.calling.post(service.url + path, data=body) as answer:
                got = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return repr(error)
        if answer.status == 200 and got == body:
            return ""
        return f"{answer.status} {got[:120].decode(errors='replace')}"


@dataclass
class Restart:
    """What callers saw while one replica was restarted."""

    what: str
    took_s: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    stopping_s: float = 0.0

    def line(self) -> str:
        """Return it as a line of a Markdown table."""
        longest_s = max(self.took_s, default=0.0)
        return (
            f"| {self.what} | {len(self.took_s):,} | {self.wrong.total()} "
            f"| {longest_s:.2f} s | {self.stopping_s:.1f} s |"
        )


class Load:
    """Calls at a steady rate; what they see belongs to the restart of their time."""

    def __init__(self, front: Front, path: str) -> None:
        self._front, self._path = front, path
        self.now = Restart("before")

    async def flow(self, per_s: float, over: asyncio.Event) -> None:
        """Make so many calls a second until it is over, and wait for them."""
        began_s, made = clock.monotonic_s(), 0
        under_way: set[asyncio.Task[None]] = set()
        while not over.is_set():
            while (
                made < (clock.monotonic_s() - began_s) * per_s and len(under_way) < _UNDER_WAY_MAX
            ):
                made += 1
                call = asyncio.create_task(self._call(made, self.now))
                under_way.add(call)
                call.add_done_callback(under_way.discard)
            await asyncio.sleep(0.002)
        await asyncio.gather(*under_way)

    async def _call(self, number: int, seen: Restart) -> None:
        began_s = clock.monotonic_s()
        why = await self._front.call(self._path, b"call %d" % number)
        seen.took_s.append(clock.monotonic_s() - began_s)
        if why:
            seen.wrong[why] += 1
            tell(f"{seen.what}: {why}")


@asynccontextmanager
async def _checked(front: Front) -> AsyncIterator[None]:
    checking = asyncio.create_task(front.check())
    try:
        yield
    finally:
        checking.cancel()
        await asyncio.wait([checking])


async def restarted(replica: Replica, seen: Restart) -> None:
    """End a replica by SIGTERM and start it again; returns when it is ready."""
    service = replica.service
    began_s = clock.monotonic_s()
    service.terminate()
    code = await asyncio.to_thread(service.wait_end)
    seen.stopping_s = clock.monotonic_s() - began_s
    if code:
        seen.wrong[f"ended with {code}"] += 1
    service.start()
    await asyncio.to_thread(service.wait_ready)


async def rolled(where: Stage, client: Client, rate: float, rounds: int) -> list[Restart]:
    """Restart all replicas in turn under load; return what callers saw."""
    app = f"rolling-{secrets.token_hex(4)}"
    path = await client.deploy(app, "/echo", await echoes.image("default"))
    async with session() as calling:
        front = Front(calling, [replica.service for replica in where.replicas["api"]])
        async with _checked(front):
            await eventually(front.whole)
            assert not await front.call(path, b"first")
            load, over = Load(front, path), asyncio.Event()
            found = [load.now]
            flowing = asyncio.create_task(load.flow(rate, over))
            await asyncio.sleep(2 * _BETWEEN_S)
            for number, (role, which) in enumerate(_turns(rounds)):
                load.now = Restart(f"{number + 1}. {role} {which}")
                found.append(load.now)
                tell(f"restarting {role} {which}")
                await restarted(where.replicas[role][which], load.now)
                await asyncio.sleep(_BETWEEN_S)
            over.set()
            await flowing
    return found


def _turns(rounds: int) -> list[tuple[Role, int]]:
    return [(role, which) for _ in range(rounds) for role in ROLES for which in (0, 1)]


async def main() -> int:
    """Set the stage, restart all, print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second (200)")
    parser.add_argument("--rounds", type=int, default=1, help="times that all are restarted (1)")
    wanted = parser.parse_args()
    os.environ["CI"] = "1"
    require_engine()
    folder = Path(tempfile.mkdtemp(prefix="rolling-"))
    tell(f"logs of the services in {folder}")
    with stores.redis() as redis, stores.mysql() as mysql:
        async with stage(redis, mysql, folder) as where, session() as calling:
            client = Client(calling, where.platform.url)
            found = await rolled(where, client, wanted.rate, wanted.rounds)
    head = [
        "| restarted | calls | failed | longest call | ended after |",
        "|---|---:|---:|---:|---:|",
    ]
    sys.stdout.write("\n".join([*head, *(restart.line() for restart in found)]) + "\n")
    return 1 if any(restart.wrong for restart in found) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
