"""How are routes managed? `fn routes`."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import click

from fn import (
    completing,
    deploying,
    funcfields,
    funcfile,
    hubs,
    imagenames,
    inspecting,
    output,
    pairs,
    platform,
    tokens,
)
from fn.commanding import LazyGroup, examples
from fn.commands.apps import APP
from fn.commands.building import warn_of_unset
from fn.commands.call import call
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a route runs if nobody says, as ever.
DEFAULT_IMAGE = "iron/hello"

Command = TypeVar("Command", bound=Callable[..., None])

PATH = click.argument("path", metavar="/PATH", shell_complete=completing.routes)
_FLAGS = (
    click.option("-i", "--image", default="", help="Image it runs."),
    click.option("-m", "--memory", type=click.IntRange(1), metavar="MB", help="Memory limit."),
    click.option("--cpus", type=float, help="Cores it may use."),
    click.option("-t", "--type", type=click.Choice(funcfields.TYPES), help="How it is called."),
    click.option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="Its config."),
    click.option(
        "--headers", multiple=True, metavar="NAME=V1;V2", help="Headers of each of its answers."
    ),
    click.option(
        "-f",
        "--format",
        type=click.Choice(funcfields.FORMATS),
        help="How a call reaches the process.",
    ),
    click.option(
        "--max-concurrency",
        "-mc",
        type=click.IntRange(1),
        help="Most hot sandboxes on one runner.",
    ),
    click.option("-j", "--jwt-key", metavar="KEY", help="Secret that signs its callers' tokens."),
    click.option("--timeout", metavar="DURATION", help="How long a call may run: 30s."),
    click.option("--idle-timeout", metavar="DURATION", help="How long an idle sandbox is kept."),
    click.option(
        "--isolation",
        type=click.Choice(funcfields.ISOLATIONS),
        help="Whether calls share containers; whether containers share their app's network.",
    ),
    click.option(
        "--min-sandboxes", type=click.IntRange(0), help="Sandboxes each runner keeps ready."
    ),
    click.option(
        "--max-attempts",
        type=click.IntRange(1, 20),
        help="Most attempts of an async call that the platform fails.",
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, 20),
        help="Attempts of an async call after failures of its own.",
    ),
    click.option("--retry-delay", metavar="DURATION", help="Wait before a retry, growing: 10s."),
)


def _flags(command: Command) -> Command:
    for option in reversed(_FLAGS):
        command = option(command)
    return command


@click.group(
    cls=LazyGroup,
    aliases={
        "l": "list",
        "c": "create",
        "u": "update",
        "d": "delete",
        "i": "inspect",
        "t": "token",
    },
    epilog=examples(
        "fn routes list demo",
        "fn routes create demo /hello me/hello:0.0.1",
        "fn routes update demo /hello --memory 256",
    ),
)
def routes() -> None:
    """Manage routes: paths of an app, each bound to an image."""


routes.add_command(call)


@routes.command("list", epilog=examples("fn routes list demo", "fn routes list demo -o yaml"))
@APP
def list_routes(app: str) -> None:
    """List an app's routes."""
    here = platform.current()
    found = here.ask("GET", platform.app_path(app, "/routes"))["routes"]
    if not found:
        # Of an app that is not there, the API lists no routes either.
        here.ask("GET", platform.app_path(app))
    rows = [
        (route["path"], route["image"], here.url + platform.call_path(app, route["path"]))
        for route in found
    ]
    output.show(found, output.Table(("path", "image", "endpoint"), rows))


