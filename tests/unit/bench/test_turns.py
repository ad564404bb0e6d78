"""Does a side count what went wrong, whoever called?"""

import asyncio

import pytest

from tests.bench import turns
from tests.bench.figures import Checked


async def echo(body: bytes) -> bytes:
    await asyncio.sleep(0)
    return body


async def swapped(body: bytes) -> bytes:
    return b"call 1" if body == b"call 0" else body


async def failing(body: bytes) -> bytes:
    if body == b"call 1":
        raise turns.CallFailed("500 oops")
    return body


async def test_each_number_is_called_once_by_one_of_the_callers() -> None:
    called: list[bytes] = []

    async def run(body: bytes) -> bytes:
        called.append(body)
        return await echo(body)

    side = turns.Side()
    await side.turn(run, 3, range(7))
    assert sorted(called) == [b"call %d" % number for number in range(7)]
    assert side.checked == Checked(7)
    assert side.figures().calls == 7


async def test_turns_add_up() -> None:
    side = turns.Side()
    await side.turn(echo, 2, range(3))
    await side.turn(echo, 1, range(2))
    assert side.figures().calls == 5


async def test_an_answer_to_another_call_is_wrong() -> None:
    side = turns.Side()
    await side.turn(swapped, 1, range(3))
    assert (side.checked.calls, side.checked.wrong) == (3, 1)
    assert side.checked.example == "asked b'call 0', got b'call 1'"
    assert side.figures().calls == 2


async def test_a_failed_call_is_counted_and_not_measured() -> None:
    side = turns.Side()
    await side.turn(failing, 2, range(3))
    assert (side.checked.calls, side.checked.failed) == (3, 1)
    assert "500 oops" in side.checked.example
    assert side.figures().calls == 2


async def test_a_side_whose_calls_all_failed_says_how() -> None:
    side = turns.Side()
    await side.turn(failing, 1, [1])
    with pytest.raises(ValueError, match=r"no call went well: .*500 oops"):
        side.figures()
