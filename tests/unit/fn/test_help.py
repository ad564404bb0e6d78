"""Is there help for each command, with examples, and do the examples in docstrings hold?"""

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import fn
from fn.cli import root
from fn.commanding import LazyGroup

DOCUMENT = (Path(__file__).parents[3] / "docs" / "fn.md").read_text()


def commands(
    group: click.Group = root, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group, info_name="fn")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


ALL = dict(commands())


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_with_examples(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(root, [*words, "--help"], prog_name="fn")
    assert done.exit_code == 0
    assert "Examples:\n" in done.output
    assert "-o, --output" in done.output


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_is_documented(words: tuple[str, ...]) -> None:
    command = ALL[words]
    if not isinstance(command, click.Group):
        assert f"fn {' '.join(words)}" in DOCUMENT


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_examples_are_of_commands_and_options_that_exist(words: tuple[str, ...]) -> None:
    for line in re.findall(r"^  +(fn .*)$", ALL[words].epilog or "", re.MULTILINE):
        named = [word for word in line.split()[1:] if re.fullmatch(r"[a-z][a-z-]*", word)]
        found = max(
            (other for other in ALL if tuple(named[: len(other)]) == other), key=len, default=None
        )
        assert found is not None, line
        options = {o for param in ALL[found].params for o in (*param.opts, *param.secondary_opts)}
        used = set(re.findall(r"(?<=\s)--[a-z-]+", line.partition("#")[0]))
        assert used <= {*options, "--runtime"}, line


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_groups_guess_what_was_meant(words: tuple[str, ...]) -> None:
    if isinstance(ALL[words], click.Group):
        assert isinstance(ALL[words], LazyGroup)


@pytest.mark.parametrize("name", [m.name for m in pkgutil.walk_packages(fn.__path__, "fn.")])
def test_docstrings_are_true(name: str) -> None:
    if not name.endswith("__main__"):
        assert doctest.testmod(importlib.import_module(name)).failed == 0