@routes.command(
    epilog=examples(
        "fn routes create demo /hello me/hello:0.0.1",
        "fn routes create demo /slow -i me/slow --type async --timeout 5m --config LEVEL=debug",
        "fn routes create demo /page -i me/page --headers 'Content-Type=text/html'",
    )
)
@APP
@PATH
@click.argument("image_argument", metavar="[IMAGE]", required=False, default="")
@_flags
def create(app: str, path: str, image_argument: str, **flags: Any) -> None:  # noqa: ANN401 (the options)
    """Make a route, and its app if there is none.

    In a folder with a func.yaml, what that says is taken unless an option says otherwise.
    """
    flags["image"] = flags["image"] or image_argument
    sent = merged(of_folder(Path.cwd(), os.environ), fields(flags, os.environ))
    sent["headers"] = {name: values for name, values in sent.get("headers", {}).items() if values}
    if not sent.get("image"):
        output.note(f"No image specified, using `{DEFAULT_IMAGE}`")
        sent["image"] = DEFAULT_IMAGE
    body = {"route": {"path": platform.clean(path), **sent}}
    told = inspecting.told(platform.current().ask("POST", platform.app_path(app, "/routes"), body))[
        "route"
    ]
    output.show(told, f"{told['path']} created with {told['image']}")


@routes.command(
    epilog=examples(
        "fn routes update demo /hello me/hello:0.0.2",
        "fn routes update demo /hello --timeout 1m --config -OLD --headers 'X-A=1;2'",
    )
)
@APP
@PATH
@click.argument("image_argument", metavar="[IMAGE]", required=False, default="")
@_flags
def update(app: str, path: str, image_argument: str, **flags: Any) -> None:  # noqa: ANN401 (the options)
    """Change a route; what is not named stays. -KEY removes a key of config or a header.

    In a folder with a func.yaml, what that says is taken unless an option says otherwise.
    """
    flags["image"] = flags["image"] or image_argument
    sent = merged(of_folder(Path.cwd(), os.environ), fields(flags, os.environ))
    if not sent:
        raise FnError("nothing to change", "Name what to change: `fn routes update --help`")
    sent["headers"] = pairs.replacing(sent.get("headers", {}))
    _patch(app, path, sent, f"{app} {platform.clean(path)} updated")


