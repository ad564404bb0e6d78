"""What does this JSON say? Pure: as lenient as the guide's commands need and no more.

One trailing comma before a closing bracket is allowed, and text after the first value is ignored.
Everything else that is no JSON is refused, with line and column.
"""

import json
import re
from typing import Any, NoReturn

from services.api.problems import BadRequest

#: One that nobody closed reaches to the end: looked for anew at each of its quotes, it would take
#: a time that grows with its square.
_STRING = r'"(?:[^"\\]|\\.?)*(?:"|\Z)'
#: Strings and openings with a comma are taken whole, so that only a comma after a value is left.
_TRAILING_COMMA = re.compile(rf"{_STRING}|[\[{{]\s*,|(?P<comma>,)(?=\s*[\]}}])", re.DOTALL)
_CONSTANT = re.compile(rf"{_STRING}|(?P<name>NaN|-?Infinity)", re.DOTALL)
_BLANKS = " \t\r\n"


def parse(raw: bytes) -> Any:  # noqa: ANN401 (it is whatever was sent)
    """Return the first JSON value in `raw`.

    Raises `BadRequest` "Invalid JSON: line 1 column 9: ...".

    >>> parse(b'{"app": {"name": "a,]",}} and more')
    {'app': {'name': 'a,]'}}
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        raise _invalid(before, len(before), "this byte is not UTF-8") from error
    try:
        return _first_value(text)
    except json.JSONDecodeError:
        blanked = _TRAILING_COMMA.sub(lambda m: " " if m["comma"] else m[0], text)
    try:
        return _first_value(blanked)
    except json.JSONDecodeError as error:
        raise _invalid(text, error.pos, error.msg) from error


def _first_value(text: str) -> Any:  # noqa: ANN401
    start = len(text) - len(text.lstrip(_BLANKS))

    def refuse(_: str) -> NoReturn:
        found = next(m for m in _CONSTANT.finditer(text, start) if m["name"])
        raise json.JSONDecodeError("Expecting value", text, found.start())

    try:
        value, _ = json.JSONDecoder(parse_constant=refuse).raw_decode(text, start)
        return _whole(value) if "\\u" in text else value
    except RecursionError as error:
        raise BadRequest("Invalid JSON: line 1 column 1: nested too deeply") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise BadRequest("Invalid JSON: line 1 column 1: a number is too long") from error


def _whole(value: Any) -> Any:  # noqa: ANN401
    """Return the value with halves of surrogate pairs, which no encoding has, replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _invalid(text: str, position: int, why: str) -> BadRequest:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return BadRequest(f"Invalid JSON: line {line} column {column}: {why}")
