"""What does the scheduler count? Its metrics, and how they are read off the state."""

import itertools
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from services.scheduler.ledger import Size
from services.scheduler.placement import Reason
from services.scheduler.state import State

LEADER = Gauge("millrace_scheduler_active", "1 if this scheduler is the active one.")
REIGNS = Counter("millrace_scheduler_reigns_total", "Times this scheduler rebuilt its state.")
ASSIGNMENTS = Counter("millrace_assignments_total", "Calls given to runners.", ["mode"])
ASSIGN_FAILURES = Counter(
    "millrace_assign_failures_total", "Assignments that were not performed.", ["why"]
)
REFUSALS = Counter("millrace_refusals_total", "Calls ended by the scheduler.", ["code"])
RECLAIMED = Counter(
    "millrace_reclaimed_calls_total", "Calls taken back from lost or leaving runners.", ["how"]
)
LOST = Counter("millrace_lost_calls_total", "Sync calls that were in Redis no more.")
DECISION_SECONDS = Histogram(
    "millrace_decision_seconds",
    "Time one batch of events took to decide.",
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
)
WAITING = Gauge("millrace_waiting_calls", "Calls waiting for capacity.", ["reason"])
GRANTED = Gauge("millrace_granted_places", "Calls that may be at runners now past the scheduler.")
RUNNERS = Gauge("millrace_runners", "Runners known.", ["standing"])
MEMORY_MB = Gauge("millrace_engine_memory_mb", "Memory of an engine.", ["engine", "kind"])
CPUS = Gauge("millrace_engine_cpus", "Cpus of an engine.", ["engine", "kind"])

_KINDS = ("offered", "reserved")
#: The gauges of each engine: there may be a thousand, and looking labels up costs the most.
_of_engine: dict[str, list[Gauge]] = {}


def show(state: State) -> None:
    """Set the gauges to what the state is now."""
    waiting = state.waiting_by_reason()
    for reason in get_args(Reason):
        WAITING.labels(reason).set(waiting.get(reason, 0))
    GRANTED.set(len(state.grants))
    standings = {"usable": 0, "unable": 0, "draining": 0, "held": 0, "leaving": 0}
    for runner in state.fleet:
        standings[runner.describe()] += 1
    for standing, count in standings.items():
        RUNNERS.labels(standing).set(count)
    _show_engines(state.ledger.engines())


def _show_engines(engines: dict[str, tuple[Size, Size]]) -> None:
    """Show what each engine offers and what of it is reserved, and no other engines."""
    for engine_id in _of_engine.keys() - engines.keys():
        del _of_engine[engine_id]
        for gauge, kind in itertools.product((MEMORY_MB, CPUS), _KINDS):
            gauge.remove(engine_id, kind)
    for engine_id, sizes in engines.items():
        if engine_id not in _of_engine:
            gauges = itertools.product((MEMORY_MB, CPUS), _KINDS)
            _of_engine[engine_id] = [gauge.labels(engine_id, kind) for gauge, kind in gauges]
        amounts = (*(size.memory_mb for size in sizes), *(size.millicpus / 1000 for size in sizes))
        for gauge, amount in zip(_of_engine[engine_id], amounts, strict=True):
            gauge.set(amount)


def show_nothing() -> None:
    """Clear the gauges: a standby knows nothing."""
    LEADER.set(0)
    GRANTED.set(0)
    _show_engines({})
    for gauge in (WAITING, RUNNERS):
        gauge.clear()
