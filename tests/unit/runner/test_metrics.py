"""What do the runner's own histograms say? The same as the library's."""

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from services.runner import metrics


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    own = CollectorRegistry()
    monkeypatch.setattr(metrics, "REGISTRY", own)
    return own


def lines(registry: CollectorRegistry) -> list[str]:
    """Return what is told, without when it began, which the library adds."""
    return [
        line for line in generate_latest(registry).decode().split("\n") if "_created" not in line
    ]


def test_durations_are_told_as_the_library_tells_them(registry: CollectorRegistry) -> None:
    theirs = CollectorRegistry()
    library = Histogram("x_seconds", "X.", buckets=metrics.SECONDS, registry=theirs)
    ours = metrics.Durations("x_seconds", "X.")
    assert lines(registry) == lines(theirs)
    for seconds in (0.0, 0.001, 0.0011, 0.25, 7.0, 900.0):
        library.observe(seconds)
        ours.observe(seconds)
    assert lines(registry) == lines(theirs)
