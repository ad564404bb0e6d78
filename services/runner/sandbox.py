"""How does a sandbox come, run calls and go? One container, its first process, and a driver.

The container's command is our init, which starts the image's own when it is told to. So a call
costs no container, only (format `default`) a process, or not even that.
"""

import asyncio
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from services.runner import containers, engine, metrics, namespaces, processes, protocol, runs
from services.runner.framing import formats
from services.runner.fresh import FreshProcesses
from services.runner.holders import Holders
from services.runner.hot import HotProcess, Unready
from services.runner.images import Images, PullFailed
from services.runner.link import Link, Listener
from services.runner.output import Bounds
from services.runner.pool import Kind
from services.runner.slots import Slots
from shared import clock, messages, tasks
from shared.streams import Backoff

log = structlog.get_logger()

#: How long a started container's first process may take to say hello, in seconds.
HELLO_S = 15.0
_LATE = f"a sandbox did not come up within {HELLO_S:g} s"
_NO_NETWORK = "the sandbox lost its network"
_SOCKET, _INIT = "socket", "init"
_REMOVAL_TRIES = 4
#: How long a sandbox that has run its one call is left alone, in seconds: removing it takes the
#: CPUs from those who hand on the answer.
_REST_S = 0.02


class Driver(Protocol):
    """Runs calls in a sandbox, in the way of a format."""

    async def open(self) -> None:
        """Return when calls can be run. Raises `Unready`."""

    def run(self, job: runs.Job, sink: runs.Sink) -> None:
        """Run a call; none is under way."""

    def ended(self, told: protocol.Ended) -> None:
        """Take the word that the process has ended."""

    def connected(self, error: int, fd: int | None) -> None:
        """Take the answer to `protocol.connect`."""

    def more(self, taken_bytes: int) -> None:
        """Take the word that a caller has taken so many bytes of a streamed answer, in all."""

    def abandon(self, ending: runs.Ending) -> bool:
        """End the call under way, because the sandbox ends; False if there is none."""

    def close(self) -> None:
        """Let go of everything; no call is under way."""


class Unopened(Exception):
    """A sandbox could not be opened."""

    def __init__(self, ending: runs.Ending, log: bytes = b"") -> None:
        """`ending` is what a call that waits for it ends with."""
        super().__init__(str(ending))
        self.ending, self.log = ending, log


class Sandbox:
    """One sandbox, from being opened to being removed.

    Invariant: it runs at most one call; once its link is closed it runs none.
    """

    def __init__(self, kind: Kind, folder: Path, useless: Callable[[], None]) -> None:
        """`useless` is called if, once it is open and with no call under way, it can run none."""
        self.kind, self.folder = kind, folder
        self.digest = ""
        #: Seconds that opening it took, without getting its image and waiting for its turn.
        self.start_s = 0.0
        self.container_id = ""
        self.namespace: namespaces.Namespace | None = None
        self._cut_off = False
        self._tell_useless = useless
        self._link: Link | None = None
        self._driver: Driver | None = None
        self._opened = False

    async def open(self, link: Link, bounds: Bounds) -> None:
        """Be ready for calls, by a link whose first frame has not been read. Raises `Unopened`."""
        self._link = link
        await _hello(link)
        self._driver = self._make_driver(link, bounds)
        link.listen(self._frame, self._lost)
        try:
            await self._driver.open()
        except Unready as error:
            raise Unopened(error.ending, error.log) from error
        if self._cut_off:
            raise engine.NotFound(_NO_NETWORK)
        self._opened = True

    def _make_driver(self, link: Link, bounds: Bounds) -> Driver:
        if self.kind.format == "default":
            return FreshProcesses(link, self.digest, bounds)
        framing = formats.of(self.kind.format)
        kind = self.kind
        own = framing.environment(kind.app, kind.path, kind.memory_mb)
        variables = {**kind.config_env, **own}
        return HotProcess(
            link,
            self.digest,
            bounds,
            framing=framing,
            variables=variables,
            useless=self._is_useless,
        )

    def run(self, job: runs.Job, sink: runs.Sink) -> None:
        """Run a call; `sink` is told what comes of it, perhaps at once."""
        if self._driver is None or self._link is None or not self._link.open:
            sink.refused()
            return
        try:
            self._driver.run(job, sink)
        except OSError as error:
            unstarted = processes.unstarted(error)
            if isinstance(unstarted, runs.Broken):
                log.exception("run_broken", call_id=job.head.call_id)
            sink.done(runs.Result(unstarted, digest=self.digest), reusable=False)

    def more(self, taken_bytes: int) -> None:
        """Let an answer go on, of which so many bytes were taken in all."""
        if self._driver is not None:
            self._driver.more(taken_bytes)

    def cut_off(self) -> None:
        """Take the word that the network is gone.

        A call under way fails for that: it is not to be told as the function's fault what it does
        without a network.
        """
        self._cut_off = True
        if self._opened and not self._end(runs.EngineFailed(_NO_NETWORK)):
            self._tell_useless()

    @property
    def rests(self) -> bool:
        """Whether removing it can wait a little: it was made for one call, and runs none."""
        return self.kind.once and self._opened and self._link is not None and self._link.open

    def reset(self) -> None:
        """Note that nothing is left of it, so that it may be opened once more."""
        self.container_id, self.namespace, self._cut_off = "", None, False

    def stop(self) -> None:
        """End the call under way and all processes, now; the container follows by itself."""
        self._end(runs.Stopped())

    def shut(self) -> None:
        """End all processes; whatever still runs has failed."""
        self._end(runs.EngineFailed("the sandbox was removed"))

    def _end(self, ending: runs.Ending) -> bool:
        """End everything; return whether a call was under way."""
        under_way = False
        if self._driver is not None:
            under_way = self._driver.abandon(ending)
            self._driver.close()
        if self._link is not None:
            self._link.close()
        return under_way

    def _frame(self, frame: protocol.Frame, fd: int | None) -> None:
        assert self._driver is not None  # noqa: S101 (listening began with it)
        if isinstance(frame, protocol.Ended):
            self._driver.ended(frame)
        elif isinstance(frame, protocol.Connected):
            self._driver.connected(frame.error, fd)

    def _lost(self) -> None:
        """Note that the first process is gone, and so everything in the sandbox."""
        assert self._driver is not None  # noqa: S101 (listening began with it)
        under_way = self._driver.abandon(runs.EngineFailed("the sandbox ended under the call"))
        self._driver.close()
        if not under_way:
            self._is_useless()

    def _is_useless(self) -> None:
        # Of one that is being opened, the error of that says so.
        if self._opened:
            self._tell_useless()


