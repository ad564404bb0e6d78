"""How do many async calls get in, and out again? For tests and benchmarks alike."""

import asyncio

from tests.e2e.client import Client

#: Callers at once.
CALLERS = 32


async def metric(client: Client, name: str) -> float:
    """Return a metric without labels of one service's process."""
    lines = (await client.get("/metrics")).text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


async def resident_bytes(client: Client) -> float:
    """Return the resident memory of one service's process."""
    return await metric(client, "process_resident_memory_bytes")


async def accept(client: Client, path: str, count: int) -> list[str]:
    """Make async calls from several callers at once; return their ids."""
    found: list[str] = []
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            answer = await client.post(path, data=b"%d" % number)
            assert answer.status == 202, answer.text
            found.append(answer.json()["call_id"])

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return found


async def work_off(client: Client, app: str, count: int) -> list[str]:
    """Take and acknowledge up to `count` waiting calls, as outside workers do; return their ids.

    Ends early when nothing waits. A task of another app is left to return by itself.
    """
    found: list[str] = []
    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            task = (await client.get("/tasks")).json()
            if task is None:
                return
            if task["app_name"] == app:
                answer = await client.delete("/tasks", json=task)
                assert answer.status == 202, answer.text
                found.append(task["id"])

    await asyncio.gather(*(worker() for _ in range(CALLERS)))
    return found
