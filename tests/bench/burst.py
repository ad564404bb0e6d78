"""How long do many callers wait who come at once, to a route that nobody has called before?"""

from tests.bench import turns
from tests.bench.bench import Bench
from tests.bench.figures import Checked, Result, Value

CALLERS = 64


async def measure(bench: Bench) -> Result:
    """Let them come, each time to another route; the slowest of all is told."""
    checked, slowest_s = Checked(), 0.0
    for number in range(bench.rounds):
        side = turns.Side()
        async with bench.echo("default") as deployed:
            run = turns.by_platform(bench.client, [deployed.path] * CALLERS)
            await side.turn(run, CALLERS, range(CALLERS))
        checked += side.checked
        slowest_s = max(slowest_s, side.wall_s)
        bench.tell(f"burst of {CALLERS}: {number + 1} of {bench.rounds}")
    values = (Value("slowest", slowest_s, "s"), Value("", checked.failed, "failed"))
    return Result({"burst": values}, checked)
