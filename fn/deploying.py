"""What does a deployment change of a route? Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fn import pairs
from fn.funcfields import ROUTE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fn.funcfile import FuncFile

_SECRET = re.compile(r"key|secret|token|passw|credential|auth|url", re.IGNORECASE)
_HIDDEN = "(secret)"


def wanted(file: FuncFile, environment: Mapping[str, str], image: str = "") -> dict[str, Any]:
    """Return the fields of a route that a function's file speaks of, in the API's terms."""
    found = {name: file.fields[name] for name in ROUTE_FIELDS if file.fields.get(name) is not None}
    config = file.config(environment)
    return {
        **({"image": image} if image else {}),
        **{name: value for name, value in found.items() if value not in ("", {})},
        **({"config": config} if config else {}),
    }


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `new` that the route does not have yet.

    Config and headers that only the route has stay: somebody set them there.

    >>> difference({"memory": 128, "config": {"A": "1"}}, {"memory": 128, "config": {"A": "2"}})
    {'config': {'A': '2'}}
    """
    changed: dict[str, Any] = {}
    for name, value in new.items():
        if isinstance(value, dict):
            have = _by_name(old.get(name) or {}, name)
            # An empty value is how the API is told to remove what is there.
            parts = {
                k: v for k, v in value.items() if (have.get(_key(k, name)) or None) != (v or None)
            }
            if parts:
                changed[name] = parts
        elif old.get(name) != value:
            changed[name] = value
    return changed


def _by_name(values: Mapping[str, Any], field: str) -> dict[str, Any]:
    return {_key(name, field): value for name, value in values.items()}


def _key(name: str, field: str) -> str:
    """Return how a part is told from others: headers do not look at case."""
    return name.lower() if field == "headers" else name


def patch(changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the PATCH that makes these changes."""
    headers = changed.get("headers")
    return {**changed, **({"headers": pairs.replacing(headers)} if headers else {})}


def told(old: Mapping[str, Any], changed: Mapping[str, Any]) -> list[str]:
    """Return the changes as lines `field: old -> new`; what may be a secret is not shown.

    >>> told({"memory": 128}, {"memory": 256})
    ['memory: 128 -> 256']
    """
    lines = []
    for name, value in changed.items():
        if isinstance(value, dict):
            have = _by_name(old.get(name) or {}, name)
            for key, part in value.items():
                lines.append(_line(f"{name}.{key}", have.get(_key(key, name)), part))
        else:
            lines.append(_line(name, old.get(name), value))
    return lines


def _line(name: str, old: object, new: object) -> str:
    return f"{name}: {_shown(name, old)} -> {_shown(name, new)}"


def _shown(name: str, value: object) -> str:
    if value in (None, "", []):
        return "(none)"
    if _SECRET.search(name):
        return _HIDDEN
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
