"""What does a function's file say, and where is it wrong? func.yaml, func.yml or func.json.

Reading checks every field; a mistake names the file, the line and the right spelling. Writing the
version changes nothing but the version: comments, order and layout stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fn import pairs, spelling
from fn.errors import FnError
from fn.funcfields import FIELDS, FOREIGN, Wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAMES = ("func.yaml", "func.yml", "func.json")
FIRST_VERSION = "0.0.1"

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SCALAR = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s,#}\]]+")
#: What some editors put at a file's beginning.
_MARK = "\ufeff"


class _AsWritten(RoundTripConstructor):
    """Takes numbers, truth values and dates as the texts they are in the file: 1.10 is not 1.1."""


for _kind in ("bool", "float", "int", "timestamp"):
    _AsWritten.add_constructor(f"tag:yaml.org,2002:{_kind}", lambda _, node: node.value)


@dataclass(frozen=True)
class FuncFile:
    """What one file says; fields it does not name are absent from `fields`."""

    path: Path
    #: By name, checked and in the platform's terms: seconds, lists of header values.
    fields: dict[str, Any]
    #: What was passed over, a sentence each.
    warnings: list[str] = field(default_factory=list)
    #: The line of each field, from 1.
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The function's folder."""
        return self.path.parent

    @property
    def name(self) -> str:
        """The image's name, without a tag."""
        return str(self.fields["name"])

    @property
    def version(self) -> str:
        """The image's tag."""
        return str(self.fields.get("version", FIRST_VERSION))

    @property
    def route_path(self) -> str:
        """Where the route is: `path`, or the last part of the name."""
        return str(self.fields.get("path") or "/" + self.name.rpartition("/")[2])

    @property
    def format(self) -> str:
        """How a call reaches the process."""
        return str(self.fields.get("format", "default"))

    def where(self, name: str) -> str:
        """Return where a field is, as in func.yaml:3; of one that is not there, the file."""
        line = self.lines.get(name)
        return f"{self.path.name}:{line}" if line else self.path.name

    def get(self, name: str, otherwise: Any = None) -> Any:  # noqa: ANN401 (fields differ in type)
        """Return a field, or what stands in for it."""
        return self.fields.get(name, otherwise)

    def config(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the config with `$NAME` and `${NAME}` filled in; `$$` is a dollar sign.

        A value that needs a variable that is not set is left out: see `unset`.
        """
        return {key: value for key, value in self._filled(environment) if value is not None}

    def unset(self, environment: Mapping[str, str]) -> list[str]:
        """Return the keys of config that need a variable that is not set."""
        return [key for key, value in self._filled(environment) if value is None]

    def _filled(self, environment: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
        for key, text in self.fields.get("config", {}).items():
            yield key, _filled(text, environment)


def _filled(text: str, environment: Mapping[str, str]) -> str | None:
    try:
        return pairs.expanded(text, environment, "")
    except FnError:
        return None


def find(folder: Path) -> Path | None:
    """Return the function's file of a folder, or None."""
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise FnError(
            f"{folder} has both {found[0].name} and {found[1].name}", "Keep one of them, please."
        )
    return found[0] if found else None


def load(folder: Path) -> FuncFile:
    """Return what the function's file of a folder says. Raises `FnError` if there is none."""
    path = find(folder)
    if path is None:
        raise FnError(
            f"there is no func.yaml in {folder.resolve()}",
            "Go to the function's folder, or make one: fn init --runtime python me/greet",
        )
    return read(path)


def read(path: Path) -> FuncFile:
    """Return what a file says. Raises `FnError` with the first mistake in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FnError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FnError(f"{path}: not UTF-8 text") from error
    return parse(text, path)


def parse(text: str, path: Path) -> FuncFile:
    """Return what a file's text says; pure. Raises `FnError` with the first mistake in it."""
    where = path.name
    document = _document(text, where)
    fields: dict[str, Any] = {}
    lines: dict[str, int] = {}
    warnings: list[str] = []
    for key, value in document.items():
        line = _line(document, key)
        if key in FOREIGN:
            warnings.append(f"{where}:{line}: {FOREIGN[key]}")
        else:
            name, checked = _checked(str(key), value, f"{where}:{line}")
            fields[name], lines[name] = checked, line
    if "name" not in fields:
        raise FnError(f"{where}: `name` is missing", "Write name: me/greet")
    return FuncFile(path, fields, warnings, lines)


def _checked(key: str, value: object, where: str) -> tuple[str, Any]:
    if key not in FIELDS:
        raise FnError(
            f"{where}: unknown field `{key}`{spelling.suggestion(key, FIELDS)}",
            f"The fields are {', '.join(FIELDS)}.",
        )
    rule = FIELDS[key]
    try:
        return rule.name or key, rule.check(value)
    except Wrong as error:
        deeper = _line_of_part(value, error.part)
        if deeper:
            where = f"{where.partition(':')[0]}:{deeper}"
        raise FnError(
            f"{where}: `{key}` {error}", error.hint or f"For example: {rule.example}"
        ) from None


def _document(text: str, where: str) -> Any:  # noqa: ANN401 (a mapping that knows its lines)
    if where.endswith(".json"):
        # JSON may be indented by tabs, which YAML does not know; inside of strings it has none.
        text = text.replace("\t", " ")
    yaml = YAML()
    yaml.Constructor = _AsWritten
    try:
        document = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise FnError(f"{where}{line}: {_problem(error)}", _hint(where, error)) from error
    except YAMLError as error:
        raise FnError(f"{where}: {' '.join(str(error).split())}", _hint(where, error)) from error
    if not hasattr(document, "lc") or not hasattr(document, "items"):
        raise FnError(f"{where}: no fields in it", "Its first line could be name: me/greet")
    return document


def _problem(error: MarkedYAMLError) -> str:
    said = " ".join(str(error.problem or error.context).split())
    return said.partition(" with value")[0] if "duplicate key" in said else said


def _hint(where: str, error: YAMLError) -> str:
    if isinstance(error, DuplicateKeyError):
        return "Each name can be there once: remove one of the two."
    kind = "JSON" if where.endswith(".json") else "YAML"
    return f"This is no {kind}: a quote, a colon or an indentation is missing or too much."


def _line(document: Any, key: object) -> int:  # noqa: ANN401
    """Return the line of a key, from 1; of one that is merged from elsewhere, the first."""
    return int((document.lc.data or {}).get(key, (0,))[0]) + 1


def _line_of_part(value: object, part: object) -> int:
    """Return the line of a part of a field's value, from 1; 0 if it has none of its own."""
    for key in _path(part):
        lines = getattr(value, "lc", None)
        data = getattr(lines, "data", None) or {}
        if lines is None or key not in data:
            return 0
        line = data[key][0] + 1
        value = value[key]  # type: ignore[index]  # what has lines has parts
    return line if part is not None else 0


def _path(part: object) -> Iterator[object]:
    if isinstance(part, tuple):
        yield from part
    elif part is not None:
        yield part


def with_version(text: str, version: str, *, json: bool = False) -> str:
    """Return a file's text with another version and nothing else changed; pure.

    A file without a version gets one before its name.
    """
    if text.startswith(_MARK):
        return _MARK + with_version(text[len(_MARK) :], version, json=json)
    document = _document(text, "func.json" if json else "func.yaml")
    lines = _LINE.findall(text)
    if "version" in document:
        row, column = document.lc.value("version")
        line = lines[row]
        old = _SCALAR.match(line, column)
        end = old.end() if old else column
        quote = line[column] if line[column : column + 1] in {"'", '"'} else ""
        lines[row] = f"{line[:column]}{quote}{version}{quote}{line[end:]}"
        return "".join(lines)
    row, column = document.lc.key("name")
    start = lines[row][:column]
    if json or document.fa.flow_style():
        lines[row] = f'{start}"version": "{version}", {lines[row][column:]}'
    else:
        end = lines[row][len(lines[row].rstrip("\r\n")) :] or "\n"
        lines.insert(row, f"{start}version: {version}{end}")
    return "".join(lines)


def write_version(file: FuncFile, version: str) -> None:
    """Write a version into the function's file."""
    with file.path.open(encoding="utf-8", newline="") as stream:
        text = stream.read()
    changed = with_version(text, version, json=file.path.suffix == ".json")
    with file.path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(changed)


def bumped(version: str) -> str:
    """Return the next version: the patch part goes up, and what follows it is dropped.

    >>> bumped("1.2.9"), bumped("1.2.9-rc.1")
    ('1.2.10', '1.2.10')
    """
    first, _, patch = version.partition("-")[0].rpartition(".")
    return f"{first}.{int(patch) + 1}"
