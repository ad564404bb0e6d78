"""What did a management client send? Bodies, leniently: keys in any case, unknown ones named.

Pure but for `body`, which reads the request.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import marshmallow as ma
from aiohttp import web

from services.api import jsontext
from services.api.problems import BadRequest, TooLarge

BODY_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sent:
    """The fields a client sent, by their names, and what it should be told about others."""

    fields: dict[str, Any]
    warnings: list[str]


async def body(request: web.Request) -> bytes:
    """Return a management request's body. Raises `TooLarge`."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > BODY_MAX_BYTES:
            raise TooLarge(f"Request body too large: at most {BODY_MAX_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


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
    warnings: list[str] = []
    for key, item in value.items():
        name = names.get(key.lower())
        if name is None:
            warnings.append(_unknown(key, list(names), where))
        elif item is not None:
            found[name] = item
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
