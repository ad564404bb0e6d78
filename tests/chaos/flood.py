"""Who calls without regard for answers? A process: `python -m tests.chaos.flood URL ...`.

So many calls a second (open loop: the next comes whether or not the last was answered), or so many
callers, each of whom calls again when answered (closed loop). Every so-many-th call brings a new
connection. Prints what became of each as JSON, and its own costs.
"""

import argparse
import asyncio
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from shared import clock

#: Calls under way at one time; beyond, one that is due is not made, and counted.
UNDER_WAY_MAX = 4_000
_PATIENCE_S = 60.0


class Call(msgspec.Struct, array_like=True, frozen=True):
    """One call: when it was made after the start, how long it took, and its answer's status."""

    at_s: float
    took_s: float
    #: 0: no answer.
    status: int
    #: The error's word; or what broke the connection.
    code: str = ""
    retry_after_s: int | None = None


class Told(msgspec.Struct):
    """What came of a flood."""

    calls: list[Call]
    #: Due and not made, because so many were under way.
    unmade: int
    #: Of a CPU, for the load itself, in seconds; and how long it all lasted.
    cpu_s: float
    took_s: float


class Flood:
    """Calls one address."""

    def __init__(
        self, url: str, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession, every: int
    ) -> None:
        """Every so-many-th call goes through `fresh`; 0: none."""
        self._url, self._kept, self._fresh, self._every = url, kept, fresh, every
        self.calls: list[Call] = []
        self.unmade = 0
        self._began_s = clock.monotonic_s()
        self._made = 0

    async def once(self) -> None:
        """Make one call, and note what becomes of it."""
        self._made += 1
        fresh = self._every and self._made % self._every == 0
        session = self._fresh if fresh else self._kept
        began_s = clock.monotonic_s()
        status, code, after_s = 0, "", None
        try:
            async with session.post(self._url, data=b"%d" % self._made) as answer:
                body = await answer.read()
                status = answer.status
                if status >= 400:
                    code = str(msgspec.json.decode(body)["error"]["code"])
                    after = answer.headers.get("Retry-After")
                    after_s = int(after) if after else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            code = repr(error)[:80]
        now_s = clock.monotonic_s()
        at_s = began_s - self._began_s
        self.calls.append(Call(round(at_s, 4), round(now_s - began_s, 5), status, code, after_s))

    async def open(self, per_s: float, lasting_s: float) -> None:
        """Make so many calls a second."""
        under_way: set[asyncio.Task[None]] = set()
        made = 0
        while (passed_s := clock.monotonic_s() - self._began_s) < lasting_s:
            while made < passed_s * per_s:
                made += 1
                if len(under_way) >= UNDER_WAY_MAX:
                    self.unmade += 1
                    continue
                call = asyncio.create_task(self.once())
                under_way.add(call)
                call.add_done_callback(under_way.discard)
            await asyncio.sleep(0.002)
        await asyncio.gather(*under_way)

    async def closed(self, callers: int, lasting_s: float) -> None:
        """Let so many callers call."""

        async def caller() -> None:
            while clock.monotonic_s() - self._began_s < lasting_s:
                await self.once()

        await asyncio.gather(*(caller() for _ in range(callers)))


@asynccontextmanager
async def _session(*, fresh: bool) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=fresh)
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


async def _main(asked: argparse.Namespace) -> Told:
    began_s = clock.monotonic_s()
    async with _session(fresh=False) as kept, _session(fresh=True) as fresh:
        flood = Flood(asked.url, kept, fresh, asked.fresh_every)
        if asked.callers:
            await flood.closed(asked.callers, asked.seconds)
        else:
            await flood.open(asked.rate, asked.seconds)
    used = resource.getrusage(resource.RUSAGE_SELF)
    took_s = clock.monotonic_s() - began_s
    return Told(flood.calls, flood.unmade, used.ru_utime + used.ru_stime, took_s)


async def run(url: str, seconds: float, *, rate: float = 0, callers: int = 0) -> Told:
    """Call from a process of its own; see this module."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.flood", url, f"--seconds={seconds}"),
        *(f"--rate={rate}", f"--callers={callers}"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return msgspec.json.decode(said, type=Told)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.flood")
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second (100)")
    parser.add_argument("--callers", type=int, default=0, help="or: callers, who wait for answers")
    parser.add_argument("--fresh-every", type=int, default=5, help="one in so many connects (5)")
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_main(parser.parse_args()))))


if __name__ == "__main__":
    main()
