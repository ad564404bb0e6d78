"""Who waits for a reply, and who does not any more."""

import pytest

from services.api.waiters import Overloaded, Waiters
from shared import messages


def a_reply(call_id: str, body: bytes = b"") -> messages.Reply:
    return messages.Reply(call_id, messages.Answered(body))


async def test_a_reply_reaches_the_one_who_waits_for_it() -> None:
    waiters = Waiters(2)
    with waiters.register("a") as a, waiters.register("b") as b:
        assert waiters.resolve(a_reply("b", b"for b"))
        assert b.reply.result() == a_reply("b", b"for b")
        assert not a.reply.done()


async def test_only_the_first_reply_counts() -> None:
    waiters = Waiters(2)
    with waiters.register("a") as a:
        assert waiters.resolve(a_reply("a", b"1"))
        assert not waiters.resolve(a_reply("a", b"2"))
        assert a.reply.result() == a_reply("a", b"1")


async def test_a_reply_for_one_who_left_is_not_wanted() -> None:
    waiters = Waiters(2)
    with waiters.register("a"):
        pass
    assert not waiters.resolve(a_reply("a"))
    assert not waiters.resolve(a_reply("never seen"))
    assert len(waiters) == 0


async def test_whoever_leaves_by_an_error_is_forgotten() -> None:
    waiters = Waiters(2)
    with pytest.raises(KeyError), waiters.register("a"):
        raise KeyError
    assert len(waiters) == 0


async def test_too_many_are_refused_at_once_and_a_place_becomes_free() -> None:
    waiters = Waiters(1)
    with waiters.register("a"), pytest.raises(Overloaded, match="MAX_WAITING"):
        waiters.register("b")
    with waiters.register("b"):
        assert len(waiters) == 1
