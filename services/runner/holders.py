"""How do network namespaces come and go? The shell of `namespaces.Pool`: it makes and removes.

A namespace is kept by a container that runs the image of `pause`, on the functions' network. If
that ends, the engine takes the network away from all who have joined it: they are told.
"""

import asyncio
from collections.abc import Callable

import structlog

from services.runner import containers, metrics, namespaces, pause
from services.runner.engine import Engine, EngineAway, EngineError, NotFound
from services.runner.namespaces import Namespace
from shared import clock, tasks
from shared.streams import Backoff

log = structlog.get_logger()

#: How often spares are refilled and unused namespaces looked for, in seconds. Not at once: making
#: a spare would take the CPUs from the sandbox that took the last one.
TEND_S = 1.0

#: Told to a sandbox once if its network is gone.
CutOff = Callable[[], None]


class Holders:
    """Gives sandboxes their network namespaces. Owns the pool."""

    def __init__(
        self, engine: Engine, pool: namespaces.Pool, owner: containers.Owner, network: str
    ) -> None:
        """`network` is the name of the functions' network."""
        self._engine, self._pool, self._owner, self._network = engine, pool, owner, network
        self._network_id = ""
        #: App -> its namespace that is being made, for all of its sandboxes that wait for it.
        self._making: dict[str, asyncio.Task[None]] = {}
        #: Container -> who waits for its end, and who is to be told of it.
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._members: dict[str, set[CutOff]] = {}

    async def prepare(self) -> None:
        """Make the network and load the image, unless they are there."""
        config = containers.network(self._network, self._owner.platform)
        self._network_id = await self._engine.ensure_network(config)
        try:
            await self._engine.image(pause.NAME)
        except NotFound:
            info = await self._engine.info()
            if info.arch not in pause.architectures():
                raise EngineError(
                    f"The engine's architecture {info.arch} is not supported."
                ) from None
            await self._engine.load(pause.image(info.arch))

    async def acquire(self, app: str, cut_off: CutOff, *, alone: bool) -> Namespace:
        """Lend a namespace to a sandbox of an app; to be given back with the same `cut_off`.

        `alone`: no other sandbox is in it at the same time. Raises `EngineError`.
        """
        while (namespace := self._take(app, alone=alone)) is None:
            await (self._make_for(app, alone=True) if alone else self._made_once(app))
        self._members.setdefault(namespace.container_id, set()).add(cut_off)
        return namespace

    def _take(self, app: str, *, alone: bool) -> Namespace | None:
        if app in self._making and not alone:
            return None  # although there may be a spare by now: an app shares one
        return self._pool.take(app, alone=alone)

    async def give_back(self, namespace: Namespace, cut_off: CutOff, *, clean: bool) -> None:
        """Take back a namespace whose sandbox has been removed; `clean`: for certain."""
        self._members.get(namespace.container_id, set()).discard(cut_off)
        removed = self._pool.give_back(namespace, clock.monotonic_s(), clean=clean)
        await self._remove_all(removed)

    async def lost(self, namespace: Namespace) -> None:
        """Note that a namespace is not there any more, tell who is in it, and clear it away."""
        if namespace.container_id not in self._pool.known():
            return
        self._pool.lost(namespace)
        members = self._members.pop(namespace.container_id, set())
        log.warning("network_lost", container=namespace.container_id, sandboxes=len(members))
        metrics.NETWORKS_LOST.inc()
        for cut_off in members:
            cut_off()
        await self._remove_all([namespace])

    def known(self) -> set[str]:
        """Return the ids of the containers that keep namespaces."""
        return self._pool.known()

    async def tend(self) -> None:
        """Keep spares ready and remove what nobody uses, for ever."""
        backoff = Backoff(first_s=TEND_S, longest_s=10.0)
        while True:
            try:
                await self._remove_all(self._pool.expire(clock.monotonic_s()))
                while self._pool.spares_missing():
                    self._pool.add_spare(await self._make())
            except EngineError as error:
                log.warning("namespace_failed", error=error.message)
                await backoff.wait()
            else:
                backoff.reset()
                await asyncio.sleep(TEND_S)

    async def close(self) -> None:
        """Remove all namespaces in which no sandbox is; nobody asks for one any more."""
        await tasks.end(*self._making.values())
        await self.clear()

    async def clear(self) -> None:
        """Remove all namespaces in which no sandbox is."""
        await self._remove_all(self._pool.clear())

    async def _made_once(self, app: str) -> None:
        """Wait until the app's shared namespace is made, by whoever was the first to want it."""
        making = self._making.get(app)
        if making is None:
            making = self._making[app] = asyncio.create_task(
                self._make_for(app, alone=False), name=f"namespace of {app}"
            )
            making.add_done_callback(lambda done: self._made(app, done))
        await asyncio.shield(making)

    def _made(self, app: str, making: "asyncio.Task[None]") -> None:
        del self._making[app]
        if not making.cancelled():
            making.exception()  # has been told to who waited, if anyone still did

    async def _make_for(self, app: str, *, alone: bool) -> None:
        self._pool.keep(await self._make(), app, alone=alone, now_s=clock.monotonic_s())

    async def _make(self) -> Namespace:
        try:
            return await self._make_once()
        except NotFound:
            # Somebody has tidied up the engine: the network or the image is gone.
            await self.prepare()
            return await self._make_once()

    async def _make_once(self) -> Namespace:
        if not self._network_id:
            await self.prepare()
        config = containers.keeper(pause.NAME, self._network_id, self._owner)
        container_id = await self._engine.create(config)
        try:
            await self._engine.start(container_id)
            made = Namespace(container_id, await self._engine.namespace_binds(container_id))
        except BaseException:
            await self._remove_all([Namespace(container_id)])
            raise
        self._watches[container_id] = asyncio.create_task(
            self._watch(made), name=f"holder {container_id[:12]}"
        )
        return made

    async def _watch(self, namespace: Namespace) -> None:
        """Wait for the end of a holder."""
        backoff = Backoff()
        while True:
            try:
                await self._engine.ended(namespace.container_id)
            except EngineAway:
                # It may well live on while the engine's service is restarted.
                await backoff.wait()
            except EngineError as error:
                log.warning("holder_unwatched", error=error.message)
                await backoff.wait()
            else:
                break
        del self._watches[namespace.container_id]
        await self.lost(namespace)

    async def _remove_all(self, removed: list[Namespace]) -> None:
        for namespace in removed:
            self._members.pop(namespace.container_id, None)
            watch = self._watches.pop(namespace.container_id, None)
            if watch is not None:
                await tasks.end(watch)
            try:
                await self._engine.remove(namespace.container_id)
            except EngineError as error:
                # The sweep will find it: it is not in the pool any more.
                metrics.REMOVALS_FAILED.inc()
                log.warning("removal_failed", container=namespace.container_id, error=error.message)
