"""What do all commands have in common? Import when called, guesses, `-o`, help with examples."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

import click

from fn import output


def examples(*lines: str) -> str:
    """Return the end of a command's help: what one may type.

    >>> examples("fn apps list").splitlines()[1:]
    ['Examples:', '  fn apps list']
    """
    return "\n".join(["\b", "Examples:", *[f"  {line}" for line in lines]])


class LazyGroup(click.Group):
    """A group whose commands may be imported when asked for, and that guesses what was meant."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 (click's own)
        lazy: dict[str, str] | None = None,
        aliases: dict[str, str] | None = None,
        **kwargs: Any,  # noqa: ANN401 (click's own)
    ) -> None:
        """`lazy`: name -> "module:object"; `aliases`: another name -> name, not in the help."""
        super().__init__(*args, **kwargs)
        self._lazy = {} if lazy is None else lazy
        self._aliases = aliases or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command that takes `-o`, imported now if need be."""
        name = self._aliases.get(cmd_name, cmd_name)
        if name not in self._lazy:
            found = super().get_command(ctx, name)
        else:
            module, _, attribute = self._lazy[name].partition(":")
            found = getattr(import_module(module), attribute)
        return found and with_output(found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was typed; if there is none, say which was perhaps meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.5)
            error.message += f" Did you mean {close[0]!r}?" if close else ""
            raise


def with_output(command: click.Command) -> click.Command:
    """Return the command, which takes `-o` from now on, as do those of a group."""
    if not any("-o" in getattr(param, "opts", ()) for param in command.params):
        command.params.append(_output_option())
    if isinstance(command, click.Group):
        for child in command.commands.values():
            with_output(child)
    return command


def _output_option() -> click.Option:
    return click.Option(
        ["-o", "--output"],
        type=click.Choice(output.FORMATS),
        expose_value=False,
        callback=_choose,
        help="How to show the result; without, as lines for people.",
    )


def _choose(_: click.Context, __: click.Parameter, value: str | None) -> None:
    if value:
        output.choose(value)
