"""What does a cold call cost, beside `docker run` of the same image?

Both sides take turns, round by round, so that whatever else the machine does meets both.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shared import clock
from tests.bench.report import Figures, Pair, figures
from tests.e2e.client import Client

ROUNDS = 4
#: Callers at once, and the calls they make in one round.
LOADS = {1: 10, 4: 16, 16: 32}

#: Runs a function on this input; returns its output.
Run = Callable[[bytes], Awaitable[bytes]]
Progress = Callable[[str], None]


@dataclass
class Side:
    """One way to run a function, and what it took so far."""

    run: Run
    samples_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0

    async def round(self, callers: int, calls: int) -> None:
        """Make calls from several callers at once, each with an input of its own."""
        numbers = iter(range(calls))

        async def caller() -> None:
            for number in numbers:
                body = b"call %d" % number
                started_s = clock.monotonic_s()
                answer = await self.run(body)
                self.samples_ms.append((clock.monotonic_s() - started_s) * 1000)
                if answer != body:
                    raise RuntimeError(f"asked {body!r}, got {answer!r}")

        started_s = clock.monotonic_s()
        await asyncio.gather(*(caller() for _ in range(callers)))
        self.wall_s += clock.monotonic_s() - started_s

    def figures(self) -> Figures:
        """Return what all rounds took."""
        return figures(self.samples_ms, self.wall_s)


def by_platform(client: Client, path: str) -> Run:
    """Return a way to run a function: a call over HTTP."""

    async def run(body: bytes) -> bytes:
        answer = await client.post(path, data=body)
        if answer.status != 200:
            raise RuntimeError(f"{path} answers {answer.status}: {answer.text}")
        return answer.body

    return run


def by_docker_run(image: str) -> Run:
    """Return a way to run a function: the engine's own command."""

    async def run(body: bytes) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *("docker", "run", "--rm", "-i", image),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate(body)
        return output

    return run


async def measure(client: Client, path: str, image: str, tell: Progress) -> list[Pair]:
    """Return both sides' figures at each load."""
    pairs = []
    for callers, calls in LOADS.items():
        sides = Side(by_platform(client, path)), Side(by_docker_run(image))
        for turn in range(ROUNDS):
            for side in sides:
                await side.round(callers, calls)
            tell(f"cold calls, {callers} callers: round {turn + 1} of {ROUNDS}")
        pairs.append(Pair(callers, *(side.figures() for side in sides)))
    return pairs
