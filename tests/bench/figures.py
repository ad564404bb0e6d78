"""What do measurements say? Pure: samples become figures, and a case's figures its result."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figures:
    """What one kind of call took, at one number of callers."""

    calls: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    calls_per_s: float

    def values(self) -> "tuple[Value, ...]":
        """Return what a reader wants to see of them."""
        return (
            Value("p50", self.p50_ms, "ms"),
            Value("p99", self.p99_ms, "ms"),
            Value("", self.calls_per_s, "calls/s"),
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """How many calls were made, and how many of them went wrong."""

    calls: int = 0
    #: Not answered, or with another status than 200.
    failed: int = 0
    #: Answered with 200 and other bytes than those asked for.
    wrong: int = 0
    #: What one of the bad answers was.
    example: str = ""

    @property
    def bad(self) -> int:
        """All that went wrong."""
        return self.failed + self.wrong

    def __add__(self, other: "Checked") -> "Checked":
        return Checked(
            self.calls + other.calls,
            self.failed + other.failed,
            self.wrong + other.wrong,
            self.example or other.example,
        )


@dataclass(frozen=True, slots=True)
class Value:
    """One figure; its name is empty where the unit says it all."""

    name: str
    amount: float
    unit: str

    def told(self) -> str:
        """Return it in words.

        >>> Value("p99", 12.345, "ms").told(), Value("", 3622.4, "calls/s").told()
        ('p99 12.3 ms', '3,622 calls/s')
        """
        return f"{self.name} {number(self.amount)} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Result:
    """What a case found."""

    #: By the key of `targets.TARGETS`.
    measured: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    checked: Checked = Checked()
    #: By what was measured, in words.
    yardsticks: dict[str, tuple[Value, ...]] = field(default_factory=dict)


def number(amount: float) -> str:
    """Return a number with three digits that matter, or all of those before the point."""
    return f"{amount:,.0f}" if abs(amount) >= 100 else f"{amount:.3g}"


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest sample that so many percent of all do not exceed.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 99)
    (2, 4)
    """
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def figures(samples_ms: Iterable[float], wall_s: float) -> Figures:
    """Return the figures of samples that took `wall_s` seconds together.

    Raises `ValueError` if there are none.
    """
    ordered = sorted(samples_ms)
    if not ordered:
        raise ValueError(f"no call was answered as it should in {wall_s:.1f} s")
    return Figures(
        calls=len(ordered),
        p50_ms=percentile(ordered, 50),
        p95_ms=percentile(ordered, 95),
        p99_ms=percentile(ordered, 99),
        calls_per_s=len(ordered) / wall_s,
    )
