"""Does what must reach Redis get there? With a Redis that answers when the test says."""

import asyncio
from collections.abc import Callable

import pytest
from redis.exceptions import ResponseError

from services.runner.delivery import Delivery
from shared.errors import Unavailable
from tests.conftest import eventually
from tests.unit.runner.outboxes import SlowOutbox

COMMAND = ("XADD", "key", "*", "m", b"12345")


@pytest.fixture
def outbox() -> SlowOutbox:
    return SlowOutbox()


@pytest.fixture
def delivery(outbox: SlowOutbox) -> Delivery:
    return Delivery(outbox)


async def holds(condition: Callable[[], object]) -> None:
    async def asked() -> object:
        return condition()

    await eventually(asked)


async def test_what_is_posted_is_sent_once_and_its_answer_handed_on(
    delivery: Delivery, outbox: SlowOutbox
) -> None:
    answers: list[object] = []
    delivery.post(COMMAND, answers.append)
    outbox.answer(0, 1)
    await holds(lambda: answers == [1])
    assert outbox.commands == [COMMAND]
    assert delivery.held_bytes == 0


async def test_what_was_lost_is_sent_again_until_redis_answers(
    delivery: Delivery, outbox: SlowOutbox
) -> None:
    answers: list[object] = []
    delivery.post(COMMAND, answers.append)
    for number in range(3):
        outbox.answer(number, Unavailable("away"))
        await holds(lambda: len(outbox.sent) == number + 2)  # noqa: B023 (awaited at once)
        assert delivery.held_bytes == 5
    outbox.answer(3, 0)
    await holds(lambda: answers == [0])
    assert outbox.commands == [COMMAND] * 4
    assert delivery.held_bytes == 0


@pytest.mark.parametrize("first", [None, Unavailable("away")])
async def test_what_redis_refuses_as_wrong_is_not_sent_again(
    delivery: Delivery, outbox: SlowOutbox, first: Exception | None
) -> None:
    answers: list[object] = []
    delivery.post(COMMAND, answers.append)
    if first is not None:
        outbox.answer(0, first)
        await holds(lambda: len(outbox.sent) == 2)
    outbox.answer(-1, ResponseError("ERR wrong"))
    await holds(lambda: answers == [None])
    assert delivery.held_bytes == 0


async def test_it_is_settled_when_redis_has_answered_everything(
    delivery: Delivery, outbox: SlowOutbox
) -> None:
    """What had been posted just before, and was lost only then, was forgotten."""
    delivery.post(COMMAND)
    settled = asyncio.ensure_future(delivery.settled())
    await asyncio.sleep(0)
    assert not settled.done()
    outbox.answer(0, Unavailable("away"))
    await holds(lambda: len(outbox.sent) == 2)
    assert not settled.done()
    outbox.answer(1, 1)
    await settled


async def test_nothing_is_settled_at_once(delivery: Delivery) -> None:
    await delivery.settled()


async def test_what_is_delivered_goes_one_after_the_other(
    delivery: Delivery, outbox: SlowOutbox
) -> None:
    second = ("XDEL", "key", b"1-1")
    delivered = asyncio.ensure_future(delivery.deliver(COMMAND, second))
    await holds(lambda: outbox.sent)
    outbox.answer(0, Unavailable("away"))
    await holds(lambda: len(outbox.sent) == 2)
    assert outbox.commands == [COMMAND, COMMAND]
    outbox.answer(1, b"1-0")
    await holds(lambda: len(outbox.sent) == 3)
    outbox.answer(2, ResponseError("ERR wrong"))
    assert await delivered == [b"1-0", None]
    assert outbox.commands[-1] == second
