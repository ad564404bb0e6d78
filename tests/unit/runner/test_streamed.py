"""Who is told what comes of a run?"""

import asyncio
from dataclasses import dataclass, field

import pytest

from services.runner import runs
from services.runner.streamed import Sink
from shared import messages, scripts
from shared.errors import Unavailable
from tests.conftest import eventually
from tests.unit.runner.builders import HEAD, async_head, exited, head
from tests.unit.runner.outboxes import SlowOutbox

HEADERS = (("content-type", "text/plain"),)
WHOLE = runs.Result(runs.Answered(200, HEADERS, streamed=True))


@dataclass
class Told:
    """What the state is told."""

    ends: list[tuple[str, runs.Result, bool]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def ended(self, call_id: str, result: runs.Result, reusable: bool) -> None:  # noqa: FBT001
        self.ends.append((call_id, result, reusable))

    async def something(self) -> None:
        async def told() -> bool:
            return bool(self.ends)

        await eventually(told)


def sink(told: Told, outbox: SlowOutbox, head: messages.CallHead = HEAD) -> Sink:
    return Sink("r1", head, outbox, told.ended, told.refusals.append)


async def test_an_answer_that_is_kept_for_others_comes_whole() -> None:
    assert not sink(Told(), SlowOutbox(), head(once="d")).streams


async def test_the_parts_of_an_answer_go_to_the_replica_that_waits() -> None:
    told, outbox = Told(), SlowOutbox()
    taken = sink(told, outbox)
    assert taken.streams
    taken.head(200, HEADERS)
    taken.data(b"x")
    assert outbox.commands == [
        scripts.reply_part("api-1", messages.StreamHead("c1", "r1", 200, HEADERS)),
        scripts.reply_part("api-1", messages.StreamChunk("c1", b"x")),
    ]
    outbox.answer(0, b"1-0")
    taken.done(WHOLE, reusable=True)
    await asyncio.sleep(0)
    assert told.ends == [], "a part may still be lost"
    outbox.answer(1, b"1-1")
    await told.something()
    assert told.ends == [("c1", WHOLE, True)]


@pytest.mark.parametrize("late", [False, True])
async def test_an_answer_of_which_a_part_was_lost_does_not_seem_whole(*, late: bool) -> None:
    """The end is sent until it arrives, also if the parts before it were lost only then."""
    told, outbox = Told(), SlowOutbox()
    taken = sink(told, outbox)
    taken.head(200, HEADERS)
    if late:
        taken.done(WHOLE, reusable=True)
    outbox.answer(0, Unavailable("away"))
    await asyncio.sleep(0)
    if not late:
        taken.done(WHOLE, reusable=True)
    await told.something()
    ((_, result, reusable),) = told.ends
    assert isinstance(result.ending, runs.Interrupted)
    assert reusable, "the function did nothing wrong"


async def test_parts_are_of_use_only_to_who_waits() -> None:
    assert not sink(Told(), SlowOutbox(), async_head()).streams


async def test_a_refusal_and_an_end_are_told() -> None:
    told = Told()
    sink(told, SlowOutbox()).refused()
    sink(told, SlowOutbox()).done(exited(), reusable=False)
    assert told.refusals == ["c1"]
    assert told.ends == [("c1", exited(), False)]
