"""How do network namespaces come and go? The shell of `namespaces.Pool`: it makes and removes.

A namespace is kept by a container that runs the image of `pause`, on the functions' network.
"""

import asyncio

import structlog

from services.runner import containers, metrics, namespaces, pause
from services.runner.engine import Engine, EngineError, NotFound
from services.runner.namespaces import Namespace
from shared import clock
from shared.streams import Backoff

log = structlog.get_logger()

#: How often spares are refilled and unused namespaces looked for without being asked, in seconds.
TEND_S = 5.0


class Holders:
    """Gives calls their network namespaces. Owns the pool."""

    def __init__(
        self, engine: Engine, pool: namespaces.Pool, owner: containers.Owner, network: str
    ) -> None:
        """`network` is the name of the functions' network."""
        self._engine, self._pool, self._owner, self._network = engine, pool, owner, network
        self._network_id = ""
        self._wanted = asyncio.Event()

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

    async def acquire(self, app: str) -> Namespace:
        """Lend a namespace to a call of an app; to be given back, or discarded if it is of no use.

        Raises `EngineError`.
        """
        namespace = self._pool.take(app)
        self._wanted.set()
        return namespace or self._pool.lend(await self._make(), app)

    async def give_back(self, namespace: Namespace) -> None:
        """Take back a namespace whose sandbox has been removed."""
        await self._remove_all(self._pool.give_back(namespace, clock.monotonic_s()))

    async def discard(self, namespace: Namespace) -> None:
        """Take back a namespace that is not to be used again."""
        self._pool.forget(namespace)
        await self._remove_all([namespace])

    def known(self) -> set[str]:
        """Return the ids of the containers that keep namespaces."""
        return self._pool.known()

    async def tend(self) -> None:
        """Keep spares ready and remove what nobody uses, for ever."""
        backoff = Backoff(first_s=1.0, longest_s=10.0)
        while True:
            try:
                await self._remove_all(self._pool.expire(clock.monotonic_s()))
                while self._pool.spares_missing():
                    self._pool.add_spare(await self._make())
            except EngineError as error:
                log.warning("namespace_failed", error=error.message)
                await backoff.wait()
                continue
            backoff.reset()
            self._wanted.clear()
            try:
                async with asyncio.timeout(TEND_S):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Remove all namespaces that are not lent."""
        await self._remove_all(self._pool.clear())

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
            return Namespace(container_id, await self._engine.namespace_binds(container_id))
        except BaseException:
            await self._remove_all([Namespace(container_id)])
            raise

    async def _remove_all(self, removed: list[Namespace]) -> None:
        for namespace in removed:
            try:
                await self._engine.remove(namespace.container_id)
            except EngineError as error:
                # The sweep will find it: it is not in the pool any more.
                metrics.REMOVALS_FAILED.inc()
                log.warning("removal_failed", container=namespace.container_id, error=error.message)
