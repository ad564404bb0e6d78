"""How does what must reach Redis get there? It is sent again until Redis has answered.

What is sent here may be sent twice after a lost connection, so it must bear that: a script that
ends or moves a call does nothing the second time.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from redis.exceptions import ResponseError

from services.runner import metrics
from shared import logs
from shared.errors import Unavailable
from shared.scripts import Command, name
from shared.streams import Backoff, Outbox

log = structlog.get_logger()
_waits = logs.Seldom("delivery_waits")

#: Takes what Redis answered; None for a command that it refused as wrong.
Answered = Callable[[Any], None]


class Delivery:
    """Delivers commands, with back-off while Redis is away; knows how much it holds meanwhile."""

    def __init__(self, outbox: Outbox) -> None:
        """Send through `outbox`."""
        self._outbox = outbox
        #: What has been posted and not been answered yet.
        self._tries: set[asyncio.Future[Any]] = set()
        self._late: set[asyncio.Task[None]] = set()
        #: Bytes of commands whose first try has failed and that are still held.
        self.held_bytes = 0

    def post(self, command: Command, answered: Answered | None = None) -> None:
        """Send a command until Redis has answered; `answered` gets the answer then.

        Costs no task unless the first try fails.
        """
        sent = self._outbox.send(command)
        self._tries.add(sent)
        sent.add_done_callback(partial(self._tried, command, answered))

    async def settled(self) -> None:
        """Wait until Redis has answered all that was posted."""
        while under_way := self._tries | self._late:
            await asyncio.wait(under_way)

    def _tried(
        self, command: Command, answered: Answered | None, sent: "asyncio.Future[Any]"
    ) -> None:
        self._tries.discard(sent)
        if sent.cancelled():
            return
        error = sent.exception()
        if isinstance(error, Unavailable):
            _waits.warning(command=name(command), error=error.message)
            late = asyncio.create_task(self._late_answer(command, answered), name="delivery")
            self._late.add(late)
            late.add_done_callback(self._late.discard)
        elif error is not None:
            log.error("delivery_refused", command=name(command), error=str(error))
        if error is None or not isinstance(error, Unavailable):
            _hand_on(answered, None if error else sent.result())

    async def _late_answer(self, command: Command, answered: Answered | None) -> None:
        _hand_on(answered, await self._until_sent(command))

    async def deliver(self, *commands: Command) -> list[Any]:
        """Send commands in this order, each until Redis has answered; return the answers.

        A command that Redis refuses as wrong is logged, and its answer is None.
        """
        return [await self._deliver(command) for command in commands]

    async def _deliver(self, command: Command) -> Any:  # noqa: ANN401 (whatever Redis says)
        try:
            return await self._outbox.send(command)
        except Unavailable as error:
            _waits.warning(command=name(command), error=error.message)
        except ResponseError as error:
            return _refused(command, error)
        return await self._until_sent(command)

    async def _until_sent(self, command: Command) -> Any:  # noqa: ANN401
        size = sum(len(part) for part in command if isinstance(part, bytes))
        self._hold(size)
        try:
            return await self._again(command)
        finally:
            self._hold(-size)

    def _hold(self, size: int) -> None:
        self.held_bytes += size
        metrics.HELD_BYTES.set(self.held_bytes)

    async def _again(self, command: Command) -> Any:  # noqa: ANN401
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                return await self._outbox.send(command)
            except Unavailable:
                continue
            except ResponseError as error:
                return _refused(command, error)


def _hand_on(answered: Answered | None, answer: Any) -> None:  # noqa: ANN401
    if answered is not None:
        answered(answer)


def _refused(command: Command, error: ResponseError) -> None:
    log.error("delivery_refused", command=name(command), error=str(error))
