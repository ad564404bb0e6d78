"""What if ten times as many calls come as can be served? `python -m tests.chaos.overload`.

Starts a platform of its own with one replica each, finds out how many calls a second it can serve,
how long they take at half of that, and then offers it ten times as many, for two minutes, from a
process of its own on the same machine. Prints a Markdown table. Ends with 1 if a bound is broken;
with `--no-times` only of what does not depend on the machine's speed.
"""

import argparse
import asyncio
import os
import secrets
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import redis.asyncio as redis_asyncio

from tests.chaos import flood, stores
from tests.chaos.flood import Call, Told
from tests.chaos.running import session, tell
from tests.e2e.client import Client
from tests.e2e.images import function_image, require_engine
from tests.e2e.load import resident_bytes
from tests.e2e.platforms import Platform, Role

#: The function sleeps, so many at one time: what is scarce is not the CPU, which the load needs.
_SCRIPT, _SANDBOXES, _MEMORY_MB = "sleep 0.3; cat", 16, 64
ROLES: tuple[Role, ...] = ("api", "scheduler", "runner")
_WORDS = {True: "", False: "BROKEN"}
OK, TOO_MANY, UNAVAILABLE = 200, 429, 503

#: What is promised: how much longer accepted calls take, how soon a refusal comes, how much
#: memory grows, after how long the platform is as fast as before, and how much of it is used.
LONGER, REFUSED_WITHIN_S, GROWTH, CALM_AFTER_S, USED = 3.0, 0.1, 1.3, 10.0, 0.8


@dataclass
class Memory:
    """Resident memory of each service, in MB, as often as it was looked at."""

    before: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)


@dataclass
class Found:
    """All that was measured."""

    factor: float
    sustainable_per_s: float
    normal: list[Call]
    during: Told
    after: list[Call]
    memory: Memory
    slow_s: float = 0.0

    def __post_init__(self) -> None:
        self.slow_s = LONGER * percentile(took(accepted(self.normal)), 0.99)

    def times(self) -> dict[str, tuple[str, bool]]:
        """Return what depends on the machine's speed: what it was, and if it is as promised."""
        normal_s = percentile(took(accepted(self.normal)), 0.99)
        p99_s = percentile(took(accepted(self.during.calls)), 0.99)
        no_s = took(refused(self.during.calls))
        said_no_mostly_s, said_no_s = percentile(no_s, 0.5), percentile(no_s, 0.99)
        calm_s = self.calm_after_s()
        share = len(accepted(self.during.calls)) / self.during.took_s / self.sustainable_per_s
        load = self.during.cpu_s / self.during.took_s
        return {
            "calls a second that can be served": (f"{self.sustainable_per_s:.0f}", True),
            "p99 at half of that": (f"{normal_s * 1000:.0f} ms", True),
            f"p99 of accepted calls at {self.factor:g} times as many": (
                f"{p99_s * 1000:.0f} ms, {p99_s / normal_s:.1f} x",
                p99_s <= LONGER * normal_s,
            ),
            "p50, p99 of refusals": (
                f"{said_no_mostly_s * 1000:.1f} ms, {said_no_s * 1000:.1f} ms",
                said_no_s <= REFUSED_WITHIN_S,
            ),
            "accepted, of what can be served": (f"{share:.0%}", share >= USED),
            "as fast as before after": (f"{calm_s:.1f} s", calm_s <= CALM_AFTER_S),
            "CPU of the load itself": (f"{load:.0%} of one", True),
        }

    def counts(self) -> dict[str, tuple[str, bool]]:
        """Return what does not: what it was, and whether it is as promised."""
        yes, no = accepted(self.during.calls), refused(self.during.calls)
        other = [c for c in self.during.calls if c.status not in {OK, TOO_MANY, UNAVAILABLE}]
        unsaid = [c for c in no if not c.retry_after_s]
        words = Counter(f"{c.status} {c.code}" for c in no)
        broken = Counter(f"{c.status} {c.code}" for c in other)
        lines = {
            "accepted": (f"{len(yes):,}", bool(yes)),
            "refused": (_told(words), bool(no) and not unsaid),
            "neither": (_told(broken) or "0", not other),
            "not even asked (the load was at its end)": (f"{self.during.unmade:,}", True),
            "failed before": (_told(_failures(self.normal)) or "0", not _failures(self.normal)),
        }
        memory = self.memory
        for name, before in memory.before.items():
            most = memory.most[name]
            lines[f"memory of {name} before, at most, after"] = (
                f"{before:.0f}, {most:.0f}, {memory.after[name]:.0f} MB: {most / before:.2f} x",
                most <= GROWTH * before,
            )
        return lines

    def calm_after_s(self) -> float:
        """Return when the last call after the flood was made that was refused or slow."""
        bad = [c.at_s for c in self.after if c.status != OK or c.took_s > self.slow_s]
        return max(bad, default=0.0)


