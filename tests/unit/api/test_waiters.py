"""Who waits for an answer, and who does not any more; and the parts of a streamed one."""

import asyncio

import pytest

from services.api.waiters import AnswerStream, Overloaded, Overrun, Waiter, Waiters
from shared import messages, streaming
from shared.errors import Unavailable

MIB = 1024 * 1024


def a_reply(call_id: str, body: bytes = b"") -> messages.Reply:
    return messages.Reply(call_id, messages.Answered(body))


def a_head(call_id: str = "a") -> messages.StreamHead:
    return messages.StreamHead(call_id, "r1", 200, ())


def chunk(data: bytes, call_id: str = "a") -> messages.StreamChunk:
    return messages.StreamChunk(call_id, data)


def streaming_to(waiters: Waiters, call_id: str = "a") -> AnswerStream:
    waiter = waiters.register(call_id)
    assert waiters.hand_over(a_head(call_id))
    stream = waiter.answer.result()
    assert isinstance(stream, AnswerStream)
    return stream


async def test_a_reply_reaches_the_one_who_waits_for_it() -> None:
    waiters = Waiters(2)
    a, b = waiters.register("a"), waiters.register("b")
    assert waiters.hand_over(a_reply("b", b"for b"))
    assert b.answer.result() == a_reply("b", b"for b")
    assert not a.answer.done()
    assert len(waiters) == 1


async def test_only_the_first_reply_counts() -> None:
    waiters = Waiters(2)
    a = waiters.register("a")
    assert waiters.hand_over(a_reply("a", b"1"))
    assert not waiters.hand_over(a_reply("a", b"2"))
    assert a.answer.result() == a_reply("a", b"1")


async def test_an_answer_for_one_who_left_is_not_wanted() -> None:
    waiters = Waiters(2)
    waiters.register("a")
    waiters.forget("a")
    for part in (a_reply("a"), a_head("a"), chunk(b"x"), a_reply("never seen")):
        assert not waiters.hand_over(part)
    assert len(waiters) == 0
    waiters.forget("a")


async def test_one_who_was_refused_stays_so() -> None:
    waiters = Waiters(2)
    waiter = waiters.register("a")
    waiter.refuse(Unavailable())
    waiter.refuse(Overloaded())
    assert not waiters.hand_over(a_reply("a"))
    with pytest.raises(Unavailable):
        await waiter.answer


async def test_too_many_are_refused_at_once_and_a_place_becomes_free() -> None:
    waiters = Waiters(1)
    waiters.register("a")
    with pytest.raises(Overloaded, match="MAX_WAITING"):
        waiters.register("b")
    waiters.forget("a")
    assert isinstance(waiters.register("b"), Waiter)


async def test_parts_come_in_order_and_end_with_the_reply() -> None:
    waiters = Waiters(2)
    stream = streaming_to(waiters)
    assert waiters.hand_over(chunk(b"1"))
    assert waiters.hand_over(chunk(b"2"))
    assert await stream.next() == b"12"
    following = asyncio.create_task(stream.next())
    await asyncio.sleep(0)
    assert waiters.hand_over(chunk(b"3"))
    assert await following == b"3"
    assert waiters.hand_over(chunk(b"4"))
    assert waiters.hand_over(a_reply("a"))
    assert [await stream.next(), await stream.next()] == [b"4", a_reply("a")]
    assert stream.replied
    assert len(waiters) == 1
    waiters.forget("a")
    assert len(waiters) == 0


async def test_what_comes_out_of_order_is_not_wanted() -> None:
    waiters = Waiters(2)
    waiter = waiters.register("a")
    assert not waiters.hand_over(chunk(b"before the head"))
    assert waiters.hand_over(a_head())
    assert not waiters.hand_over(a_head())
    assert waiters.hand_over(a_reply("a"))
    assert not waiters.hand_over(chunk(b"after the end"))
    assert not waiters.hand_over(a_reply("a"))
    stream = waiter.answer.result()
    assert isinstance(stream, AnswerStream)
    assert await stream.next() == a_reply("a")


async def test_the_runner_is_told_what_was_taken_now_and_then() -> None:
    stream = streaming_to(Waiters(2))
    quarter = streaming.MORE_EVERY_BYTES
    assert stream.taken(quarter - 1) is None
    assert stream.taken(1) == messages.More("a", quarter)
    assert stream.taken(quarter - 1) is None
    assert stream.taken(quarter) == messages.More("a", 3 * quarter - 1)


async def test_a_runner_that_sends_too_much_breaks_the_stream() -> None:
    waiters = Waiters(2)
    stream = streaming_to(waiters)
    for _ in range(streaming.UNTAKEN_MAX_BYTES // MIB):
        assert waiters.hand_over(chunk(bytes(MIB)))
    assert len(await stream.next()) == streaming.UNTAKEN_MAX_BYTES
    with pytest.raises(Overrun):
        waiters.hand_over(chunk(b"x"))
    assert not waiters.hand_over(chunk(b"y"))
    with pytest.raises(Overrun):
        await stream.next()
    assert not stream.replied


async def test_what_was_taken_makes_room() -> None:
    waiters = Waiters(2)
    stream = streaming_to(waiters)
    for _ in range(5):
        assert waiters.hand_over(chunk(bytes(MIB)))
        stream.taken(len(await stream.next()))


async def test_streams_break_off_behind_what_has_come() -> None:
    waiters = Waiters(3)
    stream, ended = streaming_to(waiters, "a"), streaming_to(waiters, "b")
    waiters.register("c")
    assert waiters.hand_over(a_reply("b"))
    assert waiters.hand_over(chunk(b"1"))
    assert waiters.break_streams(Unavailable()) == 1
    assert await stream.next() == b"1"
    with pytest.raises(Unavailable):
        await stream.next()
    assert ended.replied
