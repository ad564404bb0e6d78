"""Who calls while things break? Sync callers who note how each call went."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared import clock
from tests.e2e.client import Answer, Client

#: What a call may take beyond its deadline, in seconds.
SLACK_S = 2.0


@dataclass(frozen=True)
class Went:
    """How one call went; times are monotonic seconds."""

    begun_s: float
    ended_s: float
    answer: Answer

    @property
    def took_s(self) -> float:
        """Return how long its caller waited."""
        return self.ended_s - self.begun_s


@dataclass
class Callers:
    """What they have noted, in the order in which the calls ended."""

    went: list[Went] = field(default_factory=list)

    def statuses(self) -> Counter[int]:
        """Count the answers by status."""
        return Counter(call.answer.status for call in self.went)

    def slowest_s(self) -> float:
        """Return the longest that one waited."""
        return max(call.took_s for call in self.went)

    async def answered(self, timeout_s: float) -> float:
        """Return how long it takes until a call made from now on succeeds."""
        asked_s = clock.monotonic_s()
        seen = len(self.went)
        while clock.monotonic_s() < asked_s + timeout_s:
            await asyncio.sleep(0.02)
            for call in self.went[seen:]:
                if call.answer.status == 200 and call.begun_s > asked_s:
                    return call.ended_s - asked_s
        raise AssertionError(f"no call succeeded within {timeout_s} s: {self.statuses()}")


@asynccontextmanager
async def calling(
    client: Client, path: str, callers: int = 4, body: bytes = b"x"
) -> AsyncIterator[Callers]:
    """Call without a pause from several callers while inside; all calls have ended after that."""
    notes = Callers()
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            begun_s = clock.monotonic_s()
            answer = await client.post(path, data=body)
            notes.went.append(Went(begun_s, clock.monotonic_s(), answer))
            if answer.status != 200:
                await asyncio.sleep(0.2)

    tasks = [asyncio.create_task(caller()) for _ in range(callers)]
    try:
        yield notes
    finally:
        over.set()
        await asyncio.gather(*tasks)
