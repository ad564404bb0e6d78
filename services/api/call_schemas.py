"""What do answers about calls, tasks and counts look like? For the OpenAPI document."""

import marshmallow as ma
from marshmallow import fields

from services.api.calls import STATUSES


class CallbackTryView(ma.Schema):
    """One try to call back."""

    at = fields.String(required=True)
    status = fields.Integer(required=True, allow_none=True)
    error = fields.String(required=True, allow_none=True)


class CallbackView(ma.Schema):
    """Who is told of a call's end, and what came of that."""

    url = fields.String(required=True)
    state = fields.String(
        required=True, validate=ma.validate.OneOf(["waiting", "due", "delivered", "failed"])
    )
    attempts = fields.Integer(required=True)
    next_at = fields.String(required=True, allow_none=True)
    tries = fields.List(fields.Nested(CallbackTryView), required=True)


class CallView(ma.Schema):
    """One call: what is known of it by now."""

    id = fields.String(required=True)
    app_name = fields.String(required=True)
    path = fields.String(required=True)
    type = fields.String(required=True, validate=ma.validate.OneOf(["sync", "async"]))
    status = fields.String(required=True, validate=ma.validate.OneOf(STATUSES))
    code = fields.String(required=True, allow_none=True)
    error = fields.String(required=True, allow_none=True)
    exit_code = fields.Integer(required=True, allow_none=True)
    attempt = fields.Integer(required=True)
    redrive_of = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The dead letter that it is made of."},
    )
    image = fields.String(required=True)
    image_digest = fields.String(required=True, allow_none=True)
    runner = fields.String(required=True, allow_none=True)
    created_at = fields.String(required=True)
    started_at = fields.String(required=True, allow_none=True)
    completed_at = fields.String(required=True, allow_none=True)
    peak_memory_bytes = fields.Integer(required=True, allow_none=True)
    #: Only where one async call is shown.
    callback = fields.Nested(CallbackView, allow_none=True)


class FailureView(ma.Schema):
    """An attempt that failed and was followed by another."""

    attempt = fields.Integer(required=True)
    code = fields.String(required=True)
    error = fields.String(required=True)
    exit_code = fields.Integer(required=True, allow_none=True)
    runner = fields.String(required=True, allow_none=True)
    started_at = fields.String(required=True, allow_none=True)
    completed_at = fields.String(required=True)


class CallWithFailures(CallView):
    """One call, and how attempts before the last one failed."""

    failures = fields.List(fields.Nested(FailureView), required=True)


class CallAnswer(ma.Schema):
    """One call."""

    message = fields.String(required=True)
    call = fields.Nested(CallWithFailures, required=True)


class CallsAnswer(ma.Schema):
    """Calls, newest first."""

    message = fields.String(required=True)
    calls = fields.List(fields.Nested(CallView), required=True)
    next_cursor = fields.String(required=True)


class AcceptedAnswer(ma.Schema):
    """An async call that is safe in the queue."""

    call_id = fields.String(required=True)


class TaskView(ma.Schema):
    """An async call that is out with an outside worker."""

    id = fields.String(required=True)
    status = fields.String(required=True, validate=ma.validate.OneOf(STATUSES))
    image = fields.String(required=True)
    app_name = fields.String(required=True)
    path = fields.String(required=True)
    priority = fields.Integer(required=True)
    timeout = fields.Integer(required=True)
    idle_timeout = fields.Integer()
    env_vars = fields.Dict(keys=fields.String(), values=fields.String())
    payload = fields.String()
    payload_encoding = fields.String(validate=ma.validate.OneOf(["utf-8", "base64"]))
    created_at = fields.String(required=True)
    error = fields.String()


class TaskReport(ma.Schema):
    """What an outside worker says of a task it has run: the task, or at least its id."""

    id = fields.String(required=True)
    status = fields.String(validate=ma.validate.OneOf(STATUSES))
    error = fields.String()
    reason = fields.String()


class StatsAnswer(ma.Schema):
    """How many calls wait, run, and have ended."""

    Queue = fields.Integer(required=True)
    Running = fields.Integer(required=True)
    Complete = fields.Integer(required=True)
