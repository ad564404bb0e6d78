"""What helps, if the platform refuses or does not answer? Pure: from an answer to two lines."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote

from fn.errors import Exit

APP_NOT_FOUND = "App not found"
ROUTE_NOT_FOUND = "Route not found"
UNAUTHORIZED = 401
_SERVER_ERROR = 500
_EXCERPT_CHARS = 60
#: Tokens are good for an hour; a clock that differs by more makes all of them bad.
_CLOCK_TOLERANCE_S = 60

#: What the API says -> what helps; the first whose words are in the message.
_HINTS = (
    ("App already exists", "`fn apps update` changes it; `fn apps list` shows all"),
    ("Route already exists", "`fn routes update` changes it, and so does `fn deploy`"),
    ("No runner has the id or name", "`fn runners` shows the names and ids of all"),
    ("Call not found", "`fn calls list APP` shows an app's calls"),
    ("Cannot remove apps with routes", "Delete its routes first: `fn routes delete APP /PATH`"),
    ("name must be 30 characters", "Names of apps have 1 to 30 of A-Z, a-z, 0-9, _ and -"),
    ("Invalid app name", "Names of apps have 1 to 30 of A-Z, a-z, 0-9, _ and -"),
    ("Missing app name", "Names of apps have 1 to 30 of A-Z, a-z, 0-9, _ and -"),
    ("Dynamic URL is not allowed", "A path is one address, without `:`, as in /greet"),
    ("Invalid route Type", "Types are sync and async"),
    ("Invalid route Format", "Formats are default, http, json and http-stream"),
    ("Missing route Image", "Name one with --image"),
    ("No result is kept of a sync call", "`fn logs APP CALL_ID` shows what it wrote to stderr"),
)

#: Why a call failed, as the platform's code says it -> what helps. The others: see the log.
_CALL_HINTS = {
    "timeout": "`fn routes update {route} --timeout 5m` lets it run longer",
    "out_of_memory": "`fn routes update {route} --memory 512` gives it more",
    "image_pull": "Is the image pushed? `fn deploy {app}` builds and pushes it",
    "image_invalid": "Its image has no command to start: `fn routes inspect {route} image`",
    "unauthorized": "`fn routes token {route}` signs a token; send it with -e Authorization=TOKEN",
    "too_large": "The platform has a limit for what is sent and answered",
    "slow_body": "Try again, over a faster line",
    "capacity": "Try again later; `fn runners` shows who has room",
    "overloaded": "Try again later; `fn runners` shows who has room",
    "unavailable": "Try again in a moment; `fn doctor` shows what is missing",
    "inflight_limit": "`fn apps update {app} --max-inflight 0` lifts the limit",
    "rate_limit": "`fn apps update {app} --rate 0` lifts the limit",
    "runner_lost": "Try again; `fn runners` shows who is left",
    "deadline": "Try again; `fn runners` shows who has room",
    "internal": "The api's log tells more about call {call_id}",
    "invalid_request": "See `fn call --help`",
    "idempotency_mismatch": "Another request needs another --idempotency-key",
    "idempotency_running": "Try again in a moment, with the same key, for the answer",
    "idempotency_no_answer": "`fn calls list {app}` shows how that call has ended",
    "callback_url": "See `fn call --help`; the operator lists networks of your own",
    "not_found": "`fn routes list {app}` shows what can be called",
}
_LOG_HINT = "`fn logs {app} {call_id}` shows what the function wrote to standard error"


def call(code: str, route: str, call_id: str) -> str:
    """Return what helps if a call of a route, as in "demo /greet", failed with a code.

    >>> call("timeout", "demo /greet", "1")
    '`fn routes update demo /greet --timeout 5m` lets it run longer'
    """
    app = route.partition(" ")[0]
    return _CALL_HINTS.get(code, _LOG_HINT).format(route=route, app=app, call_id=call_id)


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


def refused(method: str, path: str, message: str) -> str:
    """Return what helps against an error of the API."""
    found = (hint for words, hint in _HINTS if words in message)
    return next(found, f"That is what the platform answers to {method} {path}")


@dataclass(frozen=True)
class Listing:
    """What there is of what was asked for: where the API lists it, and how `fn` does."""

    #: What was asked for, as it is called.
    name: str
    path: str
    what: str
    field: str
    command: str


def listing(path: str, message: str) -> Listing | None:
    """Return where to look for what was perhaps meant, if the API does not know an app or route.

    >>> listing("/v1/apps/dmeo", "App not found").command
    'fn apps list'
    """
    _, _, apps, app, *rest = [unquote(part) for part in f"{path}/".split("/")]
    if message == APP_NOT_FOUND and apps == "apps":
        return Listing(app, "/v1/apps", "apps", "name", "fn apps list")
    if message == ROUTE_NOT_FOUND and rest[:1] == ["routes"]:
        wanted = "/" + "/".join(rest[1:-1])
        routes = f"/v1/apps/{quote(app, safe='')}/routes"
        return Listing(wanted, routes, "routes", "path", f"fn routes list {app}")
    return None


def unknown(listing: Listing, names: list[str]) -> str:
    """Return what helps, given the names there are.

    >>> unknown(listing("/v1/apps/dmeo", "App not found"), ["demo", "other"])
    "Did you mean 'demo'? `fn apps list` shows all"
    """
    close = difflib.get_close_matches(listing.name, names, n=1, cutoff=0.5)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return f"{meant}`{listing.command}` shows all"


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
    if is_distrust(error):
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


def is_distrust(error: Exception) -> bool:
    """Return whether there was an answer, with a certificate that is not trusted."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


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
