"""How is a caller called back? Pure: addresses, signatures, what is sent, when it is tried again.

Example with the default settings: a receiver that answers 503 is asked again after about 5, 10, 20,
... seconds, then each hour, for a day; with `Retry-After: 120`, after two minutes.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Literal, NamedTuple
from urllib.parse import quote

import msgspec
from multidict import istr
from yarl import URL

from services.api import addresses, answers, headers, problems
from shared import messages
from shared.errors import CODES, MillraceError
from shared.version import VERSION

HEADER = istr("X-Callback-Url")
SIGNATURE = "X-Millrace-Signature"
URL_MAX_CHARACTERS = 2048
#: Between two tries, in milliseconds: the first pause, doubled up to the longest.
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 5_000, 3_600_000
_SUCCESS, _REDIRECT = 200, 300
_JSON = "application/json; charset=utf-8"

State = Literal["waiting", "due", "delivered", "failed"]


class BadCallback(MillraceError):
    """X-Callback-Url is no address that may be called back."""

    code = "callback_url"


def address(texts: Sequence[str], allowed: Sequence[addresses.Network]) -> str:
    """Return the address that the headers named `HEADER` give; there is at least one.

    Raises `BadCallback`. An address in figures is judged here; where a name leads, when it is
    called.
    """
    if len(texts) > 1:
        raise BadCallback(f"{HEADER} is there {len(texts)} times; send one")
    if why := _unfit(texts[0], allowed):
        raise BadCallback(f"{HEADER}: {why}")
    return texts[0]


def _unfit(text: str, allowed: Sequence[addresses.Network]) -> str | None:  # noqa: PLR0911 (a list)
    if len(text) > URL_MAX_CHARACTERS:
        return f"it may have {URL_MAX_CHARACTERS} characters and has {len(text)}"
    if not text.isascii() or not text.isprintable() or set(text) & set(' \\"<>^`{|}'):
        return "it has characters that no URL has; write them as %XX"
    try:
        url = URL(text)
        port = url.explicit_port
    except ValueError as error:
        return f"it is no URL: {error}"
    if url.scheme not in {"http", "https"}:
        return "it must begin with https:// or http://"
    if not url.host:
        return "it names no host"
    if "@" in re.split("[/?#]", text.partition("//")[2], maxsplit=1)[0]:
        return "a user or password does not belong into it"
    if "#" in text:
        return "it must have no #fragment"
    if port == 0:
        return "there is no port 0"
    return _refused(url.host, allowed)


def _refused(host: str, allowed: Sequence[addresses.Network]) -> str | None:
    literal = addresses.parse(host)
    why = addresses.refusal(literal, allowed) if literal is not None else None
    return f"{why}, where callbacks do not go (CALLBACK_ALLOW_NETWORKS)" if why else None


def signature(secrets: Sequence[str], body: bytes, now_s: int) -> str:
    """Return the signature of a callback, by each of an app's secrets that are in force.

    >>> signature(["a"], b"{}", 1700000000)[:29]
    't=1700000000,v1=eab98e46d6a76'
    """
    signed = b"%d." % now_s + body
    each = (hmac.digest(secret.encode(), signed, hashlib.sha256).hex() for secret in secrets)
    return ",".join([f"t={now_s}", *(f"v1={one}" for one in each)])


class Message(NamedTuple):
    """What is sent."""

    headers: dict[str, str]
    body: bytes


def message(
    record: messages.Record, content_type: str, result: bytes | None, *, truncated: bool
) -> Message:
    """Return what is told of a call that has ended; its signature is still to come."""
    told = {
        "User-Agent": f"Millrace/{VERSION}",
        "X-Call-Id": record.call_id,
        "X-Millrace-Delivery": record.call_id,
        "X-Millrace-App": record.app,
        "X-Millrace-Path": quote(record.path),
        "X-Millrace-Status": record.status,
        "X-Millrace-Attempt": str(record.attempt),
    }
    if record.status == "success":
        body = result or b""
        fit = content_type if headers.is_value(content_type) and content_type.isascii() else ""
        told["Content-Type"] = fit or answers.content_type(body)
        if truncated:
            told["X-Truncated"] = "true"
        return Message(told, body)
    code = record.code if record.code in CODES else "internal"
    why = record.message or CODES[code].meaning
    told |= {"X-Millrace-Code": CODES[code].word, "Content-Type": _JSON}
    body = msgspec.json.encode(problems.invocation(record.call_id, code, why).body)
    return Message(told, body)


class Try(msgspec.Struct, frozen=True):
    """One try to call back, and what came of it."""

    at_ms: int
    #: What the receiver answered; None if it did not.
    status: int | None = None
    #: Why it did not count; "" if it did.
    error: str = ""


@dataclass(frozen=True, slots=True)
class Next:
    """What comes after a try."""

    state: State
    #: When to try again, in epoch ms; None: never.
    due_ms: int | None = None


def after(
    attempt: Try,
    *,
    number: int,
    retry_after_ms: int | None,
    until_ms: int,
    jitter: float,
) -> Next:
    """Return what comes after the `number`th try (from 1).

    `until_ms` is when the last one is made; `jitter` is from 0 to 1; `retry_after_ms` is what the
    receiver asked for, from the try on.
    """
    if not attempt.error:
        return Next("delivered")
    if attempt.status == HTTPStatus.GONE or attempt.at_ms >= until_ms:
        return Next("failed")
    pause_ms = min(FIRST_PAUSE_MS << min(number - 1, 20), LONGEST_PAUSE_MS)
    pause_ms = max(round(pause_ms * (0.75 + jitter / 2)), retry_after_ms or 0)
    return Next("due", min(attempt.at_ms + pause_ms, until_ms))


def complaint(status: int) -> str:
    """Return why an answer's status does not count; "" if it does."""
    if _SUCCESS <= status < _REDIRECT:
        return ""
    if _REDIRECT <= status < HTTPStatus.BAD_REQUEST:
        return f"the receiver answered {status}; redirects are not followed"
    return f"the receiver answered {status}"


def retry_after_ms(text: str | None, now_ms: int) -> int | None:
    """Return how long a `Retry-After` asks to wait: seconds, or a date; None if it says nothing.

    >>> retry_after_ms("120", 0), retry_after_ms("soon", 0)
    (120000, None)
    """
    if not text or len(text) > 64:  # noqa: PLR2004 (longer than any date)
        return None
    if text.isascii() and text.isdigit():
        return int(text) * 1000
    try:
        return max(0, round(parsedate_to_datetime(text).timestamp() * 1000) - now_ms)
    except (ValueError, OverflowError):
        return None
