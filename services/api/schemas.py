"""What do the management API's bodies look like? Shapes only; `validation` has the rules.

Input is loaded by these schemas, and the OpenAPI document is made of all of them. An error says
which field is wrong and how to write it.
"""

import json
from collections.abc import Callable
from typing import Any, get_args

import marshmallow as ma
from marshmallow import fields

from shared import messages


def _as_text(value: object) -> str:
    """Return how to write the value as a string; of a list or object only that it must be one."""
    if isinstance(value, list | dict):
        return '"..."'
    return json.dumps(value if isinstance(value, str) else json.dumps(value), ensure_ascii=False)


def _check_text(value: object) -> None:
    if not isinstance(value, str):
        raise ma.ValidationError(f"must be a string: write {_as_text(value)}")


def _check_whole(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ma.ValidationError("must be a whole number, without quotes: write 1")


def _check_number(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ma.ValidationError("must be a number, without quotes: write 0.5")


def _check_config(value: object) -> None:
    if not isinstance(value, dict):
        raise ma.ValidationError('must be an object of strings: write {"KEY": "value"}')
    wrong: dict[str | int, list[str]] = {
        key: [f"must be a string: write {_as_text(item)}"]
        for key, item in value.items()
        if not isinstance(item, str | None)
    }
    if wrong:
        raise ma.ValidationError(wrong)


def _check_headers(value: object) -> None:
    if not isinstance(value, dict):
        raise ma.ValidationError('must be an object of lists: write {"X-Name": ["value"]}')
    wrong: dict[str | int, list[str]] = {
        key: [f"must be a list of strings: write [{_as_text(item)}]"]
        for key, item in value.items()
        if not _is_strings(item)
    }
    if wrong:
        raise ma.ValidationError(wrong)


def _is_strings(item: object) -> bool:
    return item is None or (isinstance(item, list) and all(isinstance(one, str) for one in item))


_TEXT_TYPE = ["string", "null"]
_LIST_TYPE = {"type": ["array", "null"], "items": {"type": "string"}}
#: By kind: the JSON types as OpenAPI writes them, and the check.
_KINDS: dict[str, tuple[dict[str, object], Callable[[object], None]]] = {
    "text": ({"type": _TEXT_TYPE}, _check_text),
    "whole": ({"type": ["integer", "null"]}, _check_whole),
    "number": ({"type": ["number", "null"]}, _check_number),
    "config": (
        {"type": ["object", "null"], "additionalProperties": {"type": _TEXT_TYPE}},
        _check_config,
    ),
    "headers": ({"type": ["object", "null"], "additionalProperties": _LIST_TYPE}, _check_headers),
    "ignored": ({}, lambda _: None),
}


def _says(sentence: str) -> dict[str, str]:
    return {"description": sentence}


def _field(kind: str, sentence: str) -> fields.Raw:
    """Return a field that takes JSON of exactly its kind; nothing is made to fit."""
    documented, check = _KINDS[kind]
    return fields.Raw(
        metadata={**documented, **_says(sentence)},
        validate=check,
    )


class _Fields(ma.Schema):
    """What a client says; null inside config and headers is the empty value, as ever."""

    @ma.post_load
    def _without_nulls(self, data: dict[str, Any], **_: object) -> dict[str, Any]:
        empty: dict[str, Any] = {"config": "", "headers": []}
        filled = {
            name: {key: data[name][key] or empty[name] for key in data[name]}
            for name in empty
            if name in data
        }
        return {**data, **filled}


class AppFields(_Fields):
    """What a client says of an app."""

    name = _field("text", "1 to 30 of A-Z, a-z, 0-9, _ and -. Not in a PATCH.")
    config = _field("config", 'Environment of all its functions; in a PATCH, "" deletes.')
    max_inflight = _field(
        "whole", "Calls that may be accepted and not ended; beyond, 429. 0, also in a PATCH: any."
    )
    rate = _field("number", "Calls accepted a second; beyond, 429. 0, also in a PATCH: any.")
    burst = _field("whole", "Calls at once, within `rate`; 0 is as many as in a second.")


class RouteFields(_Fields):
    """What a client says of a route; zero and empty mean the default, in a PATCH no change.

    Only `min_sandboxes` and `retries` are 0 if a PATCH says so.
    """

    app_name = _field("text", "Ignored: the app is the one in the URL.")
    path = _field("text", "Absolute URL path, without colons. Not in a PATCH.")
    image = _field("text", "Container image; needed at first. With `@sha256:...` it never moves.")
    previous_images = _field("ignored", "Ignored: it follows from changes of `image`.")
    memory = _field("whole", "MB; default 128.")
    cpus = _field("number", "Cores it may use; default 1.")
    headers = _field(
        "headers", "Of the response. In a PATCH values are added; [] deletes the header."
    )
    type = _field("text", "`sync` (default) or `async`.")
    format = _field("text", "`default` (default), `http`, `json` or `http-stream`.")
    isolation = _field(
        "text",
        "`sandbox` (default): calls share containers, and containers their app's network; "
        "`network`: each container has its own; `call`: and runs one call only.",
    )
    max_concurrency = _field("whole", "Most hot sandboxes on one runner; default 1.")
    timeout = _field("whole", "Seconds a call may run; default 30.")
    idle_timeout = _field("whole", "Seconds an idle sandbox is kept; default 30.")
    min_sandboxes = _field(
        "whole", "Sandboxes each runner keeps ready; 0 is none, also in a PATCH."
    )
    max_attempts = _field(
        "whole", "Most attempts of an async call that fail by the platform's fault; default 3."
    )
    retries = _field(
        "whole",
        "Attempts after an async call's own failures; 0 (default) is none, also in a PATCH.",
    )
    retry_delay = _field("whole", "Seconds before the second attempt, growing; default 1.")
    config = _field("config", 'Environment of the function; in a PATCH, "" deletes.')
    jwt_key = _field("text", "Secret that signs the tokens its callers need.")


class AppBody(ma.Schema):
    """Body of a POST or PATCH of an app."""

    app = fields.Nested(AppFields, required=True)


class RouteBody(ma.Schema):
    """Body of a POST or PATCH of a route."""

    route = fields.Nested(RouteFields, required=True)


class AppView(ma.Schema):
    """An app as it is stored."""

    name = fields.String(required=True)
    config = fields.Dict(
        keys=fields.String(), values=fields.String(), required=True, allow_none=True
    )
    max_inflight = fields.Integer(metadata=_says("Only if there is such a limit."))
    rate = fields.Float(metadata=_says("Only if there is such a limit."))
    burst = fields.Integer(metadata=_says("Only if there is such a limit."))


class RouteView(ma.Schema):
    """A route as it is stored."""

    app_name = fields.String(required=True)
    path = fields.String(required=True)
    image = fields.String(required=True)
    previous_images = fields.List(
        fields.String(),
        required=True,
        metadata=_says("What `image` was before, newest first, 10 at most."),
    )
    memory = fields.Integer(required=True)
    cpus = fields.Float(required=True)
    headers = fields.Dict(keys=fields.String(), values=fields.List(fields.String()), required=True)
    type = fields.String(required=True, validate=ma.validate.OneOf(["sync", "async"]))
    format = fields.String(required=True, validate=ma.validate.OneOf(get_args(messages.Format)))
    isolation = fields.String(
        required=True, validate=ma.validate.OneOf(get_args(messages.Isolation))
    )
    max_concurrency = fields.Integer(required=True)
    timeout = fields.Integer(required=True)
    idle_timeout = fields.Integer(required=True)
    min_sandboxes = fields.Integer(required=True)
    max_attempts = fields.Integer(required=True)
    retries = fields.Integer(required=True)
    retry_delay = fields.Integer(required=True)
    config = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    jwt_key = fields.String(required=True)


class Message(ma.Schema):
    """That it worked."""

    message = fields.String(required=True)


class _Told(Message):
    warnings = fields.List(fields.String(), metadata=_says("Fields that were ignored."))


class AppAnswer(_Told):
    """One app."""

    app = fields.Nested(AppView, required=True)


class CallbackSecretView(ma.Schema):
    """What signs the callbacks of an app."""

    secret = fields.String(required=True)
    previous = fields.String(required=True, allow_none=True)
    previous_until = fields.String(required=True, allow_none=True)


class CallbackSecretAnswer(Message):
    """What signs the callbacks of an app, and the secret of before as long as that does, too."""

    callback_secret = fields.Nested(CallbackSecretView, required=True)


class RouteAnswer(_Told):
    """One route."""

    route = fields.Nested(RouteView, required=True)


class _Listed(Message):
    next_cursor = fields.String(
        metadata=_says("`cursor` of the next page, empty at the end; only if pages were asked for.")
    )


class AppsAnswer(_Listed):
    """Apps, by name."""

    apps = fields.List(fields.Nested(AppView), required=True)


class RoutesAnswer(_Listed):
    """Routes, by app and path."""

    routes = fields.List(fields.Nested(RouteView), required=True)


class Welcome(ma.Schema):
    """The front page."""

    goto = fields.String(required=True)
    hello = fields.String(required=True)


class VersionAnswer(ma.Schema):
    """Which version answers."""

    version = fields.String(required=True)
    hub = fields.String(
        required=True,
        metadata=_says("Address of the platform's image registry; empty if it has none."),
    )


class ProblemText(ma.Schema):
    """What went wrong."""

    message = fields.String(required=True)


class ProblemAnswer(ma.Schema):
    """A management request that failed."""

    error = fields.Nested(ProblemText, required=True)
    request_id = fields.String(metadata=_says("Only for a defect: where the log tells more."))


class CallProblemText(ma.Schema):
    """What went wrong with a call, and whose fault it was."""

    message = fields.String(required=True)
    code = fields.String(metadata=_says("A stable word; the documentation has the table."))
    fault = fields.String(validate=ma.validate.OneOf(["caller", "function", "platform"]))


class CallProblemAnswer(ma.Schema):
    """A call that failed."""

    request_id = fields.String(metadata=_says("The call's id."))
    error = fields.Nested(CallProblemText, required=True)


class TokenProblemAnswer(ma.Schema):
    """A management request without a valid token."""

    error = fields.String(required=True)


class HealthAnswer(ma.Schema):
    """It is well."""

    status = fields.String(required=True)


class NotReadyAnswer(HealthAnswer):
    """It cannot serve now."""

    missing = fields.String(required=True)