def accepted(calls: list[Call]) -> list[Call]:
    """Return those that the function answered."""
    return [call for call in calls if call.status == OK]


def refused(calls: list[Call]) -> list[Call]:
    """Return those that were told to come again."""
    return [call for call in calls if call.status in {TOO_MANY, UNAVAILABLE}]


def took(calls: list[Call]) -> list[float]:
    """Return how long each took."""
    return [call.took_s for call in calls]


def percentile(values: list[float], part: float) -> float:
    """Return the value below which a part of all lies; not a number if there are none.

    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5)
    3.0
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


def _failures(calls: list[Call]) -> Counter[str]:
    return Counter(f"{c.status} {c.code}" for c in calls if c.status != OK)


def _told(words: Counter[str]) -> str:
    return ", ".join(f"{count:,} x {word}" for word, count in words.most_common(4))


class Watched:
    """The platform, its memory looked at now and then."""

    def __init__(self, client: Client, platform: Platform) -> None:
        self._client = client
        self._urls = {role: platform.first(role).url for role in ROLES}
        self._redis = redis_asyncio.Redis.from_url(platform.mq_url)

    async def memory_mb(self) -> dict[str, float]:
        """Return the resident memory of each process now."""
        found = {
            role: await resident_bytes(self._client.at(url)) / 1e6
            for role, url in self._urls.items()
        }
        return found | {"redis": (await self._redis.info("memory"))["used_memory_rss"] / 1e6}

    async def most_mb(self, over: asyncio.Event) -> dict[str, float]:
        """Return the most that each had at any look, until it is over."""
        most = await self.memory_mb()
        while not over.is_set():
            await asyncio.sleep(1.0)
            now = await self.memory_mb()
            most = {name: max(size, now[name]) for name, size in most.items()}
        return most

    async def close(self) -> None:
        await self._redis.aclose()


async def measured(platform: Platform, client: Client, wanted: argparse.Namespace) -> Found:
    """Measure it all."""
    app = f"overload-{secrets.token_hex(4)}"
    image = await asyncio.to_thread(function_image, _SCRIPT)
    fields = {"memory": _MEMORY_MB, "timeout": 30, "idle_timeout": 300}
    url = platform.url + await client.deploy(app, "/work", image, **fields)
    watched = Watched(client, platform)
    short_s = min(20.0, wanted.minutes * 60)
    tell("callers who wait for their answers, twice as many as can be served at a time")
    await flood.run(url, short_s / 2, callers=2 * _SANDBOXES)
    steady = await flood.run(url, short_s, callers=2 * _SANDBOXES)
    served_per_s = len(accepted(steady.calls)) / steady.took_s
    tell(f"{served_per_s:.0f} calls a second can be served; now half of that")
    normal = await flood.run(url, short_s, rate=served_per_s / 2)
    memory = Memory(before=await watched.memory_mb())
    over = asyncio.Event()
    looking = asyncio.create_task(watched.most_mb(over))
    tell(f"{wanted.factor:g} times what can be served, for {wanted.minutes:g} min")
    during = await flood.run(url, wanted.minutes * 60, rate=wanted.factor * served_per_s)
    over.set()
    tell("nine tenths of what can be served")
    after = await flood.run(url, short_s, rate=0.9 * served_per_s)
    wanted.keep.joinpath("flood.json").write_bytes(msgspec.json.encode(during))
    memory.most, memory.after = await looking, await watched.memory_mb()
    await watched.close()
    return Found(wanted.factor, served_per_s, normal.calls, during, after.calls, memory)


def table(lines: dict[str, tuple[str, bool]]) -> str:
    """Return what was found as Markdown."""
    rows = [f"| {what} | {was} | {_WORDS[fine]} |" for what, (was, fine) in lines.items()]
    return "\n".join(["| what | found | |", "|---|---|---|", *rows]) + "\n"


def asked_for() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.overload")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the flood lasts (2)")
    parser.add_argument("--factor", type=float, default=10.0, help="of what can be served (10)")
    parser.add_argument("--no-times", action="store_true", help="do not judge times")
    return parser.parse_args()


async def main() -> int:
    """Set the stage, measure, print; return the exit code."""
    wanted = asked_for()
    os.environ["CI"] = "1"
    require_engine()
    folder = wanted.keep = Path(tempfile.mkdtemp(prefix="overload-"))
    tell(f"logs of the services in {folder}")
    settings = {"RUNNER_MEMORY_MB": f"{_SANDBOXES * _MEMORY_MB}"}
    with (
        stores.redis() as redis,
        stores.mysql() as mysql,
        Platform(mysql.url, redis.url, folder, settings) as platform,
    ):
        await asyncio.to_thread(platform.start)
        async with session() as calling:
            found = await measured(platform, Client(calling, platform.url), wanted)
    counts, times = found.counts(), found.times()
    sys.stdout.write(table({**counts, **times}))
    judged = counts if wanted.no_times else {**counts, **times}
    return 0 if all(fine for _, fine in judged.values()) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
