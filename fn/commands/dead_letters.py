"""What of async calls that failed for good? `fn dead-letters`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from fn import completing, output, platform
from fn.commanding import LazyGroup, examples
from fn.commands.apps import APP
from fn.commands.calls import ago
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The API lists so many on one page, and redrives so many in one request.
_PAGE, _AT_ONCE = 1000, 100
_FIRST_SHOWN = 20

_PATH = click.option(
    "--path",
    metavar="/PATH",
    default="",
    help="Only of this route.",
    shell_complete=completing.routes,
)
_ALL = click.option("--all", "every", is_flag=True, help="All of the app, or of --path.")
_IDS = click.argument("call_ids", metavar="[CALL_ID]...", nargs=-1)


@click.group(
    cls=LazyGroup,
    aliases={"l": "list", "i": "show", "inspect": "show"},
    epilog=examples(
        "fn dead-letters list demo",
        "fn dead-letters redrive demo CALL_ID",
        "fn dead-letters redrive demo --all",
    ),
)
def dead_letters() -> None:
    """List, show, redrive and purge async calls that failed for good; also `fn dlq`."""


@dead_letters.command(
    "list",
    epilog=examples(
        "fn dead-letters list demo",
        "fn dead-letters list demo /greet --code runner_lost",
        "fn dead-letters list demo --redriven -o json",
    ),
)
@APP
@click.argument("path", metavar="[/PATH]", default="", shell_complete=completing.routes)
@click.option("--code", metavar="CODE", default="", help="Only those that failed so.")
@click.option("--redriven", is_flag=True, help="Those that are calls again, instead.")
@click.option("-n", "--limit", type=click.IntRange(1), default=_FIRST_SHOWN, show_default=True)
def list_letters(app: str, path: str, code: str, redriven: bool, limit: int) -> None:  # noqa: FBT001 (a flag)
    """List an app's dead letters, newest first."""
    query = _of(path)
    if code:
        query["code"] = code
    if redriven:
        query["redriven"] = "true"
    found = _listed(platform.current(), app, query, limit)
    now_s = time.time()
    columns = ("id", "path", "code", "error", "attempts", "died", "redriven as")
    rows = [
        (
            letter["call_id"], letter["path"], letter["code"], letter["error"], letter["attempt"],
            ago(letter["died_at"], now_s), letter["redriven_as"],
        )
        for letter in found
    ]  # fmt: skip
    output.show(found, output.Table(columns, rows), None if found else "no dead letters found")


def _listed(
    here: platform.Platform, app: str, query: dict[str, str], limit: int
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    size, cursor = min(limit, _PAGE), ""
    while len(found) < limit:
        asked = {**query, "limit": str(size), **({"cursor": cursor} if cursor else {})}
        answer = here.ask("GET", platform.app_path(app, "/dead-letters"), query=asked)
        found += answer["dead_letters"]
        cursor = answer["next_cursor"]
        if not cursor:
            break
    if not found:
        # Of an app that is not there, the API lists none either.
        here.ask("GET", platform.app_path(app))
    return found[:limit]


@dead_letters.command(
    epilog=examples(
        "fn dead-letters show demo CALL_ID", "fn dead-letters show demo CALL_ID -o json"
    )
)
@APP
@click.argument("call_id")
def show(app: str, call_id: str) -> None:
    """Show a dead letter, with what its caller sent."""
    found = platform.current().ask("GET", _one(app, call_id))["dead_letter"]
    output.show(found, output.table_of(found))


@dead_letters.command(
    epilog=examples(
        "fn dead-letters redrive demo CALL_ID",
        "fn dead-letters redrive demo --all --path /greet",
    )
)
@APP
@_IDS
@_ALL
@_PATH
def redrive(app: str, call_ids: tuple[str, ...], every: bool, path: str) -> None:  # noqa: FBT001 (a flag)
    """Make calls of dead letters: with their input, by their route as it is now."""
    _check(call_ids, path, every=every)
    here = platform.current()
    if every:
        told = list(_redriven(here, app, _of(path)))
    else:
        told = [_redriven_one(here, app, one, alone=len(call_ids) == 1) for one in call_ids]
    lines = [_line(one) for one in told]
    output.show(told, "\n".join(lines) or "no dead letters found")
    failed = [one for one in told if "error" in one]
    if failed:
        raise FnError(
            f"{len(failed)} of {len(told)} dead letters are not redriven",
            "Mend what they name, or remove them with `fn dead-letters purge`",
            Exit.FAILED,
        )


def _redriven(here: platform.Platform, app: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        asked = {**query, "limit": str(_AT_ONCE), **({"cursor": cursor} if cursor else {})}
        answer = here.ask("POST", platform.app_path(app, "/dead-letters/redrive"), query=asked)
        yield from answer["redriven"]
        cursor = answer["next_cursor"]
        if not cursor:
            return


def _redriven_one(
    here: platform.Platform, app: str, call_id: str, *, alone: bool
) -> dict[str, Any]:
    """Redrive one of several; that it is refused does not hide what became of the others."""
    try:
        return {**here.ask("POST", f"{_one(app, call_id)}/redrive")}
    except FnError as error:
        if alone or error.code != Exit.REFUSED:
            raise
        return {"redrive_of": call_id, "error": error.message}


def _line(one: dict[str, Any]) -> str:
    """Return what became of a letter.

    >>> _line({"redrive_of": "A", "call_id": "B"}), _line({"redrive_of": "A", "error": "why"})
    ('A redriven as B', 'A not redriven: why')
    """
    if "error" in one:
        return f"{one['redrive_of']} not redriven: {one['error']}"
    return f"{one['redrive_of']} redriven as {one['call_id']}"


@dead_letters.command(
    epilog=examples(
        "fn dead-letters purge demo CALL_ID", "fn dead-letters purge demo --all --path /greet"
    )
)
@APP
@_IDS
@_ALL
@_PATH
def purge(app: str, call_ids: tuple[str, ...], every: bool, path: str) -> None:  # noqa: FBT001 (a flag)
    """Remove dead letters for good."""
    _check(call_ids, path, every=every)
    here = platform.current()
    if every:
        asked = platform.app_path(app, "/dead-letters")
        purged = here.ask("DELETE", asked, query=_of(path))["purged"]
    else:
        purged = sum(here.ask("DELETE", _one(app, call_id))["purged"] for call_id in call_ids)
    letters = "dead letter" if purged == 1 else "dead letters"
    output.show({"purged": purged}, f"{purged} {letters} purged")


def _check(call_ids: tuple[str, ...], path: str, *, every: bool) -> None:
    if every == bool(call_ids) or (path and not every):
        raise FnError(
            "which dead letters?", "Name their CALL_IDs, or say --all, with --path /PATH if need be"
        )


def _of(path: str) -> dict[str, str]:
    return {"path": platform.clean(path)} if path else {}


def _one(app: str, call_id: str) -> str:
    return platform.quoted(platform.app_path(app, "/dead-letters"), call_id)
