"""What does a request become? Pure: from a caller's request and a route to a call's messages.

Knows no HTTP library and no Redis. Example: `GET /r/shop/price?payload=x` with the header
`X-Tier: gold`, on an app with the config `db-host=h`, gives the process `DB_HOST=h`,
`METHOD=GET`, `ROUTE=/price`, `REQUEST_URL=http://.../r/shop/price?payload=x`,
`HEADER_X_TIER=gold`, `CALL_ID`, `APP_NAME=shop`, and `x` on stdin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from services.api.models import Route
from services.api.problems import TooLarge
from shared import environment, messages

#: Names the route's config may override, because IronFunctions lets it.
_OVERRIDABLE = frozenset({"METHOD", "ROUTE", "REQUEST_URL"})


@dataclass(frozen=True, slots=True)
class Caller:
    """What a caller sent: text is clean Unicode, `payload` is what goes to stdin."""

    method: str
    #: scheme://host/path?query as the caller wrote it.
    url: str
    headers: Sequence[tuple[str, str]]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may take."""

    environment_max_bytes: int
    capacity_wait_ms: int


def clean(text: str) -> str:
    r"""Return text that UTF-8 can carry: bytes that were no UTF-8 are read as Latin-1.

    >>> clean(b"caf\xe9".decode("utf-8", "surrogateescape"))
    'café'
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text


def request_url(scheme: str, host: str, target: str, headers: Mapping[str, str]) -> str:
    """Return the address the caller used; a proxy in front says which in `X-Forwarded-*`.

    >>> request_url("http", "api:8080", "/r/a/b?c=d", {"X-Forwarded-Proto": "https, http"})
    'https://api:8080/r/a/b?c=d'
    """
    forwarded = headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
    proto = forwarded if forwarded in ("http", "https") else scheme
    public = headers.get("X-Forwarded-Host", "").partition(",")[0].strip() or host
    return clean(f"{proto}://{public}{target}")


def query_payload(query: str) -> bytes:
    r"""Return the bytes of the first `payload` in a raw query string; b"" without one.

    >>> query_payload("a=1&payload=x+%FF")
    b'x \xff'
    """
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "payload":
            return unquote_to_bytes(value.replace("+", " "))
    return b""


def call_env(
    call_id: str, route: Route, config: Mapping[str, str], caller: Caller
) -> dict[str, str]:
    """Return the call's own part of the environment, which wins over `config` where they meet.

    Where config may win (see `_OVERRIDABLE`), the name is left out here.
    """
    env = {"METHOD": caller.method, "ROUTE": route.path, "REQUEST_URL": caller.url}
    if not _OVERRIDABLE.isdisjoint(config):
        env = {name: value for name, value in env.items() if name not in config}
    env |= environment.header_env(caller.headers)
    env["CALL_ID"] = call_id
    env["APP_NAME"] = route.app
    return env


def parcel(
    call_id: str, route: Route, config: dict[str, str], caller: Caller, limits: Limits
) -> messages.Parcel:
    """Return what running the call needs; `config` is `environment.config_env` of app and route.

    Raises `TooLarge` for an environment over its limit or with a variable no process can have.
    """
    env = call_env(call_id, route, config, caller)
    unshadowed = {name: value for name, value in config.items() if name not in env}
    size = environment.size_bytes(unshadowed, env)
    if size > limits.environment_max_bytes:
        raise TooLarge(
            f"The environment of this call (config and request headers) has {size} bytes; "
            f"the limit is {limits.environment_max_bytes} (ENVIRONMENT_MAX_BYTES)"
        )
    if size > environment.VARIABLE_MAX_BYTES and (name := environment.oversized(unshadowed, env)):
        raise TooLarge(
            f"{name} in the environment of this call (config and request headers) is too long; "
            f"one variable may have {environment.VARIABLE_MAX_BYTES} bytes"
        )
    return messages.Parcel(
        call_env=env,
        config_env=config,
        payload=caller.payload,
        method=caller.method,
        idle_timeout_s=route.idle_timeout,
    )


def head(
    call_id: str, route: Route, *, accepted_ms: int, reply_to: str, limits: Limits
) -> messages.CallHead:
    """Return what deciding about the call needs; an async one has neither deadline nor waiter."""
    timeout_ms = route.timeout * 1000
    waits = route.type == "sync"
    wait_until_ms = accepted_ms + limits.capacity_wait_ms if waits else 0
    return messages.CallHead(
        call_id=call_id,
        mode=route.type,
        app=route.app,
        path=route.path,
        image=route.image,
        memory_mb=route.memory,
        cpus=route.cpus,
        accepted_ms=accepted_ms,
        wait_until_ms=wait_until_ms,
        deadline_ms=wait_until_ms + timeout_ms if waits else 0,
        reply_to=reply_to if waits else "",
        timeout_ms=timeout_ms,
        format=route.format,
        max_concurrency=0 if route.format == "default" else route.max_concurrency,
    )


def queued_record(call: messages.CallHead) -> messages.Record:
    """Return the record of a call that waits."""
    return messages.Record(
        call_id=call.call_id,
        status="queued",
        mode=call.mode,
        app=call.app,
        path=call.path,
        image=call.image,
        queued_ms=call.accepted_ms,
        attempt=call.attempt,
    )
