"""How is one process cut off from a data store? A relay on the way, which can stop relaying."""

import asyncio
from contextlib import suppress
from typing import Self

_CHUNK_BYTES = 64 * 1024


class Cable:
    """Relays TCP connections to a target, until it is cut. Use with `async with`."""

    def __init__(self, host: str, port: int, listen: str = "127.0.0.1") -> None:
        """`host` and `port` are the target's; `listen` is the address where it is to be reached."""
        self._target, self.host = (host, port), listen
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens, at `host`."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Let nothing through; who is connected hears nothing more, and is not told so."""
        self._whole.clear()

    def mend(self) -> None:
        """Let through what waits, and all that follows."""
        self._whole.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self.host, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            theirs, ours = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        pair = [
            asyncio.create_task(self._relay(reader, ours)),
            asyncio.create_task(self._relay(theirs, writer)),
        ]
        self._relays.update(pair)
        await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
        for relay in pair:
            relay.cancel()
        self._relays.difference_update(pair)
        ours.close()
        writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
