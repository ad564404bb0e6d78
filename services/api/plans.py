"""What is the same for all calls of a route? Pure: made once, when the route is read.

Knows no HTTP and no Redis; what differs from call to call is `invocation`'s.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from services.api import answers
from services.api.models import App, Route
from shared import environment, messages, scripts

#: Names of a call's environment that config may override, because IronFunctions lets it.
_OVERRIDABLE = frozenset({"METHOD", "ROUTE", "REQUEST_URL"})
#: Formats that hand the request's headers on as they came.
_WITH_HEADERS: frozenset[messages.Format] = frozenset({"json", "http-stream"})
_FINGERPRINT_BYTES = 16
_SECOND_US = 1_000_000
_fingerprints = msgspec.msgpack.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class Plan:
    """What calls of one route need, beyond what their callers sent."""

    #: Complete but for the call's id, its times and who waits.
    head: messages.CallHead
    #: What its process gets for every call: the app's and the route's config.
    config_env: dict[str, str]
    #: What that takes in the process.
    config_bytes: int
    #: Those names of a call's environment that its config overrides.
    overridden: frozenset[str]
    #: Whether the function gets the request's headers as they came.
    with_headers: bool
    idle_timeout_s: int
    min_sandboxes: int
    #: The route's headers of each answer.
    headers: answers.RouteHeaders
    #: What its app may have of calls; None: as many as come.
    limits: scripts.Limits | None = None


def plan(
    app_config: Mapping[str, str],
    route: Route,
    version: str,
    *,
    limits: scripts.Limits | None = None,
) -> Plan:
    """Return the plan of a route, read at a version of its app's catalog."""
    config_env = environment.config_env(app_config, route.config)
    return Plan(
        head=_head(route, config_env, int(version), counted=bool(limits and limits.max_inflight)),
        config_env=config_env,
        config_bytes=environment.size_bytes(config_env),
        overridden=_OVERRIDABLE & config_env.keys(),
        with_headers=route.format in _WITH_HEADERS,
        idle_timeout_s=route.idle_timeout,
        min_sandboxes=route.min_sandboxes,
        headers=answers.route_headers(route.headers),
        limits=limits,
    )


def limits(app: App) -> scripts.Limits | None:
    """Return what an app may have of calls; None: as many as come.

    >>> limits(App("demo", rate=2.5))
    Limits(max_inflight=0, period_us=400000, burst_us=1200000)
    """
    if not (app.max_inflight or app.rate):
        return None
    period_us = math.ceil(_SECOND_US / app.rate) if app.rate else 0
    burst = app.burst or max(1, math.ceil(app.rate))
    return scripts.Limits(app.max_inflight, period_us, period_us * burst)


def _head(
    route: Route, config_env: dict[str, str], revision: int, *, counted: bool
) -> messages.CallHead:
    return messages.CallHead(
        call_id="",
        mode=route.type,
        app=route.app,
        path=route.path,
        image=route.image,
        memory_mb=route.memory,
        cpus=route.cpus,
        accepted_ms=0,
        wait_until_ms=0,
        deadline_ms=0,
        reply_to="",
        timeout_ms=route.timeout * 1000,
        format=route.format,
        isolation=route.isolation,
        max_concurrency=0 if route.format == "default" else route.max_concurrency,
        sandbox_key=sandbox_key(route, config_env),
        revision=revision,
        tries=tries(route) if route.type == "async" else None,
        counted=counted,
    )


def tries(route: Route) -> messages.Tries:
    """Return how often its async calls are run."""
    return messages.Tries(route.max_attempts, route.retries, route.retry_delay)


def sandbox_key(route: Route, config_env: Mapping[str, str]) -> str:
    """Return a fingerprint of what a sandbox of the route is made of, the same on all replicas.

    Cryptographic, because calls with the same one may share a sandbox: nobody shall be able to
    make a route that has another's.
    """
    made_of = (
        route.app,
        route.path,
        route.image,
        route.memory,
        float(route.cpus),
        route.format,
        route.isolation,
        config_env,
    )
    encoded = _fingerprints.encode(made_of)
    return hashlib.blake2b(encoded, digest_size=_FINGERPRINT_BYTES).hexdigest()


def wanted(plan: Plan) -> messages.Wanted:
    """Return what runners need to keep sandboxes of the route ready."""
    head = plan.head
    return messages.Wanted(
        app=head.app,
        path=head.path,
        image=head.image,
        memory_mb=head.memory_mb,
        cpus=head.cpus,
        format=head.format,
        isolation=head.isolation,
        max_concurrency=head.max_concurrency,
        sandbox_key=head.sandbox_key,
        revision=head.revision,
        config_env=plan.config_env,
        idle_timeout_s=plan.idle_timeout_s,
        min_sandboxes=plan.min_sandboxes,
    )
