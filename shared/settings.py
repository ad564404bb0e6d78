"""How does a service read its settings? From a mapping, once, with all mistakes named at once.

A settings class is a frozen dataclass whose fields are made by `setting`. Field `port` reads the
variable `PORT`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import marshmallow as ma

from shared import logs, urls
from shared.errors import BadSettings

S = TypeVar("S")
_FIELDS: dict[type, type[ma.fields.Field[Any]]] = {
    int: ma.fields.Integer,
    float: ma.fields.Float,
    str: ma.fields.String,
    bool: ma.fields.Boolean,
}


def setting(
    default: Any,  # noqa: ANN401 (the field's own annotation types it)
    sentence: str,
    *,
    unit: str = "",
    check: Callable[[Any], Any] | None = None,
    secret: bool = False,
) -> Any:  # noqa: ANN401
    """Declare a setting: its default, a sentence for the docs, its unit, and a validator.

    `check` is a marshmallow validator, or raises ValueError. The default's type is the setting's
    type. The value of a `secret` one is never shown.
    """
    metadata = {"sentence": sentence, "unit": unit, "check": check, "secret": secret}
    return dataclasses.field(default=default, metadata=metadata)


def at_least(least: float) -> ma.validate.Range:
    """Return a validator: the number is `least` or more."""
    return ma.validate.Range(min=least)


def log_level() -> str:
    """Declare `LOG_LEVEL`, which every service has, in the words that IronFunctions takes."""
    return setting("info", "Least severe log line.", check=_is_level)  # type: ignore[no-any-return]


def _is_level(value: str) -> None:
    if value.lower() not in logs.LEVELS:
        raise ma.ValidationError(f"Must be one of: {', '.join(logs.LEVELS)}.")


def _field(declared: "dataclasses.Field[Any]") -> ma.fields.Field[Any]:
    field_type = _FIELDS[type(declared.default)]
    check = declared.metadata["check"]
    return field_type(
        data_key=declared.name.upper(),
        load_default=declared.default,
        validate=[_checked(check)] if check else [],
    )


def read(kind: type[S], environ: Mapping[str, str]) -> S:
    """Return settings of a class from environment variables; an empty one counts as absent.

    Raises `BadSettings`, which names every variable that is wrong and why.
    """
    declared = dataclasses.fields(kind)  # type: ignore[arg-type]
    schema = ma.Schema.from_dict({f.name: _field(f) for f in declared})
    given = {
        f.name.upper(): environ[f.name.upper()] for f in declared if environ.get(f.name.upper())
    }
    try:
        return kind(**schema().load(given))
    except ma.ValidationError as error:
        secret = {f.name.upper() for f in declared if f.metadata["secret"]}
        wrong = [
            f"{name}={_shown(given[name], secret=name in secret)}: {' '.join(why)}"
            for name, why in error.messages_dict.items()
        ]
        raise BadSettings("bad settings: " + "; ".join(sorted(wrong))) from error


def _shown(value: str, *, secret: bool) -> str:
    return "(secret)" if secret else repr(urls.without_password(value))


def _checked(check: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a marshmallow validator that says what a ValueError of `check` says."""

    def validate(value: Any) -> None:  # noqa: ANN401 (as the field has it)
        try:
            check(value)
        except ma.ValidationError:
            raise
        except ValueError as error:
            raise ma.ValidationError(str(error)) from error

    return validate
