"""Who is told what comes of a call? Its api replica of an answer's parts, the state of its end."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from services.runner import runs
from shared import messages, scripts
from shared.streams import Outbox

Sent = asyncio.Future[Any]


class Sink:
    """Takes what comes of one run. A `runs.Sink`."""

    __slots__ = (
        "_broken",
        "_end",
        "_ended",
        "_head",
        "_outbox",
        "_refused",
        "_runner_id",
        "_unanswered",
        "streams",
    )

    def __init__(
        self,
        runner_id: str,
        head: messages.CallHead,
        outbox: Outbox,
        ended: Callable[[str, runs.Result, bool], None],
        refused: Callable[[str], None],
    ) -> None:
        """`ended` gets the call's id, the result, and whether its sandbox is reusable."""
        self._runner_id, self._head, self._outbox = runner_id, head, outbox
        self._ended, self._refused = ended, refused
        self._broken = False
        #: Parts that Redis has not answered yet, and the end that waits for that.
        self._unanswered = 0
        self._end: tuple[runs.Result, bool] | None = None
        #: Only to who waits an answer is of use before it is whole; and one that is to be kept for
        #: those who ask again (`once`) must be whole.
        self.streams = bool(head.reply_to) and not head.once

    def head(self, status: int, headers: runs.Headers) -> None:
        """Tell the api replica that an answer begins."""
        head = messages.StreamHead(self._head.call_id, self._runner_id, status, headers)
        self._send(head)

    def data(self, data: bytes) -> None:
        """Send the next bytes of an answer."""
        self._send(messages.StreamChunk(self._head.call_id, data))

    def done(self, result: runs.Result, *, reusable: bool) -> None:
        """Tell the end of the run, once it is known what became of all parts of its answer.

        An answer of which a part was lost must not seem whole, and ends are sent until they arrive.
        """
        self._end = (result, reusable)
        if not self._unanswered:
            self._tell(*self._end)

    def refused(self) -> None:
        """Tell that nothing of the call was run."""
        self._refused(self._head.call_id)

    def _send(self, part: messages.StreamHead | messages.StreamChunk) -> None:
        self._unanswered += 1
        sent = self._outbox.send(scripts.reply_part(self._head.reply_to, part))
        sent.add_done_callback(self._sent)

    def _sent(self, sent: Sent) -> None:
        self._unanswered -= 1
        if sent.cancelled() or sent.exception() is not None:
            self._broken = True
        if self._end is not None and not self._unanswered:
            self._tell(*self._end)

    def _tell(self, result: runs.Result, reusable: bool) -> None:  # noqa: FBT001 (as in the event)
        if self._broken:
            lost = runs.Interrupted("Redis was away while the answer was streamed")
            result = msgspec.structs.replace(result, ending=lost, body=b"")
        self._ended(self._head.call_id, result, reusable)
