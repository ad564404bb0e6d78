"""Which Redis is the master now? Asks sentinels; and leaves one that is not, or not yet.

A connection made here asks before it connects, and asks the server for its role before it is used.
While it is used, the sentinels are asked now and then whether its server is still the master: one
that was cut off from them goes on believing it, and what it is told then is lost.

Of what several sentinels say, the latest counts: the one with the highest `config-epoch`, which
each fail-over raises. Most of them agree within a second or two after one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import redis.asyncio as redis_asyncio
from redis import exceptions

from shared.urls import Address, Sentinels

#: Longest that a sentinel is waited for, in seconds.
ASK_S = 1.0
#: How often, at most, it is looked whether the master has changed, in seconds.
LOOK_S = 2.0
_MASTER = b"master"


class NoMaster(exceptions.ConnectionError):
    """No sentinel says where the master is."""


class Said(NamedTuple):
    """Where the master is, as one sentinel says it."""

    epoch: int
    address: Address


def agreed(said: Iterable[Said], sentinels: int) -> Said | None:
    """Return what most of so many sentinels say in one voice; None if they do not.

    >>> here, there = Said(1, Address("a", 1)), Said(2, Address("b", 1))
    >>> agreed([here, there], 3), agreed([here, there, there], 3).address.host
    (None, 'b')
    """
    for voice, count in Counter(said).items():
        if 2 * count > sentinels:
            return voice
    return None


class Masters:
    """Knows where the master is. One for each client; all its connections share what is found."""

    def __init__(self, where: Sentinels) -> None:
        """Ask these sentinels; nothing is connected before it is needed."""
        self._where = where
        self._looking: asyncio.Task[Address] | None = None
        self._looked_s = 0.0
        #: What most sentinels said when last asked; None: they did not agree, or did not answer.
        self._sure: Address | None = None

    async def find(self) -> Address:
        """Return where the master is. Raises `NoMaster`, which says what each sentinel said."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="find-master")
        return await asyncio.shield(self._looking)

    def moved_from(self, address: Address) -> bool:
        """Say whether the master is elsewhere now, as most sentinels see it.

        Never waits: what is said may be `LOOK_S` old.
        """
        loop = asyncio.get_running_loop()
        if self._looking is None and loop.time() - self._looked_s > LOOK_S:
            self._looking = loop.create_task(self._look(), name="find-master")
            self._looking.add_done_callback(_look_at)
        return self._sure is not None and self._sure != address

    async def _look(self) -> Address:
        asked = {
            asyncio.create_task(self._ask(sentinel), name="ask-sentinel"): sentinel
            for sentinel in self._where.sentinels
        }
        try:
            return await self._heard(asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            self._looking = None
            self._looked_s = asyncio.get_running_loop().time()

    async def _heard(self, asked: "dict[asyncio.Task[Said], Address]") -> Address:
        """Return where the master is, as soon as most say the same; else whoever knows best."""
        said: list[Said] = []
        wrong: list[str] = []
        waiting = set(asked)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    said.append(task.result())
                else:
                    wrong.append(f"{asked[task]}: {error or type(error).__name__}")
            if voice := agreed(said, len(asked)):
                self._sure = voice.address
                return voice.address
        self._sure = None
        if not said:
            raise NoMaster(f"no sentinel knows the master: {'; '.join(sorted(wrong))}")
        return max(said).address

    async def _ask(self, sentinel: Address) -> Said:
        where = self._where
        connection = redis_asyncio.Connection(
            host=sentinel.host,
            port=sentinel.port,
            username=where.sentinel_username or None,
            password=where.sentinel_password or None,
            protocol=2,
            socket_connect_timeout=ASK_S,
            socket_timeout=ASK_S,
            driver_info=None,
        )
        try:
            async with asyncio.timeout(ASK_S):
                await connection.connect()  # type: ignore[no-untyped-call]
                return await _said(connection, where.master)
        except TimeoutError:
            raise NoMaster(f"no answer within {ASK_S:g} s") from None
        finally:
            await connection.disconnect(nowait=True)


async def _said(connection: redis_asyncio.Connection, master: str) -> Said:
    # While a fail-over is going on, only the first has the new address already.
    for question in ("GET-MASTER-ADDR-BY-NAME", "MASTER"):
        await connection.send_command("SENTINEL", question, master)
        if question == "MASTER":
            flat: Any = await connection.read_response()
        else:
            address: Any = await connection.read_response()
            if address is None:
                raise NoMaster(f"it knows no master named {master!r}")
    state = dict(zip(flat[::2], flat[1::2], strict=True))
    host, port = address
    return Said(int(state[b"config-epoch"]), Address(host.decode(), int(port)))


def _look_at(task: "asyncio.Task[Address]") -> None:
    """Take note of an error that nobody waits for."""
    if not task.cancelled():
        task.exception()


class Leaving(redis_asyncio.Connection):
    """A connection that is left when its server turns out to be no master, or not yet one."""

    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 (as Redis says)
        """Return an answer; leave a server that refuses it because it is no master."""
        try:
            return await super().read_response(*args, **options)
        except (exceptions.ReadOnlyError, exceptions.MasterDownError) as error:
            await self.disconnect(nowait=True)
            raise exceptions.ConnectionError(str(error)) from error


class LeavingTls(Leaving, redis_asyncio.SSLConnection):
    """The same over TLS."""


class MasterConnection(Leaving):
    """A connection to whichever server is the master."""

    def __init__(self, *, masters: Masters, **options: Any) -> None:  # noqa: ANN401 (the client's)
        """Ask `masters` at each connect; `options` are the client's own."""
        super().__init__(**options)
        self._masters = masters

    def deposed(self) -> bool:
        """Say whether the server it is connected to is the master no more."""
        return self._masters.moved_from(Address(self.host, int(self.port)))

    async def connect(self) -> None:
        """Connect, also if it is connected to a former master."""
        if self.is_connected and self.deposed():
            await self.disconnect(nowait=True)
        await super().connect()  # type: ignore[no-untyped-call]

    async def _connect(self) -> None:
        self.host, self.port = await self._masters.find()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 (the client's)
        """Greet the server, and see that it is a master: what a sentinel says may be old."""
        await super().on_connect_check_health(check_health)
        await self.send_command("ROLE", check_health=False)
        try:
            role = (await self.read_response())[0]
        except exceptions.NoPermissionError:
            return  # It may still say READONLY, and is left then.
        if role != _MASTER:
            raise exceptions.ConnectionError(
                f"{self.host}:{self.port} is no master but a {role.decode()}"
            )
