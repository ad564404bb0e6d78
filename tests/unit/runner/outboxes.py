"""Redis as the runner's deliveries see it: what is sent is kept, and answered when a test says."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from shared.scripts import Command


@dataclass
class SlowOutbox:
    """An outbox whose Redis answers nothing by itself."""

    sent: list[tuple[Command, "asyncio.Future[Any]"]] = field(default_factory=list)

    def send(self, command: Command) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent.append((command, future))
        return future

    @property
    def commands(self) -> list[Command]:
        return [command for command, _ in self.sent]

    def answer(self, number: int, answer: object) -> None:
        """Answer the command that was sent as the `number`th, counted from 0."""
        future = self.sent[number][1]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
