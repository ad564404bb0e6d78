"""Which commands go together, and who is told what?"""

from typing import Any

import hiredis
import pytest
from redis.exceptions import ResponseError

from shared import batches, keys, messages, scripts
from shared.errors import Unavailable
from shared.scripts import Command


def an_assign(number: int, *, epoch: int = 1, runner_id: str = "r1") -> scripts.Step:
    entry_id = b"%d-0" % number
    return scripts.assign(keys.CALLS_SYNC, entry_id, runner_id, messages.Assignment(epoch, 2))


def a_cancel(call_id: str = "c1") -> scripts.Step:
    return scripts.forward_cancel("r1", call_id)


PING: Command = ("PING",)


def sizes(*commands: Command) -> list[int]:
    return [len(b) for b in batches.batches((command, print) for command in commands)]


def told(answer: Any, count: int) -> list[Any]:
    """Say what each of so many steps in one batch is told of an answer."""
    heard: list[Any] = []
    [batch] = batches.batches((an_assign(i), heard.append) for i in range(count))
    batch.land(answer)
    return heard


def sent(packed: bytes) -> list[bytes]:
    """Return the parts of a packed command."""
    reader = hiredis.Reader()
    reader.feed(packed)
    parts: list[bytes] = reader.gets()
    return parts


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ([], []),
        ([an_assign(1), an_assign(2, runner_id="r2"), an_assign(3)], [3]),
        ([an_assign(1), an_assign(2, epoch=2)], [1, 1]),
        ([an_assign(1), a_cancel(), a_cancel("c2"), an_assign(2)], [1, 2, 1]),
        ([an_assign(1), PING, an_assign(2)], [1, 1, 1]),
        ([PING, PING], [1, 1]),
    ],
)
def test_only_neighbours_that_share_all_that_is_shared_go_together(
    commands: list[Command], expected: list[int]
) -> None:
    assert sizes(*commands) == expected


def test_a_batch_holds_redis_only_so_long() -> None:
    most = batches.STEPS_MAX
    assert sizes(*(an_assign(i) for i in range(most + 1))) == [most, 1]


def test_what_is_shared_goes_once_and_the_rest_in_order() -> None:
    [batch] = batches.batches((an_assign(i, runner_id=f"r{i}"), print) for i in (1, 2))
    name, sha, count, *names_and_rest = sent(batch.packed())
    assert (name, sha.decode(), int(count)) == (b"EVALSHA", an_assign(1).script.sha, 4)
    names = [keys.CALLS_SYNC, keys.EPOCH, keys.runner("r1"), keys.runner("r2")]
    assert [n.decode() for n in names_and_rest[:4]] == names
    assignment = messages.encode(messages.Assignment(1, 2))
    assert names_and_rest[4:] == [b"1", b"1-0", assignment, b"2-0", assignment]


def test_a_step_alone_is_a_command_with_its_text() -> None:
    step = an_assign(1)
    [batch] = batches.batches([(step, print)])
    assert sent(batch.packed(whole=True)) == sent(hiredis.pack_command(tuple(step)))


def test_each_is_told_its_own_answer_and_a_failing_one_fails_alone() -> None:
    first, second, third = told([b"1-1", hiredis.ReplyError("WRONGTYPE no"), b"gone"], 3)
    assert (first, third) == (b"1-1", b"gone")
    assert isinstance(second, ResponseError)


@pytest.mark.parametrize(
    ("said", "meant"), [("OOM no memory", Unavailable), ("ERR broken", ResponseError)]
)
def test_if_the_whole_is_refused_all_are_told(said: str, meant: type[Exception]) -> None:
    assert [type(one) for one in told(hiredis.ReplyError(said), 3)] == [meant] * 3


def test_the_only_one_is_told_the_answer_as_it_is() -> None:
    assert told([b"a", b"list"], 1) == [[b"a", b"list"]]
