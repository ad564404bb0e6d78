"""What did functions write to standard error? `fn logs`."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import click

from fn import completing, output, platform
from fn.commanding import examples
from fn.commands import calls
from fn.commands.apps import APP
from fn.errors import FnError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Between looks for new calls, in seconds.
_PAUSE_S = 0.5
#: How long a call may take to be listed after it was made.
_LATE_MS = 5_000
_ALL = 1_000_000
_CALL_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@click.command(
    epilog=examples(
        "fn logs demo",
        "fn logs demo /greet --follow",
        "fn logs demo 01a20f12-cf31-7738-9761-59bdaf85e97e",
    )
)
@APP
@click.argument("which", nargs=-1, metavar="[/PATH] [CALL_ID]", shell_complete=completing.routes)
@click.option("-f", "--follow", is_flag=True, help="Go on with the logs of calls to come.")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Calls to begin with.",
)
def logs(app: str, which: tuple[str, ...], follow: bool, limit: int) -> None:  # noqa: FBT001 (a flag)
    """Show the logs of an app's last calls, of a route's, or of one call.

    Lines of many calls begin with the route and the call's id; those of one call come as they were
    written. A log is there once its call has ended.
    """
    path, call_id = meant(which)
    here = platform.current()
    if call_id:
        _show_one(here, call_id, follow=follow)
        return
    query = {"path": path} if path else {}
    first = calls.listed(here, app, query, limit) if limit else []
    ended = [call for call in reversed(first) if call["status"] in calls.ENDED]
    if not follow:
        _show_many([_with_log(here, call) for call in ended])
        return
    for call in ended:
        _show_following(_with_log(here, call))
    for call in following(here, app, query, {call["id"] for call in ended}):
        _show_following(_with_log(here, call))


def meant(which: tuple[str, ...]) -> tuple[str, str]:
    """Return the path and the call's id among arguments; "" for what is not there.

    >>> meant(("greet",)), meant(("01a20f12-cf31-7738-9761-59bdaf85e97e",))[0]
    (('/greet', ''), '')
    """
    ids = [word for word in which if _CALL_ID.fullmatch(word)]
    paths = [platform.clean(word) for word in which if not _CALL_ID.fullmatch(word)]
    if len(ids) > 1 or len(paths) > 1:
        raise FnError("one route and one call at most", "fn logs APP [/PATH] [CALL_ID]")
    return "".join(paths), "".join(ids)


def following(
    here: platform.Platform, app: str, query: dict[str, str], shown: set[str]
) -> Iterator[dict[str, Any]]:
    """Give each call that ends from now on, and those before that are not in `shown`, for ever."""
    from_ms = int(time.time() * 1000) - _LATE_MS
    while True:
        begun_ms = int(time.time() * 1000)
        asked = {**query, "from": str(from_ms)}
        found = calls.listed(here, app, asked, _ALL)
        for call in reversed(found):
            if call["id"] not in shown and call["status"] in calls.ENDED:
                shown.add(call["id"])
                yield call
        open_ms = [made_ms(c["id"]) for c in found if c["status"] not in calls.ENDED]
        from_ms = min([begun_ms - _LATE_MS, *open_ms])
        time.sleep(_PAUSE_S)


def made_ms(call_id: str) -> int:
    """Return when a call got its id, in epoch milliseconds; a UUIDv7 begins with that."""
    return int(call_id.replace("-", "")[:12], 16)


def _with_log(here: platform.Platform, call: dict[str, Any]) -> dict[str, Any]:
    body = here.read("GET", platform.quoted("/v1/calls", call["id"]) + "/log").body
    return {**call, "log": body.decode(errors="replace")}


def _show_one(here: platform.Platform, call_id: str, *, follow: bool) -> None:
    call = calls.wait_for(here, call_id, None) if follow else calls.find(here, call_id)
    told = _with_log(here, call)
    if output.is_asked_for():
        output.show(told, _table([told]), "")
    else:
        click.echo(told["log"], nl=False)


def _show_many(told: list[dict[str, Any]]) -> None:
    lines = "\n".join(line for call in told for line in _lines(call))
    if output.is_asked_for():
        output.show(told, _table(told), "")
    elif lines:
        click.echo(lines)
    elif not told:
        output.note("no calls found")


def _table(told: list[dict[str, Any]]) -> output.Table:
    rows = [(call["path"], call["id"], line) for call in told for line in call["log"].splitlines()]
    return output.Table(("path", "call", "line"), rows)


def _show_following(call: dict[str, Any]) -> None:
    if output.is_for_programs():
        output.show(call, "")
    for line in _lines(call) if not output.is_for_programs() else ():
        click.echo(line)


def _lines(call: dict[str, Any]) -> list[str]:
    start = f"{call['path']} {call['id']} | "
    return [start + output.printable(line) for line in call["log"].splitlines()]
