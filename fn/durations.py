"""How long is what somebody wrote: "30s", "1m30s", 30? Pure."""

from __future__ import annotations

import re

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def seconds(written: object) -> int:
    """Return the whole seconds of a Go duration, or of a number of seconds.

    Raises ValueError that says how to write it; the platform counts whole seconds.

    >>> seconds("1m30s"), seconds(30), seconds("45")
    (90, 30, 45)
    """
    found = _seconds(written)
    if found < 0:
        raise ValueError(f"{written} is negative")
    if found != int(found):
        raise ValueError(f"{written} is no whole number of seconds")
    return int(found)


def _seconds(written: object) -> float:
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        return float(written)
    text = str(written).strip()
    if re.fullmatch(r"-?\d+", text):
        return float(text)
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text)
    if isinstance(written, str) and rest and not _PART.sub("", rest):
        return sign * round(sum(float(n) * _UNITS_S[unit] for n, unit in _PART.findall(rest)), 9)
    raise ValueError(f"{text!r} is no duration; write it like 30s or 1m30s")
