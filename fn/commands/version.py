"""Which versions are here and there? `fn version`."""

from __future__ import annotations

import click

from fn import inspecting, output, platform
from fn.commanding import examples
from fn.version import version as own_version


@click.command(epilog=examples("fn version", "fn version -o json"))
def version() -> None:
    """Show the versions of this client and of the platform."""
    here = own_version()
    if not output.is_for_programs():
        # Also if no platform answers.
        click.echo(f"Client version: {here}")
    told = platform.current().ask("GET", "/version")
    both = {"client": here, "server": told.get("version")}
    if output.is_for_programs():
        output.show(both, inspecting.fields(both))
    else:
        click.echo(f"Server version {both['server']}")
