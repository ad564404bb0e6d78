"""Is an async call run once more after a failure, and after what wait? Pure.

Whose fault the failure was decides: the platform's may happen `max_attempts` times in all, the
function's own is followed by `retries` more attempts, the caller's by none. Both are counted apart.
What then fails for good by the platform's fault, or although it had retries, is a dead letter: kept
with all that running it needs. A function's failure without retries is a result like any other.

Example: `retries` 2, `max_attempts` 3, and the runner is lost, then the function exits with 1 three
times. Attempt 1 fails by the platform's fault, 2 to 4 by the function's; the fourth has used up the
retries, and the call is a dead letter.
"""

import msgspec

from shared import messages
from shared.errors import CODES

#: For heads that say nothing of it.
DEFAULT = messages.Tries()
#: Longest wait between two attempts, in milliseconds.
DELAY_MAX_MS = 3600 * 1000


def next_attempt(head: messages.CallHead, code: str) -> messages.CallHead | None:
    """Return the head of the attempt that follows one that failed so; None if none does.

    `code` is a name in `errors.CODES`.
    """
    if head.mode != "async":
        return None
    tries, fault = head.tries or DEFAULT, CODES[code].fault
    own = tries.own_failures
    if fault == "function" and own < tries.retries:
        own += 1
    elif fault != "platform" or head.attempt - own >= tries.max_attempts:
        return None
    tries = msgspec.structs.replace(tries, own_failures=own)
    return msgspec.structs.replace(head, attempt=head.attempt + 1, tries=tries)


def is_kept(head: messages.CallHead, code: str) -> bool:
    """Say whether a call whose last attempt failed so is a dead letter."""
    if head.mode != "async":
        return False
    tries, fault = head.tries or DEFAULT, CODES[code].fault
    return fault == "platform" or (fault == "function" and tries.retries > 0)


def due_ms(now_ms: int, head: messages.CallHead, chance: float) -> int:
    """Return when an attempt that follows a failure is due, in epoch milliseconds.

    The wait doubles with each attempt, up to `DELAY_MAX_MS`; `chance`, from 0 to 1, takes away up
    to a half of it, so that calls that failed together do not come back together.

    Example: with `retry_delay_s` 10 attempt 2 waits 5 to 10 s, attempt 3 10 to 20 s.
    """
    tries = head.tries or DEFAULT
    longest_ms = min(tries.retry_delay_s * 1000 << min(head.attempt - 2, 32), DELAY_MAX_MS)
    return now_ms + round(longest_ms * (1 - chance / 2))


def waiting_record(head: messages.CallHead, failure: messages.Attempt) -> messages.Record:
    """Return the record of a call whose next attempt, `head`, waits after a failure.

    Why it failed is no part of what the call comes to, so it stands with its attempt alone.
    """
    return messages.Record(
        call_id=head.call_id,
        status="queued",
        mode=head.mode,
        app=head.app,
        path=head.path,
        image=head.image,
        queued_ms=head.accepted_ms,
        attempt=head.attempt,
        failures=(failure,),
    )
