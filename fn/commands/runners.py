"""Which runners are there, what do they do, and which are to be empty? `fn runners`."""

from __future__ import annotations

import time
from typing import Any

import click

from fn import completing, output, pairs, platform
from fn.commanding import LazyGroup, examples
from fn.errors import Exit, FnError

_COLUMNS = (
    "id", "name", "state", "calls", "idle", "busy", "starting", "memory", "cpus", "arch", "engine",
    "seen",
)  # fmt: skip
_NAME = click.argument("name", shell_complete=completing.runners)
#: How often it is looked how far a runner is, in seconds.
_LOOK_S = 0.5
_ENGINE_CHARS = 12


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    epilog=examples("fn runners", "fn runners -o json", "fn runners drain host-1 --wait"),
)
@click.pass_context
def runners(context: click.Context) -> None:
    """List the runners: their calls, their sandboxes, what their engines offer."""
    if context.invoked_subcommand is not None:
        return
    answer = platform.current().ask("GET", "/v1/runners")
    found = answer["runners"]
    rows = [_row(runner) for runner in found]
    output.show(found, output.Table(_COLUMNS, rows), None if found else "no runners found")
    for name in answer.get("absent", ()):
        output.warn(f"{name} is to drain, and is not here; `fn runners undrain {name}` ends that")


@runners.command(
    epilog=examples("fn runners drain host-1", "fn runners drain host-1 --wait --timeout 10m")
)
@_NAME
@click.option("--wait", is_flag=True, help="Wait until it is empty.")
@click.option("--timeout", metavar="DURATION", help="How long to wait; without, for ever.")
def drain(name: str, wait: bool, timeout: str | None) -> None:  # noqa: FBT001 (a flag)
    """Let a runner, or all that bear a name, take no more calls: before maintenance.

    Their calls end, their sandboxes go, and they stay until `fn runners undrain` or until they are
    stopped. A wish for a name is kept while they are away.
    """
    here = platform.current()
    patience_s = pairs.duration_s(timeout, "--timeout") if timeout else None
    told = here.ask("POST", _path(name))
    if wait:
        _wait(here, name, {runner["id"] for runner in told["runners"]}, patience_s)
    output.show(told["runners"], f"{name} {'is empty' if wait else 'drains'}")


@runners.command(epilog=examples("fn runners undrain host-1"))
@_NAME
def undrain(name: str) -> None:
    """Let a runner, or all that bear a name, take calls again."""
    told = platform.current().ask("DELETE", _path(name))
    output.show(told["runners"], f"{name} takes calls")


def _path(name: str) -> str:
    return platform.quoted("/v1/runners", name) + "/drain"


def _wait(here: platform.Platform, name: str, ids: set[str], patience_s: float | None) -> None:
    """Wait until these runners are empty or gone, telling how far they are."""
    until_s = None if patience_s is None else time.monotonic() + patience_s
    before = ""
    while True:
        found = here.ask("GET", "/v1/runners")["runners"]
        left = [progress(runner) for runner in found if runner["id"] in ids]
        now = ", ".join(words for words in left if words)
        if not now:
            return
        if now != before:
            output.note(f"{name}: {now}")
            before = now
        if until_s is not None and time.monotonic() >= until_s:
            raise FnError(
                f"{name} is not empty after {patience_s:.0f} s: {now}",
                "It drains on; wait longer with --timeout, or stop it: SIGTERM bounds the rest",
                Exit.FAILED,
            )
        time.sleep(_LOOK_S)


def progress(runner: dict[str, Any]) -> str:
    """Return what is left on a runner that is to drain; "" if it is empty.

    >>> progress({"draining": True, "running": 2, "sandboxes": [{"idle": 0, "busy": 2}]})
    '2 calls, 2 sandboxes left'
    >>> progress({"draining": True, "running": 0, "sandboxes": []})
    ''
    """
    if not runner["draining"]:
        return "has not heard of it yet"
    sandboxes = sum(
        box.get(state, 0) for box in runner["sandboxes"] for state in ("idle", "busy", "starting")
    )
    if not runner["running"] and not sandboxes:
        return ""
    return f"{runner['running']} calls, {sandboxes} sandboxes left"


def _row(runner: dict[str, Any]) -> tuple[object, ...]:
    counts = [
        sum(box[name] for box in runner["sandboxes"]) for name in ("idle", "busy", "starting")
    ]
    return (
        runner["id"],
        runner.get("name", ""),
        state(runner),
        runner["running"],
        *counts,
        f"{runner['memory_mb']} MB",
        runner["cpus"],
        runner["arch"],
        runner["engine_id"][:_ENGINE_CHARS],
        f"{runner['seen_ago_ms'] / 1000:.1f}s ago",
    )


def state(runner: dict[str, Any]) -> str:
    """Return in a word whether a runner takes calls.

    >>> state({"able": True, "draining": False})
    'ready'
    """
    if not runner["able"]:
        return "unable"
    return "draining" if runner["draining"] or runner.get("drain_asked") else "ready"
