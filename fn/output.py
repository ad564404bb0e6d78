"""How are results shown? As lines and tables to people, as JSON or YAML to programs.

What a command found goes to standard output; what it is doing meanwhile to standard error.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

FORMATS = ("json", "yaml", "table")
#: Where a click context keeps the chosen format.
_META = "fn.output"
_TAB_WIDTH = 8
#: Words that a terminal shows in a colour of their own.
_STYLES = {
    "success": "green",
    "ready": "green",
    "ok": "green",
    "running": "yellow",
    "queued": "yellow",
    "draining": "yellow",
    "missing": "yellow",
    "error": "red",
    "cancelled": "red",
    "unable": "red",
    "failed": "red",
}
#: Columns of so few characters are never folded.
_SHORT = 14


@dataclass(frozen=True)
class Table:
    """Rows under column names; cells are shown by `cell`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]] = field(default_factory=list)


def choose(name: str) -> None:
    """Let the commands of this run answer as one of `FORMATS`."""
    click.get_current_context().meta[_META] = name


def chosen() -> str:
    """Return the format that was asked for; "" if none was."""
    context = click.get_current_context(silent=True)
    return str(context.meta.get(_META, "")) if context else ""


def is_for_programs() -> bool:
    """Tell whether standard output has to be JSON or YAML."""
    return chosen() in {"json", "yaml"}


def is_asked_for() -> bool:
    """Tell whether the result is wanted in a certain format, and so as one piece."""
    return bool(chosen())


def prepare() -> None:
    """Import now what `show` needs: soon there may be nothing to import from."""
    if chosen() == "yaml":
        as_yaml(None)
    elif chosen() == "table" and sys.stdout.isatty():
        _print(Table(("",), [["ok"]]), io.StringIO())


def show(value: object, table: Table | str, lines: str | None = None) -> None:
    """Show a result: `value` as JSON or YAML if that was asked for, else what people read.

    `value` is made of dicts, lists, text, numbers, booleans and None. People get `table`; or
    `lines`, if there are any and `-o table` was not asked for. A `table` that is text stands for
    lines, and for the table that `value` makes.
    """
    form = chosen()
    if form == "json":
        click.echo(as_json(value))
    elif form == "yaml":
        click.echo(as_yaml(value), nl=False)
    elif isinstance(table, Table) and (lines is None or form == "table"):
        show_table(table)
    elif form == "table" and isinstance(value, (dict, list)):
        show_table(table_of(value))
    else:
        click.echo(cell(value) if form == "table" else lines if lines is not None else table)


def note(text: str) -> None:
    """Tell people what goes on: a line on standard error."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Tell people what they should know: a yellow line on standard error."""
    styled("fn: " + text, "yellow")


def styled(text: str, colour: str) -> None:
    """Write a line to standard error, in colour if that is a terminal that wants colours."""
    click.echo(coloured(text, colour), err=True)


def coloured(text: str, colour: str) -> str:
    """Return text in a colour, unless colours are not wanted; no terminal, no colour either."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)


def as_json(value: object, indent: str = "  ") -> str:
    """Return a value as JSON, one field a line."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def as_yaml(value: object) -> str:
    """Return a value as a YAML document."""
    from ruamel.yaml import YAML  # noqa: PLC0415 (only for YAML)

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    # Text that is folded is read by programs only.
    yaml.width = sys.maxsize
    yaml.sort_base_mapping_type_on_output = False
    yaml.representer.add_representer(str, _yaml_text)
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue().removesuffix("...\n")


def _yaml_text(representer: Any, text: str) -> Any:  # noqa: ANN401 (ruamel's own)
    """Quote also what is a switch to readers of YAML 1.1."""
    style = "'" if re.fullmatch("(?i)y|n|yes|no|on|off", text) else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def table_of(value: dict[str, Any] | list[Any]) -> Table:
    """Return a thing as a table of its fields, several as one with a row for each.

    >>> table_of({"image": "a", "digest": "b"}).rows
    [('image', 'a'), ('digest', 'b')]
    >>> table_of([{"name": "a", "ok": True}]).columns, table_of([1, 2]).rows
    (['name', 'ok'], [[1], [2]])
    """
    if isinstance(value, dict):
        return Table(("field", "value"), list(value.items()))
    if not all(isinstance(item, dict) for item in value):
        return Table(("value",), [[item] for item in value])
    columns = list(dict.fromkeys(name for item in value for name in item))
    return Table(columns, [[item.get(name) for name in columns] for item in value])


def show_table(table: Table) -> None:
    """Show a table: in colour and fitted on a terminal, else with tabs between the columns."""
    if not sys.stdout.isatty():
        click.echo(tabbed([table.columns, *[[cell(value) for value in row] for row in table.rows]]))
        return
    _print(table, sys.stdout)


