"""How fast are async calls accepted, what does waiting cost the api, and how fast are they done?"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from shared import clock
from tests.bench.figures import Checked, Result, Value
from tests.e2e.client import Client
from tests.e2e.load import CALLERS, accept, resident_bytes, work_off

ACCEPTED = 5_000
FINISHED = 300
FINISH_WITHIN_S = 300
#: Longer than accepting takes.
SLEEP_S = 20

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Accepting:
    """What accepting many calls took, and what it did to the api's memory."""

    calls: int
    took_s: float
    memory_before_bytes: float
    memory_after_bytes: float


@dataclass(frozen=True, slots=True)
class Finishing:
    """What it took until calls accepted at once were all run and recorded."""

    calls: int
    took_s: float


def result(accepting: Accepting, finishing: Finishing) -> Result:
    """Return the figures as lines of the report."""
    before_mb, after_mb = accepting.memory_before_bytes / 1e6, accepting.memory_after_bytes / 1e6
    accepted = (
        Value("", accepting.calls / accepting.took_s, "calls/s"),
        Value("memory of the api before", before_mb, "MB"),
        Value("after", after_mb, "MB"),
    )
    finished = (Value("", finishing.calls / finishing.took_s, "calls/s"),)
    calls = accepting.calls + finishing.calls
    return Result({"accepting": accepted, "finishing": finished}, Checked(calls))


async def settled(client: Client) -> dict[str, int]:
    """Return the platform's counts once they have stood still for a second."""
    while True:
        before = (await client.get("/stats")).json()
        await asyncio.sleep(1)
        after: dict[str, int] = (await client.get("/stats")).json()
        if before == after:
            return after


async def measure_accepting(client: Client, app: str, path: str, tell: Progress) -> Accepting:
    """Have many calls accepted, then take back those that still wait.

    The function sleeps for `SLEEP_S`: as many as there is room for run, and sleep, and all
    others wait, so that what is measured is accepting and waiting alone.
    """
    await accept(client, path, CALLERS)
    await settled(client)
    before = await resident_bytes(client)
    started_s = clock.monotonic_s()
    await accept(client, path, ACCEPTED)
    took_s = clock.monotonic_s() - started_s
    after = await resident_bytes(client)
    tell(f"async calls: {ACCEPTED} accepted; taking back those that still wait")
    await work_off(client, app, ACCEPTED + CALLERS)
    tell("async calls: waiting for the last of them")
    while (await settled(client))["Running"]:
        pass
    return Accepting(ACCEPTED, took_s, before, after)


async def measure_finishing(client: Client, app: str, path: str, tell: Progress) -> Finishing:
    """Have some calls accepted, and wait until each has its one record."""
    started_s = clock.monotonic_s()
    made = await accept(client, path, FINISHED)
    told_s = started_s
    while len(done := await client.calls(app, status="success", limit="1000")) < FINISHED:
        now_s = clock.monotonic_s()
        if now_s - started_s > FINISH_WITHIN_S:
            raise RuntimeError(f"{len(done)} of {FINISHED} done after {FINISH_WITHIN_S} s")
        if now_s - told_s > 5:
            tell(f"async calls: {len(done)} of {FINISHED} done")
            told_s = now_s
        await asyncio.sleep(0.2)
    took_s = clock.monotonic_s() - started_s
    if sorted(call["id"] for call in done) != sorted(made):
        raise RuntimeError("the calls recorded are not the calls accepted")
    return Finishing(FINISHED, took_s)
