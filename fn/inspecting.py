"""How is one app, route or call shown, or a property of it? And what the API says beside it."""

from __future__ import annotations

from typing import Any

from fn import output
from fn.errors import FnError


def show(thing: dict[str, Any], prop: str, label: str) -> None:
    """Show a thing, or the property that `prop` names, as in config.LEVEL: as JSON by default.

    Raises `FnError` if it has no such property.
    """
    value = found(thing, prop, label)
    output.show(value, output.as_json(value, indent="\t"))


def found(thing: object, prop: str, label: str) -> object:
    """Return the property that `prop` names; keys may have dots in them.

    >>> found({"config": {"log.level": "debug"}}, "config.log.level", "app demo")
    'debug'
    """
    if not prop:
        return thing
    if isinstance(thing, dict) and prop in thing:
        return thing[prop]
    name, _, rest = prop.partition(".")
    if isinstance(thing, dict) and rest and name in thing:
        return found(thing[name], rest, f"{label} {name}")
    has = ", ".join(map(str, thing)) if isinstance(thing, dict) else ""
    raise FnError(f"{label} has no {prop!r}", f"It has: {has or 'nothing'}")


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of the API, after passing on its warnings."""
    for warning in answer.get("warnings", []):
        output.warn(warning)
    return answer


def warn_if_empty(key: str, value: str) -> None:
    """Say what the API makes of an empty value."""
    if not value:
        output.warn(f"an empty value removes {key}")
