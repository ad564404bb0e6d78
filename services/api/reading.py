"""What did a management client send? Pure: keys in any case, unknown ones named."""

import difflib
from dataclasses import dataclass
from typing import Any

import marshmallow as ma

from services.api import jsontext
from services.api.problems import BadRequest

#: Largest body of a management request.
BODY_MAX_BYTES = 1024 * 1024
#: So many unknown fields are named: to look for what was meant takes its time.
NAMED_MAX = 20


@dataclass(frozen=True, slots=True)
class Sent:
    """The fields a client sent, by their names, and what it should be told about others."""

    fields: dict[str, Any]
    warnings: list[str]


def sent(raw: bytes, wrapper: str, schema: ma.Schema, missing: str) -> Sent:
    """Return what a body says of its one object, which stands under `wrapper`.

    Raises `BadRequest`: "Invalid JSON: ..." for anything that is not of the right form, and
    `missing` if the object is not there.
    """
    value = jsontext.parse(raw)
    outer = _known(_object(value, "the body"), {wrapper: wrapper}, "")
    if wrapper not in outer.fields:
        raise BadRequest(missing)
    inner = _known(
        _object(outer.fields[wrapper], wrapper), {n: n for n in schema.fields}, f"{wrapper}."
    )
    return Sent(_loaded(inner.fields, schema, wrapper), outer.warnings + inner.warnings)


def _object(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f'Invalid JSON: {name} must be an object: write {{"key": "value"}}')
    return value


def _known(value: dict[str, Any], names: dict[str, str], where: str) -> Sent:
    """Return the fields that are known, in whatever case they came; null counts as not sent."""
    found: dict[str, Any] = {}
    unknown: list[str] = []
    for key, item in value.items():
        name = names.get(key.lower())
        if name is None:
            unknown.append(key)
        elif item is not None:
            found[name] = item
    warnings = [_unknown(key, list(names), where) for key in unknown[:NAMED_MAX]]
    if more := len(unknown) - len(warnings):
        warnings.append(f"{more} more unknown fields ignored")
    return Sent(found, warnings)


def _unknown(key: str, names: list[str], where: str) -> str:
    close = difflib.get_close_matches(key.lower(), names, n=1)
    hint = f"; did you mean {where}{close[0]}?" if close else ""
    return f"unknown field {where}{key} ignored{hint}"


def _loaded(found: dict[str, Any], schema: ma.Schema, wrapper: str) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(found)
    except ma.ValidationError as error:
        wrong = _flat(error.messages_dict, wrapper)
        raise BadRequest("Invalid JSON: " + "; ".join(wrong)) from error
    return loaded


def _flat(messages: object, where: str) -> list[str]:
    """Return "route.config.KEY must be ..." of each nested message.

    >>> _flat({"config": [{"N": ["must be a string"]}]}, "route")
    ['route.config.N must be a string']
    """
    if isinstance(messages, dict):
        return [one for name, m in messages.items() for one in _flat(m, f"{where}.{name}")]
    if isinstance(messages, list):
        return [one for message in messages for one in _flat(message, where)]
    return [f"{where} {messages}"]
