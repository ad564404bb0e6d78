"""Which call does a request with an `Idempotency-Key` mean, and what may be answered? Pure.

The first request with a key claims it, together with its call; a later one with the same key, of
the same app and path, gets that call's answer if it is the same request. What is kept is in Redis
(`keys.claim`); what of it may be told is decided here.

Example: POST /r/shop/pay with the key "o-17" runs and answers 200. The same again answers 200 with
the same body and call id; with another body, 409.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from multidict import istr

from services.api import answers
from services.api.problems import BadRequest
from shared import messages
from shared.errors import MillraceError

HEADER = istr("Idempotency-Key")
REPLAYED = ("Idempotent-Replayed", "true")
KEY_MAX_CHARACTERS = 255
_DIGEST_BYTES = 20


class KeyReused(MillraceError):
    """The key was used before, with another request."""

    code = "idempotency_mismatch"


class KeyRunning(MillraceError):
    """The first call with this key still runs."""

    code = "idempotency_running"


class AnswerNotKept(MillraceError):
    """The answer of the first call with this key is not kept."""

    code = "idempotency_no_answer"


class Asked(NamedTuple):
    """A key that a request brought: of which call, and of which request."""

    key: str
    #: Names the claim: app, path and key.
    digest: str
    #: Tells requests apart: method, query and body.
    fingerprint: str


class Target(NamedTuple):
    """What a request asked for."""

    app: str
    path: str
    method: str
    #: As it stands in the URL.
    query: str


def asked(keys: Sequence[str], target: Target, body: bytes) -> Asked:
    """Return what the headers named `HEADER` ask for; there is at least one.

    Raises `BadRequest`, which names the header.
    """
    key = keys[0]
    if len(keys) > 1:
        raise BadRequest(f"{HEADER} is there {len(keys)} times; send one")
    if not 1 <= len(key) <= KEY_MAX_CHARACTERS or not (key.isascii() and key.isprintable()):
        raise BadRequest(
            f"{HEADER} must be 1 to {KEY_MAX_CHARACTERS} printable ASCII characters, "
            f"for instance a UUID; it has {len(key)}"
        )
    return Asked(
        key,
        _hashed(target.app.encode(), target.path.encode(), key.encode()),
        _hashed(target.method.encode(), target.query.encode("utf-8", "surrogateescape"), body),
    )


def _hashed(*parts: bytes) -> str:
    """Return a fingerprint of parts, each told apart from the next by its length."""
    made = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        made.update(b"%d:" % len(part))
        made.update(part)
    return made.hexdigest()


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept of the first call with a key."""

    fingerprint: str
    call_id: str
    mode: messages.Mode
    #: `run`, `done` or `none`.
    state: str
    #: Epoch ms after which it does not run any more.
    until_ms: int
    route: answers.RouteHeaders
    reply: messages.Reply | None


class Replay(NamedTuple):
    """The answer of the first call, for one who asks again; of an async call there is no reply."""

    call_id: str
    route: answers.RouteHeaders
    reply: messages.Reply | None


def packed(route: answers.RouteHeaders) -> bytes:
    """Return a route's headers as a claim keeps them."""
    return msgspec.msgpack.encode(route.pairs)


def held(fields: Sequence[Any]) -> Held | None:
    """Return a claim by its fields f, c, m, s, u, h, a, as Redis has them; None if there is none.

    Raises `Undecodable` for what is none.
    """
    fingerprint, call_id, mode, state, until_ms, route, reply = fields[:7]
    if fingerprint is None:
        return None
    return Held(
        fingerprint=fingerprint.decode(),
        call_id=call_id.decode(),
        mode="async" if mode == b"async" else "sync",
        state=state.decode(),
        until_ms=int(until_ms),
        route=_unpacked(route),
        reply=messages.decode(reply, messages.Reply) if reply else None,
    )


def _unpacked(raw: bytes) -> answers.RouteHeaders:
    pairs = msgspec.msgpack.decode(raw, type=tuple[tuple[str, str], ...])
    taken = answers.RouteHeaders().taken | {name.lower() for name, _ in pairs}
    return answers.RouteHeaders(pairs, taken)


def answer(held: Held, asked: Asked, now_ms: int) -> Replay | None:
    """Return what one who asks again is told; None: the first call still runs.

    Raises `KeyReused`, or `AnswerNotKept`.
    """
    if held.fingerprint != asked.fingerprint:
        raise KeyReused(
            f"The {HEADER} {asked.key!r} was used for another request "
            f"(call {held.call_id}); a new request needs a new key"
        )
    if held.mode == "async" or held.reply is not None:
        return Replay(held.call_id, held.route, held.reply)
    if held.state == "none":
        why = "is too large to be kept, or was lost; it"
    elif now_ms > held.until_ms:
        why = "never came; it may have run, and"
    else:
        return None
    raise AnswerNotKept(
        f"The answer of the first call with the {HEADER} {asked.key!r} (call {held.call_id}) "
        f"{why} is not run again"
    )


def running(held: Held, asked: Asked) -> KeyRunning:
    """Return what to say to one who has waited long enough for the first call."""
    return KeyRunning(
        f"The first call with the {HEADER} {asked.key!r} (call {held.call_id}) still runs; "
        "ask again for its answer"
    )
