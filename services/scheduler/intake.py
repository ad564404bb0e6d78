"""What do stream entries say to the scheduler? Decoding, and setting aside what cannot be.

Knows nothing of what follows from them.
"""

from collections.abc import Iterable
from typing import Any

import structlog

from services.scheduler import events
from services.scheduler.events import Waiting
from shared import keys, messages, streams
from shared.errors import Undecodable
from shared.metrics import UNDECODABLE
from shared.streams import Entry, Outbox

log = structlog.get_logger()

_OF_CALLS = frozenset((keys.CALLS_SYNC, keys.CALLS_ASYNC))


class Intake:
    """Turns entries into messages. An entry nobody can decode is moved aside, counted, logged."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def calls(self, stream: str, entries: Iterable[Entry]) -> tuple[Waiting, ...]:
        """Return the waiting calls in entries of `calls:sync` or `calls:async`."""
        found = ((entry[0], self.head(stream, entry)) for entry in entries)
        return tuple(events.waiting(entry_id, head) for entry_id, head in found if head)

    def reports(self, entries: Iterable[Entry]) -> list[messages.Event]:
        """Return the messages in entries of `events`."""
        found: list[messages.Event] = []
        for entry in entries:
            try:
                kind: Any = messages.Event
                found.append(messages.decode(entry[1].get(b"m"), kind))
            except Undecodable as error:
                self.set_aside(keys.EVENTS, entry, error)
        return found

    def head(self, stream: str, entry: Entry) -> messages.CallHead | None:
        """Return the call's head in an entry; None if it had to be set aside."""
        try:
            head = messages.decode(entry[1].get(b"h"), messages.CallHead)
            _check(stream, head)
        except Undecodable as error:
            self.set_aside(stream, entry, error)
            return None
        return head

    def set_aside(self, stream: str, entry: Entry, error: Undecodable) -> None:
        """Move an entry out of the way, to where an operator can look at it."""
        UNDECODABLE.labels(stream).inc()
        log.error("entry_undecodable", stream=stream, entry_id=entry[0].decode(), why=str(error))
        for command in (
            streams.set_aside(stream, entry, str(error)),
            ("XDEL", stream, entry[0]),
        ):
            self._outbox.send(command).add_done_callback(_settled)


def grant(entry: Entry) -> str:
    """Return the grant by which a call in a runner's stream came; "" if by none, or by none known.

    The runner sets aside what it cannot decode.
    """
    try:
        return messages.decode(entry[1].get(b"a"), messages.Assignment).grant
    except Undecodable:
        return ""


def _check(stream: str, head: messages.CallHead) -> None:
    """Raise `Undecodable` for a call in the stream of the other mode: it would be lost there."""
    if stream in _OF_CALLS and stream != keys.calls(head.mode):
        raise Undecodable(f"{head.mode} call {head.call_id} in {stream}")


def _settled(future: Any) -> None:  # noqa: ANN401 (a future of whatever Redis answers)
    if not future.cancelled() and future.exception() is not None:
        log.warning("set_aside_failed", error=str(future.exception()))
