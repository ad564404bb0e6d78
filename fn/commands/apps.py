"""How are apps managed? `fn apps`."""

from __future__ import annotations

import os
from typing import Any, Callable, TypeVar

import click

from fn import completing, inspecting, output, pairs, platform
from fn.commanding import LazyGroup, examples
from fn.errors import FnError

Command = TypeVar("Command", bound=Callable[..., None])

APP = click.argument("app", shell_complete=completing.apps)
_LIMITS = (
    click.option(
        "--max-inflight",
        type=click.IntRange(0),
        metavar="CALLS",
        help="Calls accepted and not ended, at most; 0: any.",
    ),
    click.option(
        "--rate", type=click.FloatRange(0), metavar="CALLS", help="Calls a second, at most; 0: any."
    ),
    click.option(
        "--burst",
        type=click.IntRange(0),
        metavar="CALLS",
        help="Calls at once, within the rate; 0: a second's.",
    ),
)


@click.group(
    cls=LazyGroup,
    aliases={"c": "create", "i": "inspect", "u": "update", "l": "list"},
    epilog=examples("fn apps create demo", "fn apps list", "fn apps config set demo LEVEL debug"),
)
def apps() -> None:
    """Manage apps: groups of routes with shared config."""


def _limits(command: Command) -> Command:
    for option in reversed(_LIMITS):
        command = option(command)
    return command


@apps.command(
    epilog=examples(
        "fn apps create demo",
        "fn apps create demo --config LEVEL=debug",
        "fn apps create demo --max-inflight 50 --rate 100",
    )
)
@APP
@click.option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="Config of the app.")
@_limits
def create(app: str, config: tuple[str, ...], **limits: float | None) -> None:
    """Make an app."""
    fields: dict[str, Any] = {"name": app, **_given(limits)}
    if config:
        fields["config"] = pairs.config(config, os.environ)
    told = inspecting.told(platform.current().ask("POST", "/v1/apps", {"app": fields}))
    output.show(told["app"], f"{told['app']['name']} created")


@apps.command("list", epilog=examples("fn apps list", "fn apps list -o json"))
def list_apps() -> None:
    """List all apps."""
    found = platform.current().ask("GET", "/v1/apps")["apps"]
    table = output.Table(("name", "config"), [(app["name"], app["config"]) for app in found])
    lines = "\n".join(app["name"] for app in found) or "no apps found"
    output.show(found, table, lines)


@apps.command(epilog=examples("fn apps inspect demo", "fn apps inspect demo config.LEVEL"))
@APP
@click.argument("prop", metavar="[PROPERTY[.KEY]]", required=False, default="")
def inspect(app: str, prop: str) -> None:
    """Show an app, or one property of it, as JSON."""
    found = platform.current().ask("GET", platform.app_path(app))["app"]
    inspecting.show(found, prop, f"app {app}")


@apps.command(
    epilog=examples(
        "fn apps update demo --config LEVEL=info --config -OLD", "fn apps update demo --rate 20"
    )
)
@APP
@click.option(
    "-c", "--config", multiple=True, metavar="KEY=VALUE", help="Config to set; -KEY removes one."
)
@_limits
@click.option("--headers", multiple=True, metavar="NAME=VALUE", help="None: only routes have some.")
def update(
    app: str, config: tuple[str, ...], headers: tuple[str, ...], **limits: float | None
) -> None:
    """Change an app's config and limits; what is not named stays."""
    if headers:
        raise FnError(
            "apps have no headers; their routes have",
            f"Set them with `fn routes headers set {app} /PATH NAME VALUE`",
        )
    fields = {"config": pairs.config(config, os.environ), **_given(limits)}
    _patch(app, fields, f"app {app} updated")


@apps.command(epilog=examples("fn apps delete demo"))
@APP
def delete(app: str) -> None:
    """Delete an app that has no routes."""
    told = platform.current().ask("DELETE", platform.app_path(app))
    output.show(dict(told), f"app {app} deleted")


@apps.command(
    "callback-secret",
    epilog=examples("fn apps callback-secret demo", "fn apps callback-secret demo --rotate"),
)
@APP
@click.option("--rotate", is_flag=True, help="Make a new one; the old signs beside it for a day.")
def callback_secret(app: str, rotate: bool) -> None:  # noqa: FBT001 (a flag)
    """Show what signs an app's callbacks, so that receivers can check who calls."""
    path = platform.app_path(app, "/callback-secret")
    told = platform.current().ask("POST" if rotate else "GET", path)["callback_secret"]
    output.show(told, told["secret"])


@apps.group(
    cls=LazyGroup,
    aliases={"s": "set", "u": "unset"},
    epilog=examples("fn apps config set demo LEVEL debug", "fn apps config unset demo LEVEL"),
)
def config() -> None:
    """Set and unset config that all functions of an app see."""


@config.command("set", epilog=examples("fn apps config set demo LEVEL debug"))
@APP
@click.argument("key")
@click.argument("value")
def config_set(app: str, key: str, value: str) -> None:
    """Set one key of an app's config."""
    inspecting.warn_if_empty(key, value)
    _patch(app, {"config": {key: value}}, f"{app} updated {key} with {value}")


@config.command("unset", epilog=examples("fn apps config unset demo LEVEL"))
@APP
@click.argument("key")
def config_unset(app: str, key: str) -> None:
    """Remove one key from an app's config."""
    _patch(app, {"config": {key: ""}}, f"removed key '{key}' from app '{app}'")


def _given(limits: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in limits.items() if value is not None}


def _patch(app: str, fields: dict[str, Any], line: str) -> None:
    body = {"app": fields}
    told = inspecting.told(platform.current().ask("PATCH", platform.app_path(app), body))
    output.show(told["app"], line)
