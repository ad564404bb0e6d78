"""What helps, if the platform refuses or does not answer? Pure: from an answer to two lines."""

from __future__ import annotations

import difflib
import re
from email.utils import parsedate_to_datetime
from typing import Any

from fn.errors import Exit

APP_NOT_FOUND = "App not found"
UNAUTHORIZED = 401
_SERVER_ERROR = 500
_EXCERPT_CHARS = 60
#: Tokens are good for an hour; a clock that differs by more makes all of them bad.
_CLOCK_TOLERANCE_S = 60

#: What the API says -> what helps; the first whose words are in the message.
_HINTS = (
    ("App already exists", "`fn apps update` changes it; `fn apps list` shows all"),
    ("Route already exists", "`fn routes update` changes it, and so does `fn deploy`"),
    ("Route not found", "`fn routes list APP` shows an app's routes"),
    ("Call not found", "`fn calls list APP` shows an app's calls"),
    ("Cannot remove apps with routes", "Delete its routes first: `fn routes delete APP /PATH`"),
    ("name must be 30 characters", "Names of apps have 1 to 30 of A-Z, a-z, 0-9, _ and -"),
    ("Invalid app name", "Names of apps have 1 to 30 of A-Z, a-z, 0-9, _ and -"),
    ("Invalid route Type", "Types are sync and async"),
    ("Invalid route Format", "Formats are default, http, json and http-stream"),
    ("Missing route Image", "Name one with --image"),
    ("No result is kept of a sync call", "`fn logs APP CALL_ID` shows what it wrote to stderr"),
)


def message(told: Any) -> str:  # noqa: ANN401 (it is whatever was sent)
    r"""Return the API's message in an answer that says no; "" if that is none of the API's.

    >>> message({"error": {"message": "validation failure list:\nNegative timeout"}})
    'Negative timeout'
    """
    error = told.get("error") if isinstance(told, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    if not isinstance(text, str):
        return ""
    lines = [line for line in text.splitlines() if line.strip() != "validation failure list:"]
    return "; ".join(lines)


def exit_code(status: int) -> Exit:
    """Return how a command ends whose request was answered with an error."""
    if status == UNAUTHORIZED:
        return Exit.UNAUTHORIZED
    return Exit.UNREACHABLE if status >= _SERVER_ERROR else Exit.REFUSED


def refused(method: str, path: str, message: str, apps: list[str]) -> str:
    """Return what helps against an error of the API; `apps` are those there are, if that matters.

    >>> refused("GET", "/v1/apps/dmeo", "App not found", ["demo"])
    "Did you mean 'demo'? `fn apps list` shows all apps"
    """
    if message == APP_NOT_FOUND:
        name = path.split("/")[3]
        close = difflib.get_close_matches(name, apps, n=1, cutoff=0.5)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        return f"{meant}`fn apps list` shows all apps"
    for words, hint in _HINTS:
        if words in message:
            return hint
    return f"The platform's answer to {method} {path}"


def unauthorized(*, has_key: bool, date: str | None, now: float) -> str:
    """Return what helps if the platform refuses a token; `date` is the answer's header."""
    if not has_key:
        return "This platform asks for a token: set JWT_AUTH_KEY to its key, or add it to a context"
    behind_s = _behind_s(date, now)
    if abs(behind_s) > _CLOCK_TOLERANCE_S:
        word = "ahead of" if behind_s > 0 else "behind"
        return (
            f"This machine's clock is {_duration(abs(behind_s))} {word} the platform's, so that "
            "tokens are expired or not yet good: set it"
        )
    return "The token was signed with another key: is JWT_AUTH_KEY the key of this platform?"


def _behind_s(date: str | None, now: float) -> float:
    try:
        return now - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return 0.0


def _duration(seconds: float) -> str:
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def unreachable(url: str, error: Exception) -> tuple[str, str]:
    """Return what to say, and what helps, if no answer came from an address."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = re.search(r"certificate verify failed: ([^(\]]+)", text)
        return (
            f"the certificate of {url} is not trusted: {why[1].strip() if why else 'no reason'}",
            "SSL_CERT_FILE=its-ca.pem trusts its issuer; SSL_SKIP_VERIFY=true trusts anybody",
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return (f"{url} speaks no TLS", f"Set API_URL={url.replace('https://', 'http://')}")
    return (
        f"the API at {url} cannot be reached: {_reason(text)}",
        "Is it running (`make up`)? Set API_URL or choose a context: `fn context use NAME`",
    )


def _reason(text: str) -> str:
    """Return the cause in a chain of exceptions: the words behind the last colon that matter."""
    known = (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "no such host"),
        ("nodename nor servname", "no such host"),
        ("No address associated", "no such host"),
        ("Temporary failure in name resolution", "no such host, or no name server"),
        ("timed out", "no answer in time"),
        ("RemoteDisconnected", "the connection was closed without an answer"),
        ("Connection reset", "the connection was reset"),
        ("Network is unreachable", "network is unreachable"),
        ("No route to host", "no route to host"),
    )
    for words, reason in known:
        if words in text:
            return reason
    return text.rpartition(": ")[2].strip(" )'\"") or "no reason"


def excerpt(body: bytes) -> str:
    """Return the beginning of a body as one line."""
    text = " ".join(body[: 4 * _EXCERPT_CHARS].decode(errors="replace").split())
    return repr(text[:_EXCERPT_CHARS] + ("..." if len(text) > _EXCERPT_CHARS else "")) * bool(text)
