"""Measure a running platform: `python -m tests.bench`, or `make bench`.

`API_URL` says where it is; the engine must be the one its runners use. Prints Markdown and keeps
the figures as JSON under `.cache/bench`. While it measures, nobody else should use the platform:
that would spoil the figures, and their waiting async calls would be a minute late.
"""

import asyncio
import dataclasses
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec

from shared import clock
from tests.bench import cold, report, waiting
from tests.e2e.client import Client
from tests.e2e.images import function_image

KEPT_IN = Path(__file__).parents[2] / ".cache" / "bench"
#: When to give up, in seconds.
LONGEST_S = 900
_started_s = clock.monotonic_s()


def tell(what: str) -> None:
    """Show progress, with the seconds since the start."""
    sys.stderr.write(f"[{clock.monotonic_s() - _started_s:4.0f}s] {what}\n")


@asynccontextmanager
async def deployed(client: Client, image: str, kind: str) -> AsyncIterator[tuple[str, str]]:
    """Give an app of its own and the path that calls its one route, while inside."""
    app = f"bench-{secrets.token_hex(4)}"
    path = await client.deploy(app, "/cat", image, type=kind)
    try:
        yield app, path
    finally:
        await client.delete(f"/v1/apps/{app}/routes/cat")
        await client.delete(f"/v1/apps/{app}")


def keep(figures: dict[str, object]) -> Path:
    """Write figures as JSON into a new file; return it."""
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    file = KEPT_IN / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))
    return file


async def measure(client: Client) -> None:
    """Measure everything, print it and keep it."""
    image = function_image("exec cat")
    async with deployed(client, image, "sync") as (_, path):
        tell("cold calls, beside docker run of the same image")
        pairs = await cold.measure(client, path, image, tell)
    sleeper = function_image(f"exec sleep {waiting.SLEEP_S}")
    async with deployed(client, sleeper, "async") as (app, path):
        accepting = await waiting.measure_accepting(client, app, path, tell)
    async with deployed(client, image, "async") as (app, path):
        finishing = await waiting.measure_finishing(client, app, path, tell)
    sys.stdout.write(f"{report.cold_table(pairs)}\n\n{waiting.told(accepting, finishing)}\n")
    figures = {
        "cold": [{**dataclasses.asdict(p), "p50_ratio": p.ratio} for p in pairs],
        "accepting": dataclasses.asdict(accepting),
        "finishing": dataclasses.asdict(finishing),
    }
    tell(f"kept in {keep(figures)}")


async def main() -> None:
    """Connect and measure."""
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        async with asyncio.timeout(LONGEST_S):
            await measure(Client(session, os.environ.get("API_URL") or "http://127.0.0.1:8080"))


if __name__ == "__main__":
    asyncio.run(main())