async def _hello(link: Link) -> None:
    """Wait until a sandbox's first process has said hello. Raises `Unopened`."""
    hello: asyncio.Future[protocol.Frame | None] = asyncio.get_running_loop().create_future()

    def greeted(frame: protocol.Frame | None) -> None:
        if not hello.done():
            hello.set_result(frame)

    link.listen(lambda frame, _: greeted(frame), lambda: greeted(None))
    try:
        async with asyncio.timeout(HELLO_S):
            frame = await hello
    except TimeoutError as error:
        raise Unopened(runs.EngineFailed(_LATE)) from error
    if not link.open:
        raise Unopened(runs.EngineFailed("the sandbox ended at its start"))
    if frame != protocol.Hello(protocol.VERSION):
        raise Unopened(runs.Broken(f"The sandbox's first frame is {frame}."))


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where runner and engine meet: one folder, as each of them calls it."""

    here: Path
    engine: Path

    def folder(self, sandbox_id: str) -> Path:
        """Return a sandbox's folder, as the runner calls it."""
        return self.here / sandbox_id

    def bind(self, sandbox_id: str) -> str:
        """Return what puts a sandbox's folder into its container, read-only."""
        return f"{self.engine / sandbox_id}:{containers.FOLDER}:ro"


class Sandboxes:
    """Opens and removes sandboxes."""

    def __init__(
        self,
        container_engine: engine.Engine,
        images: Images,
        network_holders: Holders,
        *,
        owner: containers.Owner,
        limits: containers.Limits,
        bounds: Bounds,
        places: Places,
        starts: int,
    ) -> None:
        """`starts` containers are made and started at one time; more would slow each other.

        Of those, a quarter may be for async calls: nobody waits for them, and starting is what
        takes the CPUs from those who accept calls and answer them.
        """
        self._engine, self._images, self._holders = container_engine, images, network_holders
        self._owner, self._limits, self._bounds = owner, limits, bounds
        self._places = places
        self._starts: dict[messages.Mode, Slots] = {"sync": Slots(starts)}
        self._starts["async"] = Slots(max(1, starts // 4), within=self._starts["sync"])

    async def open(
        self, sandbox_id: str, kind: Kind, mode: messages.Mode, useless: Callable[[], None]
    ) -> Sandbox:
        """Return a new sandbox, ready for calls. Raises `Unopened`; then nothing is left of it.

        `useless` is told as `Sandbox` says. A sandbox for a call of `mode` sync goes first.
        """
        sandbox = Sandbox(kind, self._places.folder(sandbox_id), useless)
        try:
            try:
                await self._open(sandbox, sandbox_id, mode)
            except engine.NotFound:
                # Somebody has removed the image or the namespace since we last saw it.
                await self.remove(sandbox)
                self._images.forget()
                await self._open(sandbox, sandbox_id, mode)
        except BaseException as error:
            await asyncio.shield(asyncio.create_task(self.remove(sandbox)))
            if isinstance(error, Exception):
                raise _unopened(kind.image, error) from error
            raise
        return sandbox

    async def remove(self, sandbox: Sandbox) -> None:
        """Remove a sandbox from the engine; the next sweep does what cannot be done now."""
        if sandbox.rests:
            await asyncio.sleep(_REST_S)
        sandbox.shut()
        clean = not sandbox.container_id or await self._removed(sandbox.container_id)
        if sandbox.namespace is not None:
            await self._holders.give_back(sandbox.namespace, sandbox.cut_off, clean=clean)
        sandbox.reset()
        await asyncio.to_thread(shutil.rmtree, sandbox.folder, ignore_errors=True)

    async def _open(self, sandbox: Sandbox, sandbox_id: str, mode: messages.Mode) -> None:
        image = await self._images.ensure(sandbox.kind.image)
        sandbox.digest = image.digest
        if not image.command:
            raise engine.ImageRefused("No command specified")
        slot = await self._starts[mode].acquire()
        begun_s = clock.monotonic_s()
        try:
            listener = await self._prepare(sandbox)
            try:
                kind = sandbox.kind
                sandbox.namespace = await self._holders.acquire(
                    kind.app, sandbox.cut_off, alone=kind.alone
                )
                config = containers.sandbox(
                    sandbox_id,
                    # The name may mean another image by now, with another command.
                    dataclasses.replace(kind, image=image.digest),
                    image.command,
                    sandbox.namespace,
                    self._places.bind(sandbox_id),
                    limits=self._limits,
                    owner=self._owner,
                )
                sandbox.container_id = await self._engine.create(config)
                link = await self._started(sandbox, sandbox.namespace, listener)
            finally:
                listener.close()
        finally:
            slot.release()
        await sandbox.open(link, self._bounds)
        sandbox.start_s = clock.monotonic_s() - begun_s

    async def _prepare(self, sandbox: Sandbox) -> Listener:
        """Make the folder in which the sandbox finds our init and the socket to us."""
        making = asyncio.create_task(asyncio.to_thread(self._make_folder, sandbox.folder))
        try:
            try:
                await asyncio.shield(making)
            finally:
                # If this is cancelled meanwhile: what comes to be must be there to be removed.
                await asyncio.wait({making})
            return Listener(sandbox.folder / _SOCKET)
        except OSError as error:
            raise Unopened(runs.Broken(f"The runner cannot use RUNNER_FOLDER: {error}")) from error

    def _make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        (folder / _INIT).hardlink_to(self._places.here / _INIT)

    async def _started(
        self, sandbox: Sandbox, namespace: namespaces.Namespace, listener: Listener
    ) -> Link:
        """Start the container; return the link by which its first process has come."""
        greeting = asyncio.create_task(listener.accept())
        try:
            try:
                await self._engine.start(sandbox.container_id)
            except engine.NotFound:
                await self._holders.lost(namespace)
                raise
            async with asyncio.timeout(HELLO_S):
                return await asyncio.shield(greeting)
        except BaseException as error:
            await tasks.end(greeting)
            if not greeting.cancelled():
                greeting.result().close()
            if isinstance(error, TimeoutError):
                raise engine.EngineError(_LATE) from error
            raise

    async def _removed(self, container_id: str) -> bool:
        backoff = Backoff(first_s=0.2)
        for left in reversed(range(_REMOVAL_TRIES)):
            try:
                await self._engine.remove(container_id)
            except engine.EngineError as error:
                log.warning("removal_failed", container=container_id, error=error.message)
                if left:
                    await backoff.wait()
            else:
                return True
        metrics.REMOVALS_FAILED.inc()
        return False


def _unopened(image: str, error: Exception) -> Unopened:
    """Return what keeps a sandbox from opening, in the words of endings."""
    match error:
        case Unopened():
            return error
        case PullFailed():
            return Unopened(runs.PullFailed(image, error.message, error.code))
        case engine.ImageRefused():
            return Unopened(runs.ImageUnusable(error.message))
        case engine.EngineAway():
            return Unopened(runs.EngineAway(error.message))
        case engine.EngineError():
            return Unopened(runs.EngineFailed(error.message))
        case _:
            log.error("sandbox_broken", image=image, exc_info=error)
            return Unopened(runs.Broken("The runner failed; its log has more."))
