"""How is counted what happens at each call? In plain numbers, published when somebody asks.

The Prometheus client's own counters lock, and look their children up: at every call, that costs
more than all else that is known about it. These belong to the event loop, which alone changes them.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """A counter by labels."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str]) -> None:
        """Publish as `name`; `labels` are the names of what `add` is told."""
        self._name, self._meaning, self._labels = name, meaning, labels
        self._counts: Counter[tuple[str, ...]] = Counter()
        REGISTRY.register(self)

    def add(self, *labels: str) -> None:
        """Count one more."""
        self._counts[labels] += 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return what has been counted, as Prometheus has it."""
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count)
        yield family


class _Seen:
    """How many durations fell below each bound, and what all of them come to."""

    __slots__ = ("counts", "sum_s")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        self.sum_s = 0.0


class Timings(Collector):
    """A histogram of durations by labels."""

    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], bounds_s: Sequence[float]
    ) -> None:
        """Publish as `name`; `bounds_s` are the upper bounds of its buckets, in order."""
        self._name, self._meaning, self._labels = name, meaning, labels
        self._bounds_s = [bound for bound in bounds_s if bound != float("inf")]
        self._seen: dict[tuple[str, ...], _Seen] = {}
        REGISTRY.register(self)

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one more that took so long."""
        seen = self._seen.get(labels)
        if seen is None:
            seen = self._seen[labels] = _Seen(len(self._bounds_s))
        seen.counts[bisect_left(self._bounds_s, seconds)] += 1
        seen.sum_s += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return what has been counted, as Prometheus has it."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        for labels, seen in list(self._seen.items()):
            family.add_metric(labels, self._buckets(seen.counts), seen.sum_s)
        yield family

    def _buckets(self, counts: Sequence[int]) -> list[tuple[str, float]]:
        """Return each bucket's bound with how many are below, those of the buckets before too."""
        below = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip([*map(_written, self._bounds_s), "+Inf"], counts, strict=True):
            below += count
            buckets.append((bound, below))
        return buckets


def _written(bound_s: float) -> str:
    return str(float(bound_s))
