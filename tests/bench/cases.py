"""Which cases are there, and in which order do they run?

The growth of memory comes first, when the processes are as fresh as they will be; what they hold
at the end comes last.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from tests.bench import (
    burst,
    cold,
    engine,
    isolated,
    memory,
    roundtrip,
    scheduler_state,
    waiting,
    warm,
)
from tests.bench.bench import Bench
from tests.bench.figures import Result, Value
from tests.bench.targets import TIMES_COST_WITH_FEW
from tests.e2e.images import function_image

Case = Callable[[Bench], Awaitable[Result]]


async def waiting_calls(bench: Bench) -> Result:
    """Measure async calls: how fast they are accepted, and how fast they are done."""
    sleeper = function_image(f"exec sleep {waiting.SLEEP_S}")
    async with bench.deployed(sleeper, type="async") as route:
        accepting = await waiting.measure_accepting(bench.client, route.app, route.path, bench.tell)
    async with bench.echo("default", type="async") as route:
        finishing = await waiting.measure_finishing(bench.client, route.app, route.path, bench.tell)
    return waiting.result(accepting, finishing)


async def simulation(bench: Bench) -> Result:
    """Measure the decisions of the scheduler's state alone, with the Python that decides here."""
    bench.tell("simulation: few runners and many take turns")
    told = await engine.beside("scheduler", "python", "-m", scheduler_state.__name__, "--json")
    few, many = msgspec.json.decode(told, type=list[scheduler_state.Figures])
    values = (
        Value("", many.decisions_per_s, "decisions/s"),
        Value("", many.us_each / few.us_each, TIMES_COST_WITH_FEW),
    )
    return Result({"decisions": values})


CASES: dict[str, Case] = {
    "growth": memory.measure_growth,
    "redis": roundtrip.measure,
    "warm": partial(warm.measure, loads=warm.DEFAULT),
    "hot": partial(warm.measure, loads=warm.hot("http", "http")),
    "json": partial(warm.measure, loads=warm.hot("json", "json")),
    "stream": partial(warm.measure, loads=warm.hot("http-stream", "stream")),
    "isolated": isolated.measure,
    "burst": burst.measure,
    "cold": cold.measure,
    "async": waiting_calls,
    "simulation": simulation,
    "memory": memory.measure_now,
}
