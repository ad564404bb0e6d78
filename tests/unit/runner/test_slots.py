"""Who may start a container now?"""

import asyncio

from services.runner.slots import Slots


async def waits(slots: Slots) -> bool:
    """Ask for a slot, and tell whether there was none."""
    try:
        async with asyncio.timeout(0.05):
            await slots.acquire()
    except TimeoutError:
        return True
    return False


async def test_so_many_start_at_one_time() -> None:
    slots = Slots(2)
    first = await slots.acquire()
    await slots.acquire()
    assert await waits(slots)
    first.release()
    assert not await waits(slots)


async def test_the_inner_ones_leave_room_in_the_outer() -> None:
    outer = Slots(2)
    inner = Slots(1, within=outer)
    await inner.acquire()
    assert await waits(inner)
    await outer.acquire()
    assert await waits(outer)


async def test_an_inner_slot_gives_both_back_once() -> None:
    outer = Slots(1)
    inner = Slots(1, within=outer)
    slot = await inner.acquire()
    slot.release()
    slot.release()
    await outer.acquire()
    assert await waits(outer)


async def test_who_stops_waiting_leaves_nothing_taken() -> None:
    outer = Slots(1)
    inner = Slots(1, within=outer)
    held = await outer.acquire()
    assert await waits(inner)
    held.release()
    assert not await waits(inner)
