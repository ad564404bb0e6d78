"""What did a caller see, and is that as promised? Pure."""

from dataclasses import dataclass

from shared.errors import CODES
from tests.chaos.routes import Kind

OK, ACCEPTED = 200, 202


@dataclass(frozen=True, slots=True)
class Seen:
    """One call, as its caller saw it."""

    kind: Kind
    #: What was sent; no other call sent the same.
    sent: bytes
    began_s: float
    took_s: float
    #: None: the connection broke, or the caller left.
    status: int | None
    body: bytes = b""
    #: The stable word of a failure.
    code: str = ""
    #: What broke the connection.
    broken: str = ""


def mixed(seen: Seen) -> bool:
    """Say whether a caller got an answer to something else than it had sent."""
    return seen.status == OK and (seen.kind.ending != "echo" or seen.body != seen.sent)


def unanswered(seen: Seen) -> bool:
    """Say whether a caller had to wait for longer than was promised."""
    return seen.took_s > seen.kind.answer_within_s


def unexplained(seen: Seen, harmed: bool) -> str:  # noqa: FBT001 (one of two facts of a call)
    """Return what is wrong with a failure; "" if it is told as it should be.

    `harmed`: whether the api replica that was called was killed or stopped at that time.
    """
    if seen.status is None:
        leaves = seen.kind.ending == "caller leaves"
        return "" if leaves or harmed else f"connection broken: {seen.broken}"
    if seen.status in {OK, ACCEPTED}:
        return ""
    if seen.code not in CODES or CODES[seen.code].status != seen.status:
        return f"a failure without its word: {seen.status} {seen.code} {seen.body[:200]!r}"
    if seen.code == "internal":
        return f"a defect: {seen.body[:200]!r}"
    return ""


def outcome(seen: Seen) -> str:
    """Return the word under which a call is counted."""
    if seen.status is None:
        return "caller left" if seen.kind.ending == "caller leaves" else "connection broken"
    return f"{seen.status} {seen.code}".strip()
