"""What do `KEY=VALUE` options mean? Pure: config, headers, and durations as Go writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fn.errors import FnError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>\w+)\}|(?P<bare>[A-Za-z_]\w*))")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")


def config(options: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return config from `KEY=VALUE` options; `-KEY` or an empty value removes the key.

    `$NAME` and `${NAME}` in a value are the environment's, `$$` is a dollar. Raises `FnError`.

    >>> config(["A=1", "B=${HOME}/b", "-C"], {"HOME": "/root"})
    {'A': '1', 'B': '/root/b', 'C': ''}
    """
    return {
        key: expanded(value, environ, key) for key, value in (_pair(o, "--config") for o in options)
    }


def headers(options: Iterable[str]) -> dict[str, list[str]]:
    """Return headers from `NAME=VALUE;VALUE` options; no value means to remove. Raises `FnError`.

    >>> headers(["X-A=1;2", "-X-B"])
    {'X-A': ['1', '2'], 'X-B': []}
    """
    pairs = [_pair(option, "--headers") for option in options]
    return {name: [value for value in text.split(";") if value] for name, text in pairs}


def _pair(option: str, flag: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    removed = key.startswith("-")
    key = key.lstrip("-").strip()
    if not key or not (equals or removed):
        raise FnError(f"{flag} {option!r} is no KEY=VALUE", f"Write it as {flag} NAME=value")
    return key, "" if removed else value


def expanded(text: str, environ: Mapping[str, str], label: str) -> str:
    """Return text with the variables in it replaced. Raises `FnError` for one that is not set.

    >>> expanded("$USER has 5$$", {"USER": "ann"}, "PRICE")
    'ann has 5$'
    """

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["bare"]
        if found["dollar"]:
            return "$"
        if name not in environ:
            raise FnError(
                f"{label}: the variable {name} is not set here", "Set it, or write $$ for a dollar"
            )
        return environ[name]

    return _VARIABLE.sub(value, text)


def duration_s(text: str, label: str) -> int:
    """Return the whole seconds in a duration: 30, 30s, 1m30s, 1h. Raises `FnError`.

    >>> duration_s("1m30s", "--timeout")
    90
    """
    if text.isdigit():
        return int(text)
    parts = _DURATION.findall(text)
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != text or seconds % 1:
        raise FnError(f"{label} {text!r} is no duration in whole seconds", "Write 30s, 5m or 1h30m")
    return int(seconds)


def replacing(new: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return what a PATCH has to say for headers to have exactly these values.

    The API adds values to a header, and removes one that is given as []. Names that differ in
    case alone are one header, and what is said of it is done in order.

    >>> replacing({"X-A": ["1"], "X-B": []})
    {'x-a': [], 'X-A': ['1'], 'X-B': []}
    """
    told: dict[str, list[str]] = {}
    for name, values in new.items():
        if values:
            told[name.lower() if name != name.lower() else name.upper()] = []
        told[name] = list(values)
    return told
