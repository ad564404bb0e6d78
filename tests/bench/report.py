"""How are measurements told? Pure: from samples to figures, from figures to a Markdown table."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figures:
    """What one kind of call took, at one number of callers."""

    calls: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    calls_per_s: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A cold call of the platform beside `docker run` of the same image, in the same run."""

    callers: int
    platform: Figures
    docker_run: Figures

    @property
    def ratio(self) -> float:
        """The platform's median over that of `docker run`: below 1, the platform is quicker."""
        return self.platform.p50_ms / self.docker_run.p50_ms


def percentile(sorted_ms: Sequence[float], percent: float) -> float:
    """Return the smallest sample that so many percent of all do not exceed.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 99)
    (2, 4)
    """
    return sorted_ms[max(0, math.ceil(len(sorted_ms) * percent / 100) - 1)]


def figures(samples_ms: Iterable[float], wall_s: float) -> Figures:
    """Return the figures of samples that took `wall_s` seconds together."""
    ordered = sorted(samples_ms)
    return Figures(
        calls=len(ordered),
        p50_ms=percentile(ordered, 50),
        p95_ms=percentile(ordered, 95),
        p99_ms=percentile(ordered, 99),
        calls_per_s=len(ordered) / wall_s,
    )


def cold_table(pairs: Iterable[Pair]) -> str:
    """Return a Markdown table with a line for each side of each pair."""
    lines = [
        "| callers | cold call by | calls | p50 ms | p95 ms | p99 ms | calls/s | p50 ratio |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for pair in pairs:
        ratio = f"{pair.ratio:.2f}"
        lines.append(_line(pair.callers, "Millrace", pair.platform, ratio))
        lines.append(_line(pair.callers, "docker run", pair.docker_run, ""))
    return "\n".join(lines)


def _line(callers: int, name: str, found: Figures, ratio: str) -> str:
    times = f"{found.p50_ms:.0f} | {found.p95_ms:.0f} | {found.p99_ms:.0f}"
    return f"| {callers} | {name} | {found.calls} | {times} | {found.calls_per_s:.1f} | {ratio} |"
