"""What must be shown, and is it? Pure: the targets, and what another platform does there.

The figures of IronFunctions were taken on a machine of the same kind: two cores, shared with the
load generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.figures import Value, number

TIMES_DOCKER_RUN = "times `docker run`"
TIMES = "times"
TIMES_COST_WITH_FEW = "times the cost with 10 runners"


@dataclass(frozen=True, slots=True)
class Bound:
    """What the value of this name and unit must at most, or at least, be."""

    name: str
    limit: float
    unit: str
    at_most: bool

    def told(self) -> str:
        """Return it in words: `p50 ≤ 3 ms`."""
        sign = "≤" if self.at_most else "≥"
        return f"{self.name} {sign} {number(self.limit)} {self.unit}".strip()

    def holds(self, values: Sequence[Value]) -> bool | None:
        """Return whether it holds; None if its value was not measured."""
        for value in values:
            if (value.name, value.unit) == (self.name, self.unit):
                within = value.amount <= self.limit
                return within if self.at_most else value.amount >= self.limit
        return None


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the report."""

    #: The case that measures it, as `--only` names it.
    measured_by: str
    what: str
    bounds: tuple[Bound, ...] = ()
    #: What IronFunctions does on such a machine.
    theirs: str = ""

    def held(self, values: Sequence[Value]) -> bool | None:
        """Return whether all bounds hold; None if that is not known, or there are none."""
        found = [bound.holds(values) for bound in self.bounds]
        if not found or None in found:
            return None
        return all(found)


def _most(name: str, limit: float, unit: str) -> Bound:
    return Bound(name, limit, unit, at_most=True)


def _least(name: str, limit: float, unit: str) -> Bound:
    return Bound(name, limit, unit, at_most=False)


_COLD = (_most("p50", 0.45, TIMES_DOCKER_RUN),)

TARGETS = {
    "default-1": Target(
        "warm", "`default`, warm, 1 caller", (_most("p50", 3, "ms"),), "p50 265 ms"
    ),
    "default-16": Target(
        "warm",
        "`default`, warm, 16 callers",
        (_least("", 1000, "calls/s"), _most("p99", 60, "ms")),
        "7 calls/s, p99 3.2 s",
    ),
    "cold-1": Target("cold", "cold, image on disk, 1 caller", _COLD, "about 1"),
    "cold-4": Target("cold", "cold, image on disk, 4 callers", _COLD, "about 1"),
    "cold-16": Target("cold", "cold, image on disk, 16 callers", _COLD, "about 1"),
    "call-paced": Target(
        "isolated",
        "`isolation: call`, 1 caller who leaves time to start sandboxes ahead",
        (_most("p50", 6, "ms"),),
    ),
    "call-sustained": Target(
        "isolated",
        "`isolation: call`, 4 callers without a pause",
        (_least("", 1, TIMES_DOCKER_RUN),),
    ),
    "http-1": Target(
        "hot", "`http`, hot, 1 caller", (_most("p50", 1.5, "ms"),), "p50 0.5 ms, without a queue"
    ),
    "http-64": Target(
        "hot",
        "`http`, hot, `max_concurrency` 8, 64 callers",
        (_least("", 4000, "calls/s"), _most("p99", 40, "ms")),
        "3,622 calls/s, p99 40 ms",
    ),
    "burst": Target(
        "burst",
        "64 callers at once on a cold route",
        (_most("slowest", 1, "s"), _most("", 0, "failed")),
    ),
    "memory": Target(
        "memory", "memory of api, scheduler and runner after the bench", (_most("", 220, "MB"),)
    ),
    "growth": Target("growth", "their memory after ten times the calls", (_most("", 1.2, TIMES),)),
    "decisions": Target(
        "simulation",
        "decisions of the scheduler's state with 1,000 runners, one core",
        (_least("", 20_000, "decisions/s"), _most("", 2, TIMES_COST_WITH_FEW)),
    ),
    "json-1": Target("json", "`json`, hot, 1 caller"),
    "json-64": Target("json", "`json`, hot, `max_concurrency` 8, 64 callers"),
    "stream-1": Target("stream", "`http-stream`, hot, 1 caller"),
    "stream-64": Target("stream", "`http-stream`, hot, `max_concurrency` 8, 64 callers"),
    "accepting": Target("async", "async calls accepted, 32 callers"),
    "finishing": Target("async", "async calls run and recorded, each exactly once"),
}
