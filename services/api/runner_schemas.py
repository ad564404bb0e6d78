"""What do answers about runners look like? For the OpenAPI document."""

import marshmallow as ma
from marshmallow import fields


def _says(sentence: str) -> dict[str, str]:
    return {"description": sentence}


class SandboxesView(ma.Schema):
    """A runner's sandboxes of one route, made in one way."""

    app_name = fields.String(required=True)
    path = fields.String(required=True)
    idle = fields.Integer(required=True)
    busy = fields.Integer(required=True)
    starting = fields.Integer(required=True)


class RunnerView(ma.Schema):
    """One runner, as it said of itself last."""

    id = fields.String(required=True)
    name = fields.String(
        required=True,
        metadata=_says("What operators call it; it stays over restarts. Several may have one."),
    )
    engine_id = fields.String(
        required=True, metadata=_says("Runners of one engine share its capacity.")
    )
    arch = fields.String(required=True)
    memory_mb = fields.Integer(required=True, metadata=_says("What its engine offers in all."))
    cpus = fields.Float(required=True, metadata=_says("What its engine offers in all."))
    able = fields.Boolean(required=True, metadata=_says("Whether its engine answers."))
    draining = fields.Boolean(required=True, metadata=_says("Whether it takes no more calls."))
    drain_asked = fields.Boolean(
        required=True, metadata=_says("Whether it is to drain; it does within a second or two.")
    )
    running = fields.Integer(required=True, metadata=_says("Calls it holds."))
    idle_memory_mb = fields.Integer(
        required=True, metadata=_says("Of its idle sandboxes, which give way to calls.")
    )
    seen_at = fields.String(required=True)
    seen_ago_ms = fields.Integer(required=True)
    images = fields.List(fields.String(), required=True)
    sandboxes = fields.List(fields.Nested(SandboxesView), required=True)


class RunnersAnswer(ma.Schema):
    """Runners, by id."""

    message = fields.String(required=True)
    runners = fields.List(fields.Nested(RunnerView), required=True)
    unreadable = fields.Integer(
        required=True, metadata=_says("Runners left out: this version cannot read what they say.")
    )
    absent = fields.List(
        fields.String(),
        required=True,
        metadata=_says("Ids and names that are to drain, and that no runner has now."),
    )
    next_cursor = fields.String(
        metadata=_says("`cursor` of the next page, empty at the end; only if pages were asked for.")
    )


class DrainAnswer(ma.Schema):
    """What becomes of the runners that were meant."""

    message = fields.String(required=True)
    runners = fields.List(fields.Nested(RunnerView), required=True)
