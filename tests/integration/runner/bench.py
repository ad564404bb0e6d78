"""How do tests run functions in sandboxes? On the real engine, as the runner's shell does."""

import asyncio
import dataclasses
import itertools
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiodocker
import msgspec

from services.runner import __main__ as process
from services.runner import containers, holders, images, namespaces, runs, sandbox
from services.runner.engine import Engine, Found
from services.runner.output import Bounds
from services.runner.pool import Kind
from shared import clock, ids, messages
from tests.integration.runner.functions import BUSYBOX, shell

DOCKER_HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
NETWORK = "millrace-test-functions"
#: Nothing here takes long; what takes this long hangs.
PATIENCE_S = 60.0

KIND = Kind(
    key="k",
    app="app",
    path="/p",
    image=BUSYBOX,
    memory_mb=64,
    cpus=1.0,
    format="default",
    isolation="sandbox",
)
HEAD = messages.CallHead(
    call_id="",
    mode="sync",
    app="app",
    path="/p",
    image=BUSYBOX,
    memory_mb=64,
    cpus=1.0,
    accepted_ms=0,
    wait_until_ms=0,
    deadline_ms=0,
    reply_to="api-1",
    timeout_ms=30_000,
)
PARCEL = messages.Parcel({}, {}, b"")


def head(**changes: Any) -> messages.CallHead:
    """Return a new call."""
    given = {"call_id": ids.new_call_id(), "accepted_ms": clock.epoch_ms(), **changes}
    return msgspec.structs.replace(HEAD, **given)


class Caller:
    """Who waits for one run, and keeps all that is told of it. A `runs.Sink`."""

    def __init__(self, *, streams: bool = False) -> None:
        """`streams`: the answer may come in parts."""
        self.streams = streams
        self.status: int | None = None
        self.headers: runs.Headers = ()
        self.parts: list[bytes] = []
        self.was_refused = False
        self.reusable = False
        self._result: asyncio.Future[runs.Result] = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    def head(self, status: int, headers: runs.Headers) -> None:
        assert self.status is None
        self.status, self.headers = status, headers
        self._changed.set()

    def data(self, data: bytes) -> None:
        assert self.status is not None
        assert data
        self.parts.append(data)
        self._changed.set()

    def done(self, result: runs.Result, *, reusable: bool) -> None:
        self.reusable = reusable
        self._result.set_result(result)

    def refused(self) -> None:
        assert not self.parts
        self.was_refused = True
        self._result.set_result(runs.Result(runs.Broken("refused")))

    @property
    def body(self) -> bytes:
        """What has come in parts by now."""
        return b"".join(self.parts)

    async def received(self, size: int) -> None:
        """Wait until so many bytes have come in parts."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.body) < size:
                self._changed.clear()
                await self._changed.wait()

    @property
    def over(self) -> bool:
        return self._result.done()

    async def result(self) -> runs.Result:
        """Return what came of the run; raises TimeoutError if nothing does."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self._result)


@dataclass
class Box:
    """A sandbox, and what was told of it."""

    sandbox: sandbox.Sandbox
    #: Set when it has said that it is of no use.
    useless: asyncio.Event
    #: Set by tests when its last call was such that it may not be used again.
    spoiled: bool = False

    def begin(
        self,
        payload: bytes = b"",
        *,
        env: dict[str, str] | None = None,
        config: dict[str, str] | None = None,
        method: str = "POST",
        url: str = "http://host/r/app/p",
        headers: runs.Headers = (),
        streams: bool = False,
        **changes: Any,
    ) -> Caller:
        """Give it a call; return who waits for it."""
        caller = Caller(streams=streams)
        parcel = messages.Parcel(
            env or {}, config or {}, payload, method=method, url=url, headers=headers
        )
        called = head(**changes)
        ends_ms = clock.epoch_ms() + called.timeout_ms
        self.sandbox.run(runs.Job(called, parcel, clock.monotonic_s(), ends_ms), caller)
        return caller

    async def call(self, payload: bytes = b"", **changes: Any) -> Caller:
        """Give it a call and wait for the end of it."""
        caller = self.begin(payload, **changes)
        await caller.result()
        return caller

    async def answer(self, payload: bytes = b"", **changes: Any) -> bytes:
        """Return the answer to a call, after which another may follow."""
        caller = await self.call(payload, **changes)
        result = await caller.result()
        assert isinstance(result.ending, runs.Answered | runs.Exited), result
        assert caller.reusable
        return caller.body if caller.streams and caller.parts else result.body

    async def becomes_useless(self) -> None:
        """Wait until it has said that it is of no use."""
        async with asyncio.timeout(PATIENCE_S):
            await self.useless.wait()


