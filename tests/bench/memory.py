"""How much memory do the platform's own processes have, and does it grow with the calls?"""

import asyncio
import math

from tests.bench import engine, wrk
from tests.bench.bench import Bench
from tests.bench.figures import Checked, Result, Value
from tests.bench.targets import TIMES
from tests.e2e.load import metric, resident_bytes

#: Where each of our services tells its metrics.
PORTS = {"api": 8080, "scheduler": 8081, "runner": 8082}
#: Unless told otherwise: growth from a tenth of these calls to all of them, if the platform makes
#: so many a second that it does not take long.
CALLS = 200_000
WORTHWHILE_CALLS_PER_S = 2_000
CALLERS = 64
FIRST_S = 3
#: So that progress shows.
LONGEST_S = 15


def seconds_for(calls: int, calls_per_s: float) -> int:
    """Return how long the next load is to last when so many calls are left.

    >>> seconds_for(20_000, 4_000), seconds_for(180_000, 4_000), seconds_for(10, 4_000)
    (5, 15, 1)
    """
    return min(LONGEST_S, max(1, math.ceil(calls / calls_per_s)))


async def measure_now(bench: Bench) -> Result:
    """Measure the memory of all containers of our services, by service and together."""
    await _records_written(bench)
    each_mb = {service: await _resident_mb(bench, service) for service in PORTS}
    values = (Value("", sum(each_mb.values()), "MB"), *_told(each_mb))
    return Result({"memory": values})


async def measure_growth(bench: Bench) -> Result:
    """Measure it after some calls, and again after ten times as many."""
    fields = {"format": "http", "max_concurrency": 8}
    async with bench.echo("http", **fields) as deployed:
        url = bench.client.url + deployed.path
        first = await wrk.load(url, CALLERS, FIRST_S)
        calls_per_s = first.figures().calls_per_s
        if bench.calls is None and calls_per_s < WORTHWHILE_CALLS_PER_S:
            few = Value("", calls_per_s, "calls/s: too few to go on")
            return Result({"growth": (few,)}, first.checked)
        calls = bench.calls or CALLS
        checked = await _load_until(bench, url, calls // 10, first.checked)
        before = await _after(bench, checked.calls)
        checked = await _load_until(bench, url, calls, checked)
        after = await _after(bench, checked.calls)
    return Result(
        {"growth": (Value("", after.amount / before.amount, TIMES), before, after)}, checked
    )


def _told(each_mb: dict[str, float]) -> list[Value]:
    return [Value(service, mb, "MB") for service, mb in each_mb.items()]


async def _load_until(bench: Bench, url: str, calls: int, checked: Checked) -> Checked:
    """Call until so many calls have been made, those of `checked` included; return them all."""
    calls_per_s = float(WORTHWHILE_CALLS_PER_S)
    while checked.calls < calls:
        found = await wrk.load(url, CALLERS, seconds_for(calls - checked.calls, calls_per_s))
        checked += found.checked
        calls_per_s = found.figures().calls_per_s
        bench.tell(f"growth of memory: {checked.calls:,} of {calls:,} calls")
    return checked


async def _after(bench: Bench, calls: int) -> Value:
    await _records_written(bench)
    total_mb = sum([await _resident_mb(bench, service) for service in PORTS])
    return Value(f"after {calls:,} calls", total_mb, "MB")


async def _resident_mb(bench: Bench, service: str) -> float:
    hosts = await engine.addresses(service)
    at = [bench.client.at(f"http://{host}:{PORTS[service]}") for host in hosts]
    return sum([await resident_bytes(client) for client in at]) / 1e6


async def _records_written(bench: Bench) -> None:
    """Wait until the api has written no record for a second."""
    before, after = -1.0, 0.0
    while before != after:
        before = after
        await asyncio.sleep(1)
        hosts = await engine.addresses("api")
        at = [bench.client.at(f"http://{host}:{PORTS['api']}") for host in hosts]
        after = sum([await metric(client, "millrace_records_total") for client in at])
