"""What does the runner count?"""

import functools
import itertools
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Durations(Collector):
    """A histogram of durations for what happens with every call: adding to it is cheap.

    The library's own takes a lock for each of its numbers. This one is added to in one thread.
    """

    def __init__(self, name: str, documentation: str) -> None:
        """Register it under `name`."""
        self._name, self._documentation = name, documentation
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum_s = 0.0
        REGISTRY.register(self)

    def observe(self, seconds: float) -> None:
        """Add a duration."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum_s += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return what has been added by now."""
        totals = itertools.accumulate(self._counts)
        bounds = (*map(floatToGoString, SECONDS), "+Inf")
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], list(zip(bounds, totals, strict=True)), self._sum_s)
        yield family


ENDED = Counter("millrace_runner_calls_total", "Calls that ended, by code; ok if none.", ["code"])
HANDED_BACK = Counter("millrace_runner_handed_back_total", "Calls put back among the waiting.")
RETRIES = Counter(
    "millrace_runner_retries_total", "Attempts that failed and are followed by another.", ["code"]
)
RECLAIMED = Counter(
    "millrace_runner_reclaimed_total", "Outcomes dropped: the call was somebody else's by then."
)
UNRECORDED = Counter(
    "millrace_runner_unrecorded_total",
    "Answered sync calls without a record: too many waited for MySQL.",
)
IN_PROGRESS = Gauge("millrace_runner_in_progress", "Calls here now.")
START_SECONDS = Durations("millrace_runner_start_seconds", "From taking a call to its process.")
RUN_SECONDS = Durations("millrace_runner_run_seconds", "How long processes ran.")
SANDBOX_SECONDS = Histogram(
    "millrace_runner_sandbox_seconds", "From asking for a sandbox to its being ready.",
    buckets=SECONDS,
)  # fmt: skip
SANDBOXES_FAILED = Counter("millrace_runner_sandboxes_failed_total", "Sandboxes not opened.")
SANDBOXES = Gauge("millrace_runner_sandboxes", "Sandboxes here now.", ["state"])
PULLS = Counter("millrace_runner_image_pulls_total", "Pulls of images.", ["result"])
ABLE = Gauge("millrace_runner_engine_able", "1 while the container engine answers.")
CUT_OFF = Counter(
    "millrace_runner_cut_off_total",
    "Times that calls were stopped: Redis had not heard the runner.",
)
HELD_BYTES = Gauge("millrace_runner_held_bytes", "Messages that wait for Redis.")
LEFTOVERS = Counter("millrace_runner_leftovers_total", "Containers removed that nobody owned.")
NETWORKS_LOST = Counter(
    "millrace_runner_networks_lost_total", "Functions' networks whose holder ended unasked."
)
REMOVALS_FAILED = Counter(
    "millrace_runner_removals_failed_total", "Containers left to the next sweep."
)


@functools.cache
def ended(code: str) -> Counter:
    """Return the count of calls that ended with a code; looking it up takes a while."""
    return ENDED.labels(code)
