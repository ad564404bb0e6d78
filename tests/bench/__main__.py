"""Measure a running platform: `python -m tests.bench`, or `make bench`.

`API_URL` says where it is; the engine must be the one its runners use. Prints Markdown and keeps
the figures as JSON under `.cache/bench`. While it measures, nobody else should use the platform:
that would spoil the figures, and their waiting async calls would be a minute late.

Ends with 1 if a call failed, an answer was wrong, or a case could not be measured; how fast
anything was never decides.
"""

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec

from shared import clock
from tests.bench import machine, report
from tests.bench.bench import Bench
from tests.bench.cases import CASES
from tests.bench.figures import Result
from tests.e2e.client import Client

KEPT_IN = Path(__file__).parents[2] / ".cache" / "bench"
#: When to give one case up, in seconds.
LONGEST_S = 300
_started_s = clock.monotonic_s()


def tell(what: str) -> None:
    """Show progress, with the seconds since the start."""
    sys.stderr.write(f"[{clock.monotonic_s() - _started_s:4.0f}s] {what}\n")


def asked_for() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--only", type=_cases, default=[*CASES], metavar="CASE,CASE")
    parser.add_argument("--seconds", type=int, default=10, help="how long a load lasts (10)")
    parser.add_argument("--calls", type=int, help="calls of the case growth (200000)")
    return parser.parse_args()


def _cases(names: str) -> list[str]:
    wanted = names.split(",")
    if unknown := [name for name in wanted if name not in CASES]:
        raise argparse.ArgumentTypeError(f"{unknown} not among {', '.join(CASES)}")
    return [name for name in CASES if name in wanted]


async def measured(bench: Bench, name: str) -> Result | str:
    """Return what a case found, or why it found nothing: the others are measured all the same."""
    tell(f"{name}: begins")
    try:
        async with asyncio.timeout(LONGEST_S):
            found = await CASES[name](bench)
    except TimeoutError:
        tell(f"{name}: given up")
        return f"nothing within {LONGEST_S} s"
    except Exception as error:  # noqa: BLE001 (a case meets whatever a broken platform does)
        tell(f"{name}: {error!r}")
        return str(error) or repr(error)
    for key, values in {**found.measured, **found.yardsticks}.items():
        tell(f"{key}: {report.told(values)}")
    return found


def keep(outcomes: report.Outcomes, seconds: int, about: str) -> Path:
    """Write outcomes as JSON into a new file; return it."""
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    file = KEPT_IN / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    found = msgspec.json.encode({"machine": about, "seconds": seconds, "cases": outcomes})
    file.write_bytes(msgspec.json.format(found, indent=2))
    return file


async def main() -> int:
    """Connect and measure; return the exit code."""
    wanted = asked_for()
    here = machine.Machine()
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    url = os.environ.get("API_URL") or "http://127.0.0.1:8080"
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        bench = Bench(Client(session, url), wanted.seconds, wanted.calls, tell)
        outcomes = {name: await measured(bench, name) for name in wanted.only}
    tables = report.targets_table(outcomes), report.yardsticks_table(outcomes)
    about = here.told()
    told = (*tables, f"{report.verdict(outcomes)}. {about}.")
    sys.stdout.write("\n\n".join(filter(None, told)) + "\n")
    tell(f"kept in {keep(outcomes, wanted.seconds, about)}")
    return 0 if report.went_well(outcomes) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
