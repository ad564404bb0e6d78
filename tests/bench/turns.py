"""How do two ways to run a function compare?

They take turns, so that whatever else the machine does meets both.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field

import aiohttp

from shared import clock
from tests.bench.figures import Checked, Figures, figures
from tests.e2e.client import Client

#: Runs a function on this input; returns its output. Raises `CallFailed`.
Run = Callable[[bytes], Awaitable[bytes]]


class CallFailed(Exception):
    """The function was not run, or not to a good end."""


@dataclass
class Side:
    """One way to run a function, and what it took in all its turns."""

    samples_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    checked: Checked = field(default_factory=Checked)

    async def turn(self, run: Run, callers: int, numbers: Iterable[object]) -> None:
        """Make a call for each of the numbers, from several callers at once.

        Each has an input of its own, made of its number, and must return it.
        """
        left = iter(numbers)

        async def caller() -> None:
            for number in left:
                await self._call(run, f"call {number}".encode())

        started_s = clock.monotonic_s()
        await asyncio.gather(*(caller() for _ in range(callers)))
        self.wall_s += clock.monotonic_s() - started_s

    async def _call(self, run: Run, body: bytes) -> None:
        started_s = clock.monotonic_s()
        try:
            answer = await run(body)
        except (CallFailed, aiohttp.ClientError, TimeoutError) as error:
            self.checked += Checked(1, failed=1, example=repr(error))
            return
        if answer != body:
            self.checked += Checked(1, wrong=1, example=f"asked {body!r}, got {answer[:200]!r}")
            return
        self.checked += Checked(1)
        self.samples_ms.append((clock.monotonic_s() - started_s) * 1000)

    def figures(self) -> Figures:
        """Return what all turns took. Raises `ValueError` if no call went well."""
        if not self.samples_ms and self.checked.bad:
            raise ValueError(f"no call went well: {self.checked.example}")
        return figures(self.samples_ms, self.wall_s)


def for_seconds(seconds: float) -> Iterator[int]:
    """Give numbers for so long."""
    until_s = clock.monotonic_s() + seconds
    return itertools.takewhile(lambda _: clock.monotonic_s() < until_s, itertools.count())


def by_platform(client: Client, paths: Iterable[str]) -> Run:
    """Return a way to run a function: a call over HTTP, each of the next path."""
    left = iter(paths)

    async def run(body: bytes) -> bytes:
        answer = await client.post(next(left), data=body)
        if answer.status != 200:
            raise CallFailed(f"{answer.status} {answer.body[:200]!r}")
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
        if process.returncode:
            raise CallFailed(f"docker run ended with {process.returncode}")
        return output

    return run
