"""Harm a platform while it is called, and judge it: `python -m tests.chaos`, or `make chaos`.

Starts two replicas of each service, a MySQL and a Redis of its own on this machine, and ends them
all. One of the runners is on a host that is played, with a container engine of its own, unless
`--hosts 0` is said. The same seed does the same harm at the same times. Prints Markdown, keeps it
with a JSON file under `.cache/chaos`. Ends with 1 if a promise was broken.
"""

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import echoes
from tests.chaos import adversary, audit, stores
from tests.chaos.report import Report
from tests.chaos.routes import KINDS, Kind
from tests.chaos.running import seconds, session, tell
from tests.chaos.stage import ROLES, Stage, stage
from tests.chaos.traffic import Traffic
from tests.e2e import hosts
from tests.e2e.client import Client
from tests.e2e.images import function_image, require_engine

KEPT_IN = Path(__file__).parents[2] / ".cache" / "chaos"
#: How long the load flows before the first harm, in seconds.
_WARM_UP_S = 10.0


def asked_for() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long harm is done (5)")
    parser.add_argument("--seed", type=int, help="which harm; by chance if it is left out")
    parser.add_argument("--rate", type=float, default=20.0, help="calls a second (20)")
    hosts_help = "hosts that are played: one with a runner and an engine of its own, or none (1)"
    parser.add_argument("--hosts", type=int, choices=(0, 1), default=1, help=hosts_help)
    return parser.parse_args()


async def deploy(client: Client, app: str, where: Stage) -> None:
    """Make the routes that are called; hosts get their images, for they have no registry."""
    for kind in KINDS:
        image = await _image(kind)
        await asyncio.to_thread(where.load, image)
        await client.deploy(app, kind.path, image, **kind.route())


async def _image(kind: Kind) -> str:
    if kind.echo is not None:
        return await echoes.image(kind.echo)
    return await asyncio.to_thread(function_image, kind.script)


async def harmed(where: Stage, seed: int, lasting_s: float) -> list[str]:
    """Do all harm of a seed, one after the other; return what was done."""
    done = []
    for harm in adversary.harms(seed, lasting_s, hosts=len(where.hosts)):
        await asyncio.sleep(harm.after_s)
        at_s = seconds()
        what = await where.perform(harm)
        tell(what)
        done.append(f"{at_s:.0f}s {what}")
    return done


async def chaos(where: Stage, wanted: argparse.Namespace) -> Report:
    """Call, harm, wait for calm, judge."""
    async with session() as calling:
        app = f"chaos-{secrets.token_hex(4)}"
        await deploy(Client(calling, where.platform.url), app, where)
        traffic = Traffic(calling, app, where.replicas["api"], random.Random(wanted.seed))
        over = asyncio.Event()
        flowing = asyncio.create_task(traffic.flow(wanted.rate, over))
        await asyncio.sleep(_WARM_UP_S)
        young = {role: audit.open_files(where.replicas[role][0].service) for role in ROLES}
        try:
            deeds = await harmed(where, wanted.seed, wanted.minutes * 60)
        finally:
            over.set()
            await flowing
    tell(f"{len(traffic.seen)} calls made; waiting for calm")
    async with session() as asking:
        defects = await judged(where, Client(asking, where.platform.url), traffic, young)
    calls = [call for call, _ in traffic.seen]
    return Report(
        wanted.seed, wanted.minutes, wanted.rate, deeds, calls, len(traffic.accepted), defects
    )


async def judged(
    where: Stage, client: Client, traffic: Traffic, young: dict[str, Counter[str]]
) -> audit.Defects:
    """Return all promises, each with what broke it."""
    left = await audit.calm(client, where)
    # First of all: the questions that follow open connections themselves.
    files = await audit.of_files(where, young)
    return {
        "never calm again": [left] if left else [],
        **files,
        **audit.of_callers(traffic),
        **await audit.of_accepted(client, traffic),
        **await audit.of_records(client, traffic),
        **await audit.of_redis(where),
    }


def keep(report: Report) -> Path:
    """Write a report into new files; return the Markdown one."""
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    file = KEPT_IN / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{report.seed}.md"
    file.write_text(report.markdown())
    file.with_suffix(".json").write_bytes(report.json())
    return file


async def main() -> int:
    """Set the stage, let it happen; return the exit code."""
    wanted = asked_for()
    if wanted.seed is None:
        wanted.seed = secrets.randbelow(1_000_000)
    os.environ["CI"] = "1"
    require_engine()
    if wanted.hosts:
        hosts.require()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    tell(f"seed {wanted.seed}; logs of the services in {folder}")
    with stores.redis() as redis, stores.mysql() as mysql:
        async with stage(redis, mysql, folder, hosts_played=wanted.hosts) as where:
            report = await chaos(where, wanted)
    sys.stdout.write(report.markdown() + "\n")
    tell(f"kept in {keep(report)}")
    return 0 if report.went_well else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
