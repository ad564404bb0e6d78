"""What does a request become? Pure: from a caller's request and a route to a call's messages.

Knows no HTTP library and no Redis. Example: `GET /r/shop/price?payload=x` with the header
`X-Tier: gold`, on an app with the config `db-host=h`, gives the process `DB_HOST=h`,
`METHOD=GET`, `ROUTE=/price`, `REQUEST_URL=http://.../r/shop/price?payload=x`,
`HEADER_X_TIER=gold`, `CALL_ID`, `APP_NAME=shop`, and `x` on stdin.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from services.api.plans import Plan
from services.api.problems import TooLarge
from shared import environment, ids, messages

#: Bytes that one character of UTF-8 takes at most.
_UTF8_MAX = 4


class Caller(NamedTuple):
    """What a caller sent: text is clean Unicode, `payload` is what goes to stdin."""

    method: str
    #: scheme://host/path?query as the caller wrote it.
    url: str
    headers: Sequence[tuple[str, str]]
    payload: bytes


class Limits(NamedTuple):
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


def call_env(call_id: str, plan: Plan, caller: Caller) -> dict[str, str]:
    """Return the call's own part of the environment, which wins over config where they meet.

    Where config wins, the name is left out here.
    """
    env = {"METHOD": caller.method, "ROUTE": plan.head.path, "REQUEST_URL": caller.url}
    for name in plan.overridden:
        del env[name]
    env |= environment.header_env(caller.headers)
    env["CALL_ID"] = call_id
    env["APP_NAME"] = plan.head.app
    return env


def parcel(call_id: str, plan: Plan, caller: Caller, limits: Limits) -> messages.Parcel:
    """Return what running the call needs.

    Raises `TooLarge` for an environment over its limit or with a variable no process can have.
    """
    env = call_env(call_id, plan, caller)
    at_most = plan.config_bytes + _bytes_at_most(env)
    if at_most > min(limits.environment_max_bytes, environment.VARIABLE_MAX_BYTES):
        _check_size(env, plan.config_env, limits.environment_max_bytes)
    return messages.Parcel(
        call_env=env,
        config_env=plan.config_env,
        payload=caller.payload,
        method=caller.method,
        idle_timeout_s=plan.idle_timeout_s,
        url=caller.url,
        headers=tuple([(str(n), v) for n, v in caller.headers]) if plan.with_headers else (),
    )


def _bytes_at_most(env: Mapping[str, str]) -> int:
    """Return a size that `env` does not exceed, without encoding it: nearly always enough."""
    characters = sum(map(len, env)) + sum(map(len, env.values()))
    return _UTF8_MAX * characters + 2 * len(env)


def _check_size(env: Mapping[str, str], config: Mapping[str, str], max_bytes: int) -> None:
    unshadowed = {name: value for name, value in config.items() if name not in env}
    size = environment.size_bytes(unshadowed, env)
    if size > max_bytes:
        raise TooLarge(
            f"The environment of this call (config and request headers) has {size} bytes; "
            f"the limit is {max_bytes} (ENVIRONMENT_MAX_BYTES)"
        )
    if size > environment.VARIABLE_MAX_BYTES and (name := environment.oversized(unshadowed, env)):
        raise TooLarge(
            f"{name} in the environment of this call (config and request headers) is too long; "
            f"one variable may have {environment.VARIABLE_MAX_BYTES} bytes"
        )


def head(
    call_id: str, plan: Plan, *, accepted_ms: int, reply_to: str, limits: Limits
) -> messages.CallHead:
    """Return what deciding about the call needs; an async one has neither deadline nor waiter."""
    if plan.head.mode == "async":
        return msgspec.structs.replace(plan.head, call_id=call_id, accepted_ms=accepted_ms)
    wait_until_ms = accepted_ms + limits.capacity_wait_ms
    return msgspec.structs.replace(
        plan.head,
        call_id=call_id,
        accepted_ms=accepted_ms,
        wait_until_ms=wait_until_ms,
        deadline_ms=wait_until_ms + plan.head.timeout_ms,
        reply_to=reply_to,
    )


def lost_record(call_id: str, plan: Plan, failed: messages.Failed, now_ms: int) -> messages.Record:
    """Return the record of a sync call that was lost on its way."""
    return messages.Record(
        call_id=call_id,
        status="error",
        mode=plan.head.mode,
        app=plan.head.app,
        path=plan.head.path,
        image=plan.head.image,
        queued_ms=ids.call_time_ms(call_id) or now_ms,
        finished_ms=now_ms,
        code=failed.code,
        message=failed.message,
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
        callback=call.callback,
    )
