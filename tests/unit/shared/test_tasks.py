"""Do tasks end, even one that loses a cancellation?"""

import asyncio
from contextlib import suppress

from shared import service, tasks


async def deaf_once(begun: asyncio.Event) -> None:
    """Lose the first cancellation, as a library may."""
    begun.set()
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_lost_cancellation_is_repeated() -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(deaf_once(begun))
    await begun.wait()
    async with asyncio.timeout(5):
        await tasks.end(task)
    assert task.cancelled()


async def test_supervision_ends_with_its_block() -> None:
    begun = asyncio.Event()
    async with asyncio.timeout(5), service.supervised(deaf=deaf_once(begun)):
        await begun.wait()
