"""What environment does a function see? Pure: from a request and config to names and values.

The names are IronFunctions': config keys upper-cased with `-` as `_`, request headers as
`HEADER_*`, and `METHOD`, `ROUTE`, `REQUEST_URL`; Millrace adds `CALL_ID` and `APP_NAME`, and the
runner, who knows when the process starts, adds `DEADLINE`.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

#: Names of longer headers are not remembered, so that nobody can fill the memory with them.
_KEPT_MAX_CHARACTERS = 64

#: What Linux lets one variable take, `NAME=value` and a zero byte; no process starts with a longer.
VARIABLE_MAX_BYTES = 128 * 1024


def variable_name(key: str) -> str:
    """Return the environment's name for a config key or header.

    >>> variable_name("Content-Type")
    'CONTENT_TYPE'
    """
    return key.upper().replace("-", "_")


def config_env(app: Mapping[str, str], route: Mapping[str, str]) -> dict[str, str]:
    """Return the configured part of the environment; the route's values win over the app's.

    >>> config_env({"db-host": "a", "X": "1"}, {"DB_HOST": "b"})
    {'DB_HOST': 'b', 'X': '1'}
    """
    return {variable_name(k): v for config in (app, route) for k, v in config.items()}


def header_env(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return request headers as `HEADER_*`; values of a repeated one are joined by a space.

    `Host` is left out: `REQUEST_URL` has it.

    >>> header_env([("X-A", "1"), ("x-a", "2"), ("Host", "h")])
    {'HEADER_X_A': '1 2'}
    """
    env: dict[str, str] = {}
    for key, value in headers:
        name = _header_name(key) if len(key) <= _KEPT_MAX_CHARACTERS else _made_header_name(key)
        if name:
            env[name] = f"{env[name]} {value}" if name in env else value
    return env


def _made_header_name(key: str) -> str:
    """Return the environment's name for a request header; "" for one that is left out."""
    return "" if key.lower() == "host" else "HEADER_" + variable_name(key)


#: The same, from memory: clients send the same few headers again and again.
_header_name = lru_cache(maxsize=1024)(_made_header_name)


def size_bytes(*parts: Mapping[str, str]) -> int:
    """Return the bytes these variables take in a process: `NAME=value` and a zero byte each."""
    return sum(len(k.encode()) + len(v.encode()) + 2 for part in parts for k, v in part.items())


def oversized(*parts: Mapping[str, str]) -> str | None:
    """Return the name of a variable that is too long for any process; None if all will do.

    >>> oversized({"A": "a", "B": "b" * VARIABLE_MAX_BYTES})
    'B'
    """
    sizes = ((size_bytes({k: v}), k) for part in parts for k, v in part.items())
    return next((name for size, name in sizes if size > VARIABLE_MAX_BYTES), None)
