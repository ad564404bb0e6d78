"""How fast are calls that find a sandbox, in each format?"""

from dataclasses import dataclass, field

from tests.bench import wrk
from tests.bench.bench import Bench
from tests.bench.echoes import Name
from tests.bench.figures import Checked, Result, Value


@dataclass(frozen=True, slots=True)
class Load:
    """What calls whom."""

    #: Of `targets.TARGETS`.
    target: str
    function: Name
    callers: int
    #: Of the route.
    fields: dict[str, object] = field(default_factory=dict)


DEFAULT = (Load("default-1", "default", 1), Load("default-16", "default", 16))


def hot(function: Name, target: str) -> tuple[Load, Load]:
    """Return the loads of a hot format: one caller, and many of some sandboxes."""
    one, many = {"format": function}, {"format": function, "max_concurrency": 8}
    return (
        Load(f"{target}-1", function, 1, one),
        Load(f"{target}-64", function, 64, many),
    )


async def measure(bench: Bench, loads: tuple[Load, ...]) -> Result:
    """Measure loads one after the other, each after a warm-up."""
    measured: dict[str, tuple[Value, ...]] = {}
    checked = Checked()
    for load in loads:
        async with bench.echo(load.function, **load.fields) as deployed:
            url = bench.client.url + deployed.path
            found = await wrk.load(url, load.callers, bench.seconds, warm_up_s=bench.warm_up_s)
        measured[load.target] = found.values()
        checked += found.checked
        bench.tell(f"{load.function}, {load.callers} callers: measured")
    return Result(measured, checked)
