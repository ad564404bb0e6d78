"""What became of calls? `fn calls`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from fn import completing, output, pairs, platform
from fn.commanding import LazyGroup, examples
from fn.commands.apps import APP
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDED = ("success", "error", "cancelled")
STATUSES = ("queued", "running", *ENDED)
#: The API lets one request wait so long, and answers so many calls in one page.
_WAIT_S, _PAGE = 30.0, 1000
_FIRST_SHOWN = 20


@click.group(
    cls=LazyGroup,
    aliases={"l": "list", "i": "show", "inspect": "show"},
    epilog=examples("fn calls list demo", "fn calls show CALL_ID", "fn calls wait CALL_ID"),
)
def calls() -> None:
    """List calls, show one, wait for one."""


@calls.command(
    "list",
    epilog=examples(
        "fn calls list demo",
        "fn calls list demo /greet --status error --since 1h",
        "fn calls list demo -n 500 -o json",
    ),
)
@APP
@click.argument("path", metavar="[/PATH]", default="", shell_complete=completing.routes)
@click.option("--status", type=click.Choice(STATUSES), help="Only calls in this state.")
@click.option("--since", metavar="DURATION", help="Only calls of the last 30s, 10m, 24h.")
@click.option("-n", "--limit", type=click.IntRange(1), default=_FIRST_SHOWN, show_default=True)
def list_calls(app: str, path: str, status: str | None, since: str | None, limit: int) -> None:
    """List an app's calls, newest first."""
    here = platform.current()
    query = {"path": platform.clean(path)} if path else {}
    if status:
        query["status"] = status
    if since:
        query["from"] = str(int((time.time() - pairs.duration_s(since, "--since")) * 1000))
    found = listed(here, app, query, limit)
    columns = ("id", "path", "status", "code", "made", "took")
    now_s = time.time()
    rows = [
        (c["id"], c["path"], c["status"], c["code"], ago(c["created_at"], now_s), took(c))
        for c in found
    ]
    output.show(found, output.Table(columns, rows), None if found else "no calls found")


def listed(
    here: platform.Platform, app: str, query: dict[str, str], limit: int
) -> list[dict[str, Any]]:
    """Return an app's newest calls, at most `limit`. Raises `FnError` if there is no such app."""
    found: list[dict[str, Any]] = []
    for page in _pages(here, app, query, min(limit, _PAGE)):
        found += page
        if len(found) >= limit:
            break
    if not found:
        # Of an app that is not there, the API lists no calls either.
        here.ask("GET", platform.app_path(app))
    return found[:limit]


def _pages(
    here: platform.Platform, app: str, query: dict[str, str], size: int
) -> Iterator[list[dict[str, Any]]]:
    cursor = ""
    while True:
        asked = {**query, "limit": str(size), **({"cursor": cursor} if cursor else {})}
        answer = here.ask("GET", platform.app_path(app, "/calls"), query=asked)
        yield answer["calls"]
        cursor = answer["next_cursor"]
        if not cursor:
            return


def took(call: dict[str, Any]) -> str:
    """Return how long a call ran; "" if it has not.

    >>> took({"started_at": "2026-01-31T12:00:00.5Z", "completed_at": "2026-01-31T12:00:02Z"})
    '1.5s'
    """
    if not call["started_at"] or not call["completed_at"]:
        return ""
    seconds = (_moment(call["completed_at"]) - _moment(call["started_at"])).total_seconds()
    return f"{seconds:.3g}s" if seconds >= 1 else f"{seconds * 1000:.0f}ms"


def ago(moment: str, now_s: float) -> str:
    """Return how long ago something was, in few letters.

    >>> ago("2026-01-31T12:00:00Z", 1769860800 + 150)
    '2m ago'
    """
    seconds = max(0.0, now_s - _moment(moment).timestamp())
    for unit, size_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size_s:
            return f"{seconds // size_s:.0f}{unit} ago"
    return f"{seconds:.0f}s ago"


def _moment(text: str) -> datetime:
    # Older Pythons read no "Z", and of fractions only three or six digits.
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction:0<6.6}+00:00")


@calls.command(epilog=examples("fn calls show CALL_ID", "fn calls show CALL_ID -o json"))
@click.argument("call_id")
def show(call_id: str) -> None:
    """Show what is known of a call."""
    found = find(platform.current(), call_id)
    output.show(found, output.table_of({**found, **_callback(found.get("callback"))}))


def _callback(callback: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields that say what became of a call's callback; none if it has none.

    >>> tried = {"at": "2026-01-31T12:00:00Z", "status": 503, "error": "busy"}
    >>> found = _callback({"url": "u", "state": "due", "next_at": None, "tries": [tried]})
    >>> found["callback"], found["callback_tries"]
    ('due: u', ['2026-01-31T12:00:00Z busy'])
    """
    if not callback:
        return {}
    tries = [f"{one['at']} {one['error'] or one['status']}" for one in callback["tries"]]
    return {
        "callback": f"{callback['state']}: {callback['url']}",
        "callback_next_at": callback["next_at"],
        "callback_tries": tries,
    }


@calls.command(
    epilog=examples("fn calls wait CALL_ID", "fn calls wait CALL_ID --result --timeout 5m")
)
@click.argument("call_id")
@click.option("--timeout", metavar="DURATION", help="How long to wait; without, for ever.")
@click.option("--result", is_flag=True, help="Write the result of an async call to stdout.")
def wait(call_id: str, timeout: str | None, result: bool) -> None:  # noqa: FBT001 (a flag)
    """Wait for a call's end. The exit code is 0 if it succeeded, 1 if not or if time is over."""
    here = platform.current()
    patience_s = pairs.duration_s(timeout, "--timeout") if timeout else None
    ended = wait_for(here, call_id, patience_s)
    if result and ended["status"] == "success":
        body = here.read("GET", f"{_path(call_id)}/result").body
        click.get_binary_stream("stdout").write(body)
    else:
        output.show(ended, f"{ended['id']} {ended['status']}")
    if ended["status"] != "success":
        raise FnError(
            f"{ended['app_name']} {ended['path']}: {ended['error'] or ended['status']}",
            f"`fn logs {ended['app_name']} {ended['id']}` shows its log",
            Exit.FAILED,
        )


def wait_for(here: platform.Platform, call_id: str, patience_s: float | None) -> dict[str, Any]:
    """Return a call that has ended. Raises `FnError` if that takes more than `patience_s`."""
    until_s = None if patience_s is None else time.monotonic() + patience_s
    while True:
        rest_s = _WAIT_S if until_s is None else max(0.0, until_s - time.monotonic())
        found = find(here, call_id, min(rest_s, _WAIT_S))
        if found["status"] in ENDED:
            return found
        if until_s is not None and time.monotonic() >= until_s:
            raise FnError(
                f"call {call_id} is still {found['status']} after {patience_s:.0f} s",
                "Wait longer with --timeout",
                Exit.FAILED,
            )


def find(here: platform.Platform, call_id: str, wait_s: float = 0) -> dict[str, Any]:
    """Return what is known of a call, after waiting up to `wait_s` seconds for its end."""
    query = {"wait": f"{wait_s:.3f}"} if wait_s else None
    found: dict[str, Any] = here.ask("GET", _path(call_id), query=query)["call"]
    return found


def _path(call_id: str) -> str:
    return platform.quoted("/v1/calls", call_id)
