"""What does a cold call cost, beside `docker run` of the same image?"""

from tests.bench import echoes, turns
from tests.bench.bench import Bench, new_app
from tests.bench.figures import Checked, Result, Value
from tests.bench.targets import TIMES_DOCKER_RUN

#: Callers at once, and the calls they make in one round.
LOADS = {1: 12, 4: 24, 16: 32}
#: Longer than a round lasts, by far less than a route's usual time: sandboxes go between the turns.
IDLE_TIMEOUT_S = 8


async def measure(bench: Bench) -> Result:
    """Measure both at each load. Each call is the first one of a route of its own.

    The routes of a load are one app's: from the second round on, it has network namespaces.
    """
    image = await echoes.image("default")
    measured: dict[str, tuple[Value, ...]] = {}
    yardsticks: dict[str, tuple[Value, ...]] = {}
    checked = Checked()
    for callers, calls in LOADS.items():
        platform, docker_run = await _both(bench, image, callers, calls)
        ours, theirs = platform.figures(), docker_run.figures()
        ratio = Value("p50", ours.p50_ms / theirs.p50_ms, TIMES_DOCKER_RUN)
        measured[f"cold-{callers}"] = (ratio, *ours.values())
        yardsticks[f"`docker run --rm -i`, {callers} at once"] = theirs.values()
        checked += platform.checked + docker_run.checked
    return Result(measured, checked, yardsticks)


async def _both(
    bench: Bench, image: str, callers: int, calls: int
) -> tuple[turns.Side, turns.Side]:
    platform, docker_run = turns.Side(), turns.Side()
    app = new_app()
    for number in range(bench.rounds):
        async with bench.deployed(image, calls, app=app, idle_timeout=IDLE_TIMEOUT_S) as deployed:
            run = turns.by_platform(bench.client, deployed.paths)
            await platform.turn(run, callers, range(calls))
        await docker_run.turn(turns.by_docker_run(image), callers, range(calls))
        bench.tell(f"cold, {callers} callers: round {number + 1} of {bench.rounds}")
    return platform, docker_run