def _print(table: Table, stream: TextIO) -> None:
    from rich import box  # noqa: PLC0415 (only for terminals)
    from rich.console import Console  # noqa: PLC0415 (only for terminals)
    from rich.table import Table as RichTable  # noqa: PLC0415 (only for terminals)
    from rich.text import Text  # noqa: PLC0415 (only for terminals)

    shown = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    rows = [[cell(value) for value in row] for row in table.rows]
    for index, name in enumerate(table.columns):
        # The first column is what people copy; words in pieces cannot be read.
        widest = max(len(text) for text in (name, *(row[index] for row in rows)))
        shown.add_column(name, overflow="fold", no_wrap=index == 0 or widest <= _SHORT)
    for row in rows:
        shown.add_row(*[Text(text, _STYLES.get(text, "")) for text in row])
    console = Console(file=stream)
    # What does not fit even so goes beyond the edge: the terminal has it on the next line.
    unbounded = console.options.update(max_width=sys.maxsize)
    console.width = max(console.width, console.measure(shown, options=unbounded).minimum)
    console.print(shown)


def cell(value: object) -> str:
    """Return a value as a table's cell has it: one line of text.

    >>> cell({"A": "1", "B": "2"}), cell(None), cell(True), cell(1.0)
    ('A=1,B=2', '-', 'yes', '1')
    """
    if isinstance(value, dict):
        return ",".join(f"{name}={cell(item)}" for name, item in value.items()) or "-"
    if isinstance(value, list):
        return ";".join(cell(item) for item in value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = "" if value is None else str(value)
    return printable(re.sub(r"\s+", " ", text)) or "-"


def printable(text: str) -> str:
    """Return text without what would steer a terminal; it may come from anybody."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf"})


def tabbed(rows: Sequence[Sequence[str]]) -> str:
    r"""Return rows as lines with tabs between the cells, as many as align them at eights.

    >>> tabbed([["path", "image"], ["/hello", "me/hello"]])
    'path\timage\n/hello\tme/hello'
    """
    widths = [max(map(len, column)) // _TAB_WIDTH + 1 for column in zip(*rows)]
    return "\n".join(_tabbed_line(row, widths) for row in rows)


def _tabbed_line(row: Sequence[str], stops: Sequence[int]) -> str:
    padded = [text + "\t" * (stop - len(text) // _TAB_WIDTH) for text, stop in zip(row[:-1], stops)]
    return "".join([*padded, *row[-1:]])


class Progress:
    """Long work in parts: a bar for each on a terminal, else a line for each change of its state.

    with Progress("pushing me/greet:0.0.2") as progress:
        progress.part("layer 1", "pushing", 512, 2048)
        progress.part("layer 1", "pushed")
        progress.line("digest: sha256:...")
    """

    def __init__(self, title: str) -> None:
        """`title` says what is being done."""
        self._title = title
        self._states: dict[str, str] = {}
        self._bars: dict[str, Any] = {}
        self._rich: Any = None

    def __enter__(self) -> Progress:  # noqa: PYI034 (Self is of Python 3.11)
        """Say what begins."""
        if sys.stderr.isatty():
            self._rich = _bars()
            self._rich.start()
            self._rich.console.print(self._title, markup=False, highlight=False)
        else:
            note(self._title)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bars as they stand."""
        if self._rich is not None:
            self._rich.stop()

    def part(self, name: str, state: str, done: int = 0, total: int = 0) -> None:
        """Tell how far one part is, in bytes or whatever; `total` is 0 if nobody knows."""
        if self._rich is not None:
            self._bar(name, state, done, total)
        elif self._states.get(name) != state:
            note(f"  {name}: {state}")
        self._states[name] = state

    def _bar(self, name: str, state: str, done: int, total: int) -> None:
        if name not in self._bars:
            self._bars[name] = self._rich.add_task(name, total=None, state="")
        bar = self._bars[name]
        if total:
            self._rich.update(bar, state=state, completed=done, total=total)
        else:
            # Whatever it does now, what was counted before is done.
            self._rich.update(bar, state=state, completed=self._rich.tasks[bar].total or 0)

    def line(self, text: str) -> None:
        """Tell something in a line of its own, above the bars."""
        if self._rich is not None:
            self._rich.console.print(text, markup=False, highlight=False)
        else:
            note(text)


def _bars() -> Any:  # noqa: ANN401 (imported when needed)
    from rich import progress  # noqa: PLC0415 (only for terminals)
    from rich.console import Console  # noqa: PLC0415 (only for terminals)

    return progress.Progress(
        progress.TextColumn("  {task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.fields[state]}", markup=False),
        console=Console(stderr=True),
    )
