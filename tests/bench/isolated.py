"""What does a fresh container for each call cost, if containers are started ahead?"""

import itertools

from tests.bench import turns, wrk
from tests.bench.bench import Bench, Deployed
from tests.bench.figures import Checked, Result, Value
from tests.bench.targets import TIMES_DOCKER_RUN

#: Sandboxes started ahead.
READY = 8
#: Between an answer and the next call: longer than starting a sandbox takes.
PAUSE_MS = 250
CALLERS = 4
#: After so long under load, those that were started ahead are used up.
USED_UP_S = 1.0


async def measure(bench: Bench) -> Result:
    """Measure calls that find a sandbox started ahead, then as many calls as can be made."""
    fields = {"isolation": "call", "min_sandboxes": READY}
    async with bench.echo("default", **fields) as deployed:
        url = bench.client.url + deployed.path
        paced = await wrk.load(url, 1, bench.seconds, warm_up_s=bench.warm_up_s, pause_ms=PAUSE_MS)
        bench.tell("isolation: call, with pauses: measured")
        platform, docker_run = await _both(bench, deployed)
    ours, theirs = platform.figures(), docker_run.figures()
    ratio = Value("", ours.calls_per_s / theirs.calls_per_s, TIMES_DOCKER_RUN)
    return Result(
        {"call-paced": paced.values(), "call-sustained": (ratio, *ours.values())},
        paced.checked + platform.checked + docker_run.checked,
        {f"`docker run --rm -i`, {CALLERS} at once, sustained": theirs.values()},
    )


async def _both(bench: Bench, deployed: Deployed) -> tuple[turns.Side, turns.Side]:
    platform, docker_run = turns.Side(), turns.Side()
    ways = (
        (platform, turns.by_platform(bench.client, itertools.repeat(deployed.path))),
        (docker_run, turns.by_docker_run(deployed.image)),
    )
    for number in range(bench.rounds):
        for side, run in ways:
            side.checked += await _unmeasured(run)
            await side.turn(run, CALLERS, turns.for_seconds(bench.seconds / bench.rounds))
        bench.tell(f"isolation: call, without: round {number + 1} of {bench.rounds}")
    return platform, docker_run


async def _unmeasured(run: turns.Run) -> Checked:
    before = turns.Side()
    await before.turn(run, CALLERS, turns.for_seconds(USED_UP_S))
    return before.checked
