"""Which platforms are known by name, and which one is in use? `fn context`."""

from __future__ import annotations

import os
from dataclasses import replace

import click

from fn import completing, contexts, output
from fn.commanding import LazyGroup, examples
from fn.errors import Exit, FnError

_FLAGS = {
    "api_url": "--api-url",
    "jwt_auth_key": "--jwt-auth-key",
    "ssl_skip_verify": "--ssl-skip-verify",
    "hub": "--hub",
}
NAME = click.argument("name", shell_complete=completing.saved_contexts)


@click.group(
    cls=LazyGroup,
    aliases={"l": "list", "delete": "remove", "rm": "remove"},
    epilog=examples(
        "fn context add prod https://fn.example.com --jwt-auth-key",
        "fn context use prod",
        "fn context list",
    ),
)
def context() -> None:
    """Keep several platforms by name, and choose between them.

    The environment variables API_URL, JWT_AUTH_KEY, SSL_SKIP_VERIFY and HUB win over the context in
    use.
    """


@context.command(
    epilog=examples(
        "fn context add prod https://fn.example.com --jwt-auth-key",
        "fn context add lab http://10.0.0.7:8080 --hub 10.0.0.7:5000 --use",
    )
)
@click.argument("name")
@click.argument("url", metavar="[API_URL]", default="")
@click.option("--api-url", default="", metavar="URL", help="The same as the argument.")
@click.option(
    "--jwt-auth-key",
    prompt="JWT_AUTH_KEY",
    prompt_required=False,
    hide_input=True,
    default="",
    metavar="[KEY]",
    help="Signs management tokens; without KEY it is asked for, and not seen.",
)
@click.option("--ssl-skip-verify", is_flag=True, help="Trust any certificate.")
@click.option("--hub", default="", metavar="HOST:PORT", help="Registry; default: the platform's.")
@click.option("--use", is_flag=True, help="Use it from now on.")
@click.option("--replace", "replaced", is_flag=True, help="Instead of one of this name.")
def add(name: str, url: str, use: bool, replaced: bool, **flags: object) -> None:  # noqa: FBT001 (flags)
    """Remember a platform by a name."""
    flags["api_url"] = url or flags["api_url"]
    if not flags["api_url"]:
        raise FnError(
            "the platform's address is missing", f"fn context add {name} http://HOST:8080"
        )
    saved = contexts.load(contexts.file())
    if contexts.check_name(name) in saved.contexts and not replaced:
        raise FnError(
            f"there is a context {name} already",
            "--replace puts this one in its place; `fn context list` shows all",
            Exit.REFUSED,
        )
    given = {field: value for field, value in flags.items() if value}
    made = contexts.with_fields(contexts.Context(), given, _FLAGS)
    current = name if use else saved.current
    contexts.save(contexts.file(), contexts.Saved(current, {**saved.contexts, name: made}))
    output.show(_told(name, made, current), f"context {name} added" + ", and in use" * use)


@context.command(epilog=examples("fn context use prod", "fn context use default"))
@NAME
def use(name: str) -> None:
    """Use a context from now on; `default` is http://localhost:8080."""
    saved = contexts.load(contexts.file())
    _check_known(name, saved)
    contexts.save(contexts.file(), replace(saved, current=name))
    found = saved.contexts.get(name, contexts.Context())
    output.show(_told(name, found, name), f"context {name} in use: {found.api_url}")
    _warn_of_environment()


@context.command("list", epilog=examples("fn context list", "fn context list -o json"))
def list_contexts() -> None:
    """List all contexts; the one in use has a star."""
    saved = contexts.load(contexts.file())
    known = {contexts.DEFAULT: contexts.Context(), **saved.contexts}
    told = [_told(name, found, saved.current) for name, found in known.items()]
    rows = [
        ("*" if c["current"] else " ", c["name"], c["api_url"], c["has_key"], c["hub"])
        for c in told
    ]
    output.show(told, output.Table(("current", "name", "api_url", "key", "hub"), rows))
    _warn_of_environment()


@context.command(epilog=examples("fn context remove lab"))
@NAME
def remove(name: str) -> None:
    """Forget a context; if it is in use, the default is from now on."""
    saved = contexts.load(contexts.file())
    _check_known(contexts.check_name(name), saved)
    left = {other: found for other, found in saved.contexts.items() if other != name}
    current = contexts.DEFAULT if saved.current == name else saved.current
    contexts.save(contexts.file(), contexts.Saved(current, left))
    output.show({"name": name, "removed": True}, f"context {name} removed")


def _check_known(name: str, saved: contexts.Saved) -> None:
    known = [contexts.DEFAULT, *saved.contexts]
    if name not in known:
        raise FnError(
            f"there is no context {name!r}", f"There are: {', '.join(known)}", Exit.REFUSED
        )


def _told(name: str, found: contexts.Context, current: str) -> dict[str, object]:
    """Return a context as it is shown: without its key."""
    return {
        "name": name,
        "current": name == current,
        "api_url": found.api_url,
        "has_key": bool(found.jwt_auth_key),
        "ssl_skip_verify": found.ssl_skip_verify,
        "hub": found.hub,
    }


def _warn_of_environment() -> None:
    for variable in contexts.VARIABLES.values():
        if os.environ.get(variable):
            output.warn(f"{variable} is set in the environment, and wins over the context")
