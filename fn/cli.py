"""Which commands are there, and how do they end? Commands are imported when they are called."""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

import click

from fn.errors import Exit, FnError

#: Command -> the module and object that define it. Modules are imported only when asked for, since
#: a command line should answer at once.
COMMANDS: dict[str, str] = {}


class LazyGroup(click.Group):
    """A group whose commands are imported when asked for, and that guesses what was meant."""

    def __init__(self, *args: object, lazy: dict[str, str] | None = None, **kwargs: object) -> None:
        """`lazy`: name -> "module:object"."""
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click's own arguments
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now if need be."""
        if cmd_name in self._lazy:
            module, _, name = self._lazy[cmd_name].partition(":")
            found: click.Command = getattr(import_module(module), name)
            return found
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was typed; if there is none, say which was perhaps meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=3, cutoff=0.5)
            if close:
                error.message += f" Did you mean {' or '.join(repr(name) for name in close)}?"
            raise


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """Build functions, deploy them to Millrace, call them and see what became of the calls."""


def main() -> None:
    """Run what the command line says; end with its exit code, and never with a traceback."""
    try:
        root.main(standalone_mode=False, prog_name="fn")
    except FnError as error:
        _complain(error.message, error.hint)
        sys.exit(error.code)
    except click.exceptions.Abort:
        sys.exit(Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except click.exceptions.Exit as asked:
        sys.exit(asked.exit_code)


def _complain(message: str, hint: str) -> None:
    click.secho(f"fn: {message}", fg="red", err=True)
    if hint:
        click.echo(f"    {hint}", err=True)
