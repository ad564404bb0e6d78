"""Which versions are here and there? `fn version`."""

from __future__ import annotations

import click

from fn import output, platform
from fn.commanding import examples
from fn.version import version as own_version


@click.command(epilog=examples("fn version", "fn version -o json"))
def version() -> None:
    """Show the versions of this client and of the platform."""
    both = {"client": own_version(), "server": None}
    # The client's is told also if no platform answers.
    if not output.is_asked_for():
        click.echo(f"Client version: {both['client']}")
    try:
        both["server"] = platform.current().ask("GET", "/version").get("version")
    finally:
        if output.is_asked_for():
            output.show(both, "")
    if not output.is_asked_for():
        click.echo(f"Server version {both['server']}")
