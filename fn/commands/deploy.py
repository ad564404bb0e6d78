"""How does a function get onto the platform? `fn deploy`: bump, build, push, make or change."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fn import (
    building,
    completing,
    deploying,
    engine,
    funcfile,
    hubs,
    imagenames,
    output,
    platform,
    pushing,
)
from fn.commanding import examples
from fn.commands.building import NO_CACHE, VERBOSE, load, warn_of_unset
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from fn.funcfile import FuncFile


@dataclass(frozen=True)
class Wish:
    """How a deployment is to be done."""

    app: str
    incremental: bool = False
    skip_push: bool = False
    verbose: bool = False
    no_cache: bool = False


@dataclass(frozen=True)
class Done:
    """What one function's deployment came to."""

    path: str
    image: str
    created: bool
    changes: list[str]


@click.command(
    epilog=examples(
        "fn deploy demo", "fn deploy demo -d functions -i", "fn deploy demo --skip-push"
    )
)
@click.argument("app", shell_complete=completing.apps)
@VERBOSE
@click.option(
    "-d",
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    envvar="WORK_DIR",
    help="Where the functions are; default: here.",
)
@click.option("-i", "--incremental", is_flag=True, help="Leave out what has not changed.")
@click.option("--skip-push", is_flag=True, help="Runners use this machine's engine: do not push.")
@NO_CACHE
def deploy(app: str, folder: Path, **flags: Any) -> None:  # noqa: ANN401 (the options)
    """Deploy the function of this folder, and those of the folders in it, as routes of an app.

    For each: raise its version, build its image, push it, and make its route or change it to what
    func.yaml says. The route is bound to what was pushed, whatever becomes of the tag.
    """
    wish = Wish(app, **flags)
    folders = function_folders(folder)
    if not folders:
        raise FnError(
            f"there is no func.yaml in {folder.resolve()} or one folder below",
            "Make a function first: fn init --runtime python me/greet",
        )
    here = platform.current()
    outcomes = [_tried(one, wish, here, alone=len(folders) == 1) for one in folders]
    failed = [one for one in outcomes if isinstance(one, FnError)]
    if output.is_asked_for():
        output.show([asdict(one) for one in outcomes if isinstance(one, Done)], "")
    if failed:
        message = f"{len(failed)} of {len(folders)} functions could not be deployed"
        raise FnError(message, failed[0].message, failed[0].code)


def _tried(
    folder: Path, wish: Wish, here: platform.Platform, *, alone: bool
) -> Done | FnError | None:
    """Deploy one function of several; a failure is told, and does not keep the others back."""
    try:
        return _deploy(folder, wish, here)
    except FnError as error:
        if alone:
            raise
        output.warn(f"{folder}: {error.message}")
        if error.hint:
            output.note(f"    {error.hint}")
        return error


def function_folders(folder: Path) -> list[Path]:
    """Return the folder and those in it that have a function's file, in order."""
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [one for one in (folder, *inside) if funcfile.find(one)]


def _deploy(folder: Path, wish: Wish, here: platform.Platform) -> Done | None:
    """Deploy one function; None if it was left out since nothing has changed."""
    file = load(folder)
    hub = hubs.address(file)
    if not wish.skip_push:
        hubs.require(file, hub)
    warn_of_unset(file, os.environ)
    # What can be refused is asked for first: nothing is bumped or built in vain.
    old = _route(here, wish.app, file.route_path)
    if wish.incremental and old and _is_current(file, hub, old):
        output.note(f"{file.route_path}: nothing has changed")
        return None
    version = funcfile.bumped(file.version)
    options = building.Options(hub, wish.verbose, wish.no_cache)
    image = building.build(file, version, options)
    funcfile.write_version(file, version)
    if not wish.skip_push:
        image = imagenames.pinned(image, pushing.push(image, verbose=wish.verbose))
    return _activate(file, image, wish, here, old)


def _route(here: platform.Platform, app: str, path: str) -> dict[str, Any] | None:
    """Return the route as it is; None if there is none yet."""
    try:
        found: dict[str, Any] = here.ask("GET", platform.route_path(app, path))["route"]
    except FnError as error:
        if error.code == Exit.REFUSED and "not found" in error.message.lower():
            return None
        raise
    return found


def _is_current(file: FuncFile, hub: str, old: dict[str, Any]) -> bool:
    """Return whether the route has this version, and it was made of what is here now."""
    image = imagenames.full(file.name, file.version, hub)
    if str(old["image"]).partition("@")[0] != image:
        return False
    label = f'{{{{index .Config.Labels "{building.SOURCE_LABEL}"}}}}'
    said = engine.ask("image", "inspect", "-f", label, image)
    changed = deploying.difference(old, deploying.wanted(file, os.environ))
    return not changed and said.text == building.source_digest(file)


def _activate(
    file: FuncFile, image: str, wish: Wish, here: platform.Platform, old: dict[str, Any] | None
) -> Done:
    """Make the route, or change it to what the file says; tell what has changed."""
    path = platform.clean(file.route_path)
    new = deploying.wanted(file, os.environ, image)
    if old is None:
        body = {"route": {"path": path, **new}}
        here.ask("POST", platform.app_path(wish.app, "/routes"), body)
        _say(f"{path} created with {image}")
        url = here.url + platform.call_path(wish.app, path)
        _say(f"    call it: fn call {wish.app} {path}   or: curl {url}")
        return Done(path, image, created=True, changes=[])
    changed = deploying.difference(old, new)
    if changed:
        here.ask("PATCH", platform.route_path(wish.app, path), {"route": deploying.patch(changed)})
    lines = deploying.told(old, changed)
    _say(f"{wish.app} {path} updated")
    for line in lines:
        _say(f"    {line}")
    if "image" in changed:
        _say(f"    to go back: fn routes rollback {wish.app} {path}")
    return Done(path, image, created=False, changes=lines)


def _say(line: str) -> None:
    if not output.is_asked_for():
        click.echo(line)
