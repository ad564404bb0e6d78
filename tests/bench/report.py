"""How are results told? Pure: from results to Markdown tables."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from tests.bench.figures import Checked, Result, Value
from tests.bench.targets import TARGETS, Target

#: By case: what it found, or why it found nothing.
Outcomes = Mapping[str, Result | str]

#: Letters of the reason why something was not measured.
REASON_MAX = 120
_HELD = {True: "yes", False: "**no**", None: "-"}


def targets_table(outcomes: Outcomes) -> str:
    """Return a Markdown table with a line for each target of the cases that ran; "" if none."""
    head = ("case", "measured", "must", "IronFunctions on such a machine", "held?")
    lines = (
        _target_line(target, _measured(outcomes[target.measured_by], key))
        for key, target in TARGETS.items()
        if target.measured_by in outcomes
    )
    return _table(head, lines)


def yardsticks_table(outcomes: Outcomes) -> str:
    """Return a Markdown table of what was measured beside the platform; "" if nothing."""
    results = (found for found in outcomes.values() if isinstance(found, Result))
    lines = ((what, told(values)) for found in results for what, values in found.yardsticks.items())
    return _table(("yardstick, in the same run", "measured"), lines)


def checked(outcomes: Outcomes) -> Checked:
    """Return how many calls all cases made, and how many went wrong."""
    results = (found for found in outcomes.values() if isinstance(found, Result))
    return sum((found.checked for found in results), Checked())


def verdict(outcomes: Outcomes) -> str:
    """Return in one sentence whether the answers were right, and what found none."""
    found = checked(outcomes)
    example = f", for example: {_cell(found.example)}" if found.bad else ""
    nothing = [name for name, outcome in outcomes.items() if isinstance(outcome, str)]
    lacking = f"; not measured: {', '.join(nothing)}" if nothing else ""
    counts = f"{found.calls:,} calls checked: {found.failed} failed, {found.wrong} wrong"
    return counts + example + lacking


def went_well(outcomes: Outcomes) -> bool:
    """Return whether each case measured something and each answer was right."""
    return not checked(outcomes).bad and all(isinstance(f, Result) for f in outcomes.values())


def _measured(outcome: Result | str, key: str) -> tuple[Value, ...] | str:
    if isinstance(outcome, Result):
        return outcome.measured.get(key, ())
    return f"not measured: {textwrap.shorten(outcome, REASON_MAX)}"


def _target_line(target: Target, measured: tuple[Value, ...] | str) -> tuple[str, ...]:
    values = () if isinstance(measured, str) else measured
    return (
        target.what,
        measured if isinstance(measured, str) else told(measured),
        ", ".join(bound.told() for bound in target.bounds),
        target.theirs,
        _HELD[target.held(values)],
    )


def told(values: Iterable[Value]) -> str:
    """Return values in words."""
    return ", ".join(value.told() for value in values) or "not measured"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    if len(rows) == 2:
        return ""
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
