"""How does the shell's tab key complete commands? `fn completion`."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from fn.commanding import examples
from fn.errors import FnError

if TYPE_CHECKING:
    from click.shell_completion import ShellComplete

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog=examples(
        'eval "$(fn completion bash)"                              # in ~/.bashrc',
        'eval "$(fn completion zsh)"                               # in ~/.zshrc, after compinit',
        "fn completion fish > ~/.config/fish/completions/fn.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Write what makes a shell complete commands, options, apps and routes."""
    click.echo(script(shell or _own_shell()))


def script(shell: str) -> str:
    """Return what a shell has to read."""
    from fn.cli import root  # noqa: PLC0415 (it imports this module)

    found: type[ShellComplete] | None = get_completion_class(shell)
    if found is None:
        raise FnError(f"no completion for {shell}", f"There is one for {', '.join(SHELLS)}")
    complete = found(root, {}, "fn", "_FN_COMPLETE")
    # Asked for its whole source, the library starts a bash to see how old it is.
    return complete.source_template % complete.source_vars()


def _own_shell() -> str:
    name = PurePath(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise FnError(
            f"which shell? {name!r} is none of those known", f"fn completion {'|'.join(SHELLS)}"
        )
    return name
