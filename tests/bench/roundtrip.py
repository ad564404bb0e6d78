"""What does a bare round trip to the platform's Redis cost? The floor under every call.

Through the client library that the services use, from outside the containers.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from shared import clock, streams
from tests.bench import engine
from tests.bench.bench import Bench
from tests.bench.figures import Figures, Result, Value, figures

TIMES = 3_000
PORT = 6379


class Hop:
    """Sends entries through a stream of its own to one who waits for them."""

    def __init__(self, writer: streams.Redis, reader: streams.Redis) -> None:
        self._writer, self._reader = writer, reader
        self._key = f"{{bench}}:{secrets.token_hex(8)}"
        self._last = b"0"

    async def once(self) -> None:
        """Return when the reader has the next entry."""
        found: Any
        found, _ = await asyncio.gather(
            self._reader.xread({self._key: self._last}, count=1, block=streams.BLOCK_MS),
            self._writer.xadd(self._key, {"m": b"x" * 64}, maxlen=1),
        )
        _, entries = found[0]
        self._last, _ = entries[-1]

    async def remove(self) -> None:
        """Remove the stream."""
        await self._writer.delete(self._key)


async def measure(bench: Bench) -> Result:
    """Measure a PING, and an entry's way to one who waits for it, one after the other."""
    host, *_ = await engine.addresses("redis")
    writer, reader = (streams.connect(f"redis://{host}:{PORT}") for _ in range(2))
    async with writer, reader:
        hop = Hop(writer, reader)
        try:
            ping = await _timed(writer.ping)
            bench.tell("Redis: PING measured")
            through = await _timed(hop.once)
        finally:
            await hop.remove()
    return Result(yardsticks={"Redis, PING": _told(ping), "Redis, XADD to XREAD": _told(through)})


async def _timed(once: Callable[[], Awaitable[object]]) -> Figures:
    samples_ms = []
    began_s = clock.monotonic_s()
    for _ in range(TIMES):
        started_s = clock.monotonic_s()
        await once()
        samples_ms.append((clock.monotonic_s() - started_s) * 1000)
    return figures(samples_ms, clock.monotonic_s() - began_s)


def _told(found: Figures) -> tuple[Value, ...]:
    return Value("p50", found.p50_ms, "ms"), Value("p99", found.p99_ms, "ms")
