"""Which runners are there, and what do they do? `fn runners`."""

from __future__ import annotations

from typing import Any

import click

from fn import output, platform
from fn.commanding import examples

_COLUMNS = ("id", "state", "calls", "idle", "busy", "starting", "memory", "cpus", "arch", "seen")


@click.command(epilog=examples("fn runners", "fn runners -o json"))
def runners() -> None:
    """List the runners: their calls, their sandboxes, what their engines offer."""
    found = platform.current().ask("GET", "/v1/runners")["runners"]
    rows = [_row(runner) for runner in found]
    output.show(found, output.Table(_COLUMNS, rows), None if found else "no runners found")


def _row(runner: dict[str, Any]) -> tuple[object, ...]:
    counts = [
        sum(box[name] for box in runner["sandboxes"]) for name in ("idle", "busy", "starting")
    ]
    return (
        runner["id"],
        state(runner),
        runner["running"],
        *counts,
        f"{runner['memory_mb']} MB",
        runner["cpus"],
        runner["arch"],
        f"{runner['seen_ago_ms'] / 1000:.1f}s ago",
    )


def state(runner: dict[str, Any]) -> str:
    """Return in a word whether a runner takes calls.

    >>> state({"able": True, "draining": False})
    'ready'
    """
    if not runner["able"]:
        return "unable"
    return "draining" if runner["draining"] else "ready"
