"""How are tasks ended for sure? Asking once is not enough."""

import asyncio
from typing import Any

#: How long a task may take to end before it is asked again, in seconds.
ASK_AGAIN_S = 0.5


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they have ended; their errors stay with them.

    A task is asked again and again: before Python 3.12 a cancellation that arrives just as
    `asyncio.wait_for` is done gets lost there, and the Redis client uses it.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ASK_AGAIN_S)