def of_folder(folder: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a route that a folder's func.yaml names; none if there is none."""
    path = funcfile.find(folder)
    if path is None:
        return {}
    file = funcfile.read(path)
    for warning in file.warnings:
        output.warn(warning)
    output.note(f"merged with {path.name}")
    warn_of_unset(file, environ)
    image = imagenames.full(file.name, file.version, hubs.address(file))
    return deploying.wanted(file, environ, image)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a route with others put over them; config and headers key by key.

    >>> merged({"image": "a", "config": {"A": "1"}}, {"image": "b", "config": {"B": "2"}})
    {'image': 'b', 'config': {'A': '1', 'B': '2'}}
    """
    deep = {
        name: {**old.get(name, {}), **new[name]} for name in ("config", "headers") if name in new
    }
    return {**old, **new, **deep}


def fields(flags: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a route that the options of `create` and `update` name."""
    sent = {name: value for name, value in flags.items() if value not in ("", None, ())}
    for name in ("timeout", "idle_timeout", "retry_delay"):
        if name in sent:
            sent[name] = pairs.duration_s(sent[name], f"--{name.replace('_', '-')}")
    if "config" in sent:
        sent["config"] = pairs.config(sent["config"], environ)
    if "headers" in sent:
        sent["headers"] = pairs.headers(sent["headers"])
    return sent


@routes.command(epilog=examples("fn routes delete demo /hello"))
@APP
@PATH
def delete(app: str, path: str) -> None:
    """Delete a route."""
    told = platform.current().ask("DELETE", platform.route_path(app, path))
    output.show(dict(told), f"{app} {platform.clean(path)} deleted")


@routes.command(
    epilog=examples("fn routes inspect demo /hello", "fn routes inspect demo /hello config.LEVEL")
)
@APP
@PATH
@click.argument("prop", metavar="[PROPERTY[.KEY]]", required=False, default="")
def inspect(app: str, path: str, prop: str) -> None:
    """Show a route, or one property of it, as JSON."""
    inspecting.show(_route(app, path), prop, f"route {app}{platform.clean(path)}")


@routes.command(epilog=examples("fn routes token demo /hello", "fn routes token demo /hello 60"))
@APP
@PATH
@click.argument("seconds", type=click.IntRange(1), default=tokens.LIFETIME_S)
def token(app: str, path: str, seconds: int) -> None:
    """Sign a token for the callers of a route that has a key."""
    key = _route(app, path)["jwt_key"]
    if not key:
        raise FnError(
            "Empty JWT Key",
            f"Anybody may call this route; `fn routes update {app} {platform.clean(path)} "
            "--jwt-key KEY` gives it a key",
            Exit.REFUSED,
        )
    signed = {"token": tokens.sign(key, time.time(), seconds)}
    output.show(signed, output.as_json(signed, indent="\t"))


@routes.command(epilog=examples("fn routes rollback demo /hello"))
@APP
@PATH
def rollback(app: str, path: str) -> None:
    """Go back to the image that a route had before; once more goes forward again."""
    found = _route(app, path)
    label = f"{app} {platform.clean(path)}"
    before = found.get("previous_images") or []
    if not before:
        raise FnError(
            f"{label} has had no image before {found['image']}",
            f"`fn routes update {label} IMAGE` gives it another",
            Exit.REFUSED,
        )
    line = f"{label} rolled back to {before[0]}\nwas {found['image']}"
    _patch(app, path, {"image": before[0]}, line)


@routes.group(
    cls=LazyGroup,
    aliases={"s": "set", "u": "unset"},
    epilog=examples("fn routes config set demo /hello LEVEL debug"),
)
def config() -> None:
    """Set and unset config that a route's function sees."""


@config.command("set", epilog=examples("fn routes config set demo /hello LEVEL debug"))
@APP
@PATH
@click.argument("key")
@click.argument("value")
def config_set(app: str, path: str, key: str, value: str) -> None:
    """Set one key of a route's config."""
    inspecting.warn_if_empty(key, value)
    line = f"{app} {platform.clean(path)} updated {key} with {value}"
    _patch(app, path, {"config": {key: value}}, line)


@config.command("unset", epilog=examples("fn routes config unset demo /hello LEVEL"))
@APP
@PATH
@click.argument("key")
def config_unset(app: str, path: str, key: str) -> None:
    """Remove one key from a route's config."""
    line = f"removed key '{key}' from the route '{app}{platform.clean(path)}'"
    _patch(app, path, {"config": {key: ""}}, line)


@routes.group(
    cls=LazyGroup,
    aliases={"s": "set", "u": "unset"},
    epilog=examples("fn routes headers set demo /hello Cache-Control no-store"),
)
def headers() -> None:
    """Set and unset headers of a route's answers."""


@headers.command(
    "set",
    epilog=examples(
        "fn routes headers set demo /hello Cache-Control no-store",
        "fn routes headers set demo /hello X-Both one two",
    ),
)
@APP
@PATH
@click.argument("name")
@click.argument("values", nargs=-1, required=True, metavar="VALUE...")
def headers_set(app: str, path: str, name: str, values: tuple[str, ...]) -> None:
    """Give one header exactly these values."""
    _check_header(name)
    line = f"{app} {platform.clean(path)} updated {name} with {';'.join(values)}"
    _patch(app, path, {"headers": pairs.replacing({name: values})}, line)


@headers.command("unset", epilog=examples("fn routes headers unset demo /hello Cache-Control"))
@APP
@PATH
@click.argument("name")
def headers_unset(app: str, path: str, name: str) -> None:
    """Remove one header from a route."""
    line = f"removed header '{name}' from the route '{app}{platform.clean(path)}'"
    _patch(app, path, {"headers": {name: []}}, line)


def _check_header(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*", name):
        raise FnError(f"{name!r} is no name of a header", "Write name and values apart: NAME VALUE")


def _route(app: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = platform.current().ask("GET", platform.route_path(app, path))["route"]
    return found


def _patch(app: str, path: str, changes: dict[str, Any], line: str) -> None:
    told = platform.current().ask("PATCH", platform.route_path(app, path), {"route": changes})
    output.show(inspecting.told(told)["route"], line)