@dataclass
class Bench:
    """Sandboxes on the real engine, under a platform's name of their own."""

    engine: Engine
    docker: aiodocker.Docker
    owner: containers.Owner
    images: images.Images
    holders: holders.Holders
    sandboxes: sandbox.Sandboxes
    places: sandbox.Places
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _open: list[sandbox.Sandbox] = field(default_factory=list)

    async def open(self, image: str, **changes: Any) -> Box:
        """Open a sandbox; it is removed with the bench, if not before. Raises `Unopened`."""
        useless = asyncio.Event()
        kind = dataclasses.replace(KIND, image=image, **changes)
        opened = await self.sandboxes.open(f"{next(self._numbers)}", kind, "sync", useless.set)
        self._open.append(opened)
        return Box(opened, useless)

    async def remove(self, box: Box) -> None:
        self._open.remove(box.sandbox)
        await self.sandboxes.remove(box.sandbox)

    @asynccontextmanager
    async def opened(self, image: str, **changes: Any) -> AsyncIterator[Box]:
        """Give a sandbox, and remove it at the end."""
        box = await self.open(image, **changes)
        yield box
        await self.remove(box)

    async def run(self, script: str, payload: bytes = b"", **changes: Any) -> runs.Result:
        """Run a shell script as a function, in a sandbox of its own that is gone then."""
        return await self.run_image(await shell(self.docker, script), payload, **changes)

    async def run_image(
        self,
        image: str,
        payload: bytes = b"",
        *,
        env: dict[str, str] | None = None,
        config: dict[str, str] | None = None,
        **changes: Any,
    ) -> runs.Result:
        """Run an image as a function, in a sandbox of its own that is gone then."""
        try:
            box = await self.open(image, **changes)
        except sandbox.Unopened as error:
            return runs.Result(error.ending, log=error.log)
        caller = await box.call(payload, env=env, config=config)
        await self.remove(box)
        return await caller.result()

    async def close(self) -> None:
        """Remove what is still open."""
        await asyncio.gather(*(self.sandboxes.remove(opened) for opened in self._open))
        self._open.clear()

    async def containers(self) -> list[Found]:
        """Return what there is of sandboxes in the engine."""
        found = await self.engine.labelled(self.owner.platform)
        return [container for container in found if container.sandbox_id]


@asynccontextmanager
async def bench_of(
    docker: aiodocker.Docker, container_engine: Engine, places: sandbox.Places
) -> AsyncIterator[Bench]:
    """Give a bench, as a runner's process builds one; check that nothing is left of it."""
    owner = containers.Owner(f"test-{secrets.token_hex(4)}", f"runner-{secrets.token_hex(4)}")
    known_images = images.Images(container_engine, [], tries=2, timeout_s=60, check_s=0)
    pool = namespaces.Pool(spares_wanted=0, idle_max=8, idle_max_s=60)
    network_holders = holders.Holders(container_engine, pool, owner, NETWORK)
    sandboxes = sandbox.Sandboxes(
        container_engine,
        known_images,
        network_holders,
        owner=owner,
        limits=containers.Limits(pids=64, files=1024, file_max_mb=16, disk_mb=0),
        bounds=Bounds(response=2 * 1024 * 1024, log=64 * 1024, stream=8 * 1024 * 1024),
        places=places,
        starts=4,
    )
    await network_holders.prepare()
    made = Bench(container_engine, docker, owner, known_images, network_holders, sandboxes, places)
    yield made
    await made.close()
    await known_images.close()
    await network_holders.close()
    await process.remove_own(container_engine, owner)
    assert os.listdir(places.here) == ["init"]
    assert await container_engine.labelled(owner.platform) == []
