"""What do answers about dead letters look like? Shapes, and how a letter gets into them."""

import base64
from typing import Any

import marshmallow as ma
from marshmallow import fields

from services.api.letters import Letter
from shared import ids, messages, timestamps


class LetterView(ma.Schema):
    """An async call that failed for good."""

    call_id = fields.String(required=True)
    app_name = fields.String(required=True)
    path = fields.String(required=True)
    image = fields.String(required=True)
    code = fields.String(required=True)
    error = fields.String(required=True)
    attempt = fields.Integer(
        required=True, metadata={"description": "Its last one, and so how many there were."}
    )
    created_at = fields.String(required=True)
    died_at = fields.String(required=True)
    size_bytes = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "Of its input; null: that is lost."},
    )
    redriven_as = fields.String(
        required=True, allow_none=True, metadata={"description": "The call that is made of it."}
    )
    redriven_at = fields.String(required=True, allow_none=True)


class RequestView(ma.Schema):
    """What its caller sent."""

    method = fields.String(required=True)
    url = fields.String(required=True)
    env_vars = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    payload = fields.String(required=True)
    payload_encoding = fields.String(required=True, validate=ma.validate.OneOf(["utf-8", "base64"]))


class WholeLetterView(LetterView):
    """A dead letter with what its caller sent; null once it is redriven."""

    request = fields.Nested(RequestView, required=True, allow_none=True)


class LettersAnswer(ma.Schema):
    """Dead letters, newest first."""

    message = fields.String(required=True)
    dead_letters = fields.List(fields.Nested(LetterView), required=True)
    next_cursor = fields.String(required=True)


class LetterAnswer(ma.Schema):
    """One dead letter."""

    message = fields.String(required=True)
    dead_letter = fields.Nested(WholeLetterView, required=True)


class RedrivenAnswer(ma.Schema):
    """A dead letter is a call again."""

    message = fields.String(required=True)
    call_id = fields.String(required=True, metadata={"description": "The new call's."})
    redrive_of = fields.String(required=True)


class RedrivenView(ma.Schema):
    """What became of one letter of many."""

    redrive_of = fields.String(required=True)
    call_id = fields.String(metadata={"description": "The new call's, if there is one."})
    error = fields.String(metadata={"description": "Why there is none."})


class RedrivenManyAnswer(ma.Schema):
    """Some dead letters are calls again."""

    message = fields.String(required=True)
    redriven = fields.List(fields.Nested(RedrivenView), required=True)
    next_cursor = fields.String(
        required=True, metadata={"description": "`cursor` that goes on; empty at the end."}
    )


class PurgedAnswer(ma.Schema):
    """Dead letters are gone."""

    message = fields.String(required=True)
    purged = fields.Integer(required=True)


def letter_json(letter: Letter) -> dict[str, Any]:
    """Return a letter as the public API shows it."""
    made_ms = ids.call_time_ms(letter.call_id) or letter.head.accepted_ms
    redriven = letter.redriven_ms is not None
    return {
        "call_id": letter.call_id,
        "app_name": letter.app,
        "path": letter.path,
        "image": letter.head.image,
        "code": letter.code,
        "error": letter.message,
        "attempt": letter.attempt,
        "created_at": timestamps.rfc3339(made_ms),
        "died_at": timestamps.rfc3339(letter.died_ms),
        "size_bytes": letter.size_bytes,
        "redriven_as": letter.redriven_as if redriven else None,
        "redriven_at": timestamps.rfc3339(letter.redriven_ms) if letter.redriven_ms else None,
    }


def request_json(raw: bytes | None) -> dict[str, Any] | None:
    """Return what a caller sent, of a raw parcel; config is the app's and the route's own."""
    if raw is None:
        return None
    parcel = messages.decode(raw, messages.Parcel)
    return {
        "method": parcel.method,
        "url": parcel.url,
        "env_vars": parcel.call_env,
        **payload_json(parcel.payload),
    }


def payload_json(payload: bytes) -> dict[str, str]:
    """Return a payload as text; bytes that are no UTF-8 are base64, and that is said."""
    try:
        return {"payload": payload.decode(), "payload_encoding": "utf-8"}
    except UnicodeDecodeError:
        encoded = base64.b64encode(payload).decode()
        return {"payload": encoded, "payload_encoding": "base64"}
