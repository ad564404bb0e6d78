"""What does Prometheus see of what was counted in plain numbers?"""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from services.api import tallies
from services.api.tallies import Tally, Timings


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    made = CollectorRegistry()
    monkeypatch.setattr(tallies, "REGISTRY", made)
    return made


def published(registry: CollectorRegistry, counted: Collector) -> list[str]:
    assert counted in list(registry._collector_to_names)
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_a_tally_counts_by_its_labels(registry: CollectorRegistry) -> None:
    tally = Tally("calls_total", "Calls.", ["mode", "code"])
    tally.add("sync", "ok")
    tally.add("sync", "ok")
    tally.add("async", "ok")
    assert published(registry, tally) == [
        'calls_total{code="ok",mode="sync"} 2.0',
        'calls_total{code="ok",mode="async"} 1.0',
    ]


def test_a_bucket_counts_all_up_to_its_bound(registry: CollectorRegistry) -> None:
    timings = Timings("took_seconds", "Durations.", ["of"], (0.5, 1.0, float("inf")))
    for seconds in (0.25, 0.5, 0.75, 4.0):
        timings.observe(seconds, "a")
    assert published(registry, timings) == [
        'took_seconds_bucket{le="0.5",of="a"} 2.0',
        'took_seconds_bucket{le="1.0",of="a"} 3.0',
        'took_seconds_bucket{le="+Inf",of="a"} 4.0',
        'took_seconds_count{of="a"} 4.0',
        'took_seconds_sum{of="a"} 5.5',
    ]


def test_a_histogram_without_labels_has_one_row(registry: CollectorRegistry) -> None:
    timings = Timings("took_seconds", "Durations.", [], (1.0,))
    timings.observe(2.0)
    assert published(registry, timings) == [
        'took_seconds_bucket{le="1.0"} 0.0',
        'took_seconds_bucket{le="+Inf"} 1.0',
        "took_seconds_count 1.0",
        "took_seconds_sum 2.0",
    ]
