"""How is one call run? In a fresh container, in a network namespace that no other call is in.

`Sandboxes` is what `service` knows; whatever runs calls in another way stands behind the same
interface.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from services.runner import containers, engine, environment, holders, images, metrics, runs
from services.runner.logbuffer import LogBuffer
from services.runner.namespaces import Namespace
from services.runner.slots import Slots
from shared import clock, messages
from shared.streams import Backoff

log = structlog.get_logger()

T = TypeVar("T")

#: How long a stopped run may take to come to rest before its result is given without, in seconds.
STOP_GRACE_S = 0.1
#: The kernel's word about memory can reach the engine after the exit does: when to look, seconds.
_OOM_LOOKS_S = (0.0, 0.05, 0.15, 0.3, 0.5, 1.0)
_SIGKILL_CODE = 137
#: A long run's memory is looked at after these many seconds, doubling up to the second number.
_SAMPLE_FIRST_S, _SAMPLE_LONGEST_S = 1.0, 8.0
_REMOVAL_TRIES = 4


class Sandboxes(Protocol):
    """Runs calls."""

    def run(
        self, job: runs.Job, started: Callable[[], None], stop: asyncio.Event
    ) -> AbstractAsyncContextManager[runs.Result]:
        """Run a call: entering takes as long as the run, leaving removes what it leaves behind.

        `started` is called when its process runs. When `stop` is set, the run is ended at whatever
        point it is, and the result is there at once. No `EngineError` is raised: it is a result.
        """
        ...


@dataclass(slots=True)
class _Run:
    """One call under way."""

    job: runs.Job
    started: Callable[[], None]
    stop: asyncio.Event
    log: LogBuffer
    asked_s: float
    stdout: list[bytes] = field(default_factory=list)
    stdout_size: int = 0
    digest: str = ""
    namespace: Namespace | None = None
    #: Whether it is certain that the namespace is as it was.
    namespace_usable: bool = True
    container_id: str = ""
    started_ms: int | None = None
    started_s: float | None = None
    peak_memory_bytes: int | None = None

    def take(self, stream: int, data: bytes, stdout_max: int) -> bool:
        """Take a piece of output; False if stdout is over its bound, and then the piece is lost."""
        if stream == engine.STDERR:
            self.log.write(data)
            return True
        self.stdout_size += len(data)
        if self.stdout_size > stdout_max:
            return False
        self.stdout.append(data)
        return True

    def result(self, ending: runs.Ending) -> runs.Result:
        """Return what is known, with how the run ended."""
        now_s = clock.monotonic_s()
        running_s = self.started_s if self.started_s is not None else now_s
        return runs.Result(
            ending,
            b"".join(self.stdout) if isinstance(ending, runs.Exited) else b"",
            self.log.text(),
            self.started_ms,
            (running_s - self.asked_s) * 1000,
            (now_s - running_s) * 1000,
            self.digest,
            self.peak_memory_bytes,
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a function's output is taken, in bytes."""

    response: int
    log: int


class ContainerPerCall:
    """Runs each call in a container of its own, made and removed for it."""

    def __init__(
        self,
        container_engine: engine.Engine,
        known_images: images.Images,
        network_holders: holders.Holders,
        *,
        owner: containers.Owner,
        limits: containers.Limits,
        bounds: Bounds,
        starts: int,
    ) -> None:
        """`starts` containers are made and started at one time; more would slow each other.

        Of those, a quarter may be for async calls: nobody waits for them, and starting is what
        takes the CPUs from those who accept calls and answer them.
        """
        self._engine, self._images, self._holders = container_engine, known_images, network_holders
        self._owner, self._limits, self._bounds = owner, limits, bounds
        self._starts: dict[messages.Mode, Slots] = {"sync": Slots(starts)}
        self._starts["async"] = Slots(max(1, starts // 4), within=self._starts["sync"])

    @asynccontextmanager
    async def run(
        self, job: runs.Job, started: Callable[[], None], stop: asyncio.Event
    ) -> AsyncIterator[runs.Result]:
        """See `Sandboxes.run`."""
        run = _Run(job, started, stop, LogBuffer(self._bounds.log), clock.monotonic_s())
        work = asyncio.create_task(self._work(run), name=f"run {job.head.call_id}")
        try:
            yield await self._until_over(run, work)
        finally:
            await asyncio.shield(asyncio.create_task(self._clear_away(run, work)))

    async def _until_over(self, run: _Run, work: "asyncio.Task[runs.Ending]") -> runs.Result:
        stopping = asyncio.create_task(run.stop.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not work.done():
            await asyncio.wait({work}, timeout=STOP_GRACE_S)
        return run.result(work.result() if work.done() else runs.Stopped())

    async def _clear_away(self, run: _Run, work: "asyncio.Task[runs.Ending]") -> None:
        """Remove what a run leaves in the engine; the next sweep does what cannot be done now."""
        # A stopped run ends by itself at its next step, and only then is it sure what it has made.
        run.stop.set()
        await asyncio.wait({work})
        await self._undo(run)

    async def _undo(self, run: _Run) -> None:
        clean = not run.container_id or await self._removed(run.container_id)
        if run.namespace is not None:
            usable = clean and run.namespace_usable
            await (self._holders.give_back if usable else self._holders.discard)(run.namespace)
        run.container_id, run.namespace, run.namespace_usable = "", None, True

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

    async def _work(self, run: _Run) -> runs.Ending:
        """Do all of a run, up to its end or to the first step after it was stopped."""
        image = run.job.head.image
        try:
            try:
                return await self._steps(run)
            except engine.NotFound:
                # Somebody has removed the image or the namespace since we last saw it.
                await self._undo(run)
                self._images.forget()
                return await self._steps(run)
        except images.PullFailed as error:
            return runs.PullFailed(image, error.message)
        except engine.ImageRefused as error:
            return runs.ImageUnusable(error.message)
        except engine.EngineError as error:
            return runs.EngineFailed(error.message)
        except Exception:
            log.exception("run_broken", call_id=run.job.head.call_id)
            return runs.Broken("The runner failed; its log has more.")

    async def _steps(self, run: _Run) -> runs.Ending:
        found = await _unless(run.stop, self._images.ensure(run.job.head.image))
        if found is None:
            return runs.Stopped()
        run.digest = found.digest
        slots = self._starts[run.job.head.mode]
        slot = await _unless(run.stop, slots.acquire())
        if slot is None:
            return runs.Stopped()
        try:
            await self._create(run)
            async with self._engine.attached(run.container_id) as attachment:
                feeding = asyncio.create_task(attachment.feed(run.job.parcel.payload))
                try:
                    if not run.stop.is_set():
                        await self._start(run)
                    slot.release()
                    return await self._to_the_end(run, attachment)
                finally:
                    feeding.cancel()
        finally:
            slot.release()

    async def _create(self, run: _Run) -> None:
        head, parcel = run.job.head, run.job.parcel
        run.namespace = await self._holders.acquire(head.app)
        ends_ms = environment.ends_at_ms(clock.epoch_ms(), head.timeout_ms, head.deadline_ms)
        env = environment.assemble(parcel.config_env, parcel.call_env, ends_ms)
        config = containers.sandbox(head, env, run.namespace, self._limits, self._owner)
        run.container_id = await self._engine.create(config)

    async def _start(self, run: _Run) -> None:
        try:
            await self._engine.start(run.container_id)
        except engine.ImageRefused:
            raise
        except engine.EngineError:
            # Perhaps because its namespace has gone.
            run.namespace_usable = False
            raise
        run.started_ms, run.started_s = clock.epoch_ms(), clock.monotonic_s()
        run.started()

    async def _to_the_end(self, run: _Run, attachment: engine.Attachment) -> runs.Ending:
        if run.started_s is None:
            return runs.Stopped()
        sampling = asyncio.create_task(self._sample(run))
        try:
            ending = await _unless(run.stop, self._collect(run, attachment))
            return ending or await self._kill(run, attachment)
        finally:
            sampling.cancel()

    async def _collect(self, run: _Run, attachment: engine.Attachment) -> runs.Ending:
        """Take the output until the process ends, and say how it did."""
        while (piece := await attachment.read()) is not None:
            if not run.take(*piece, self._bounds.response):
                await self._kill_reading(run, attachment)
                return runs.Overflowed(self._bounds.response)
        code = await attachment.exit_code()
        return runs.Exited(code, code == _SIGKILL_CODE and await self._oom_killed(run))

    async def _oom_killed(self, run: _Run) -> bool:
        for wait_s in _OOM_LOOKS_S:
            await asyncio.sleep(wait_s)
            if await self._engine.was_oom_killed(run.container_id):
                return True
        return False

    async def _kill(self, run: _Run, attachment: engine.Attachment) -> runs.Ending:
        """End a run that was asked to stop; what it wrote up to then is its log."""
        with suppress(engine.EngineError, TimeoutError):
            async with asyncio.timeout(STOP_GRACE_S / 2):
                run.peak_memory_bytes = await self._peak(run)
        await self._kill_reading(run, attachment)
        return runs.Stopped()

    async def _kill_reading(self, run: _Run, attachment: engine.Attachment) -> None:
        """Kill a container while taking its output, up to its end if that comes soon.

        An engine that cannot get rid of the output does not get as far as the process's end.
        """
        reading = asyncio.create_task(self._rest(run, attachment))
        try:
            await self._engine.kill(run.container_id)
            await asyncio.wait({reading}, timeout=STOP_GRACE_S)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _rest(self, run: _Run, attachment: engine.Attachment) -> None:
        while (piece := await attachment.read()) is not None:
            run.take(*piece, self._bounds.response)

    async def _sample(self, run: _Run) -> None:
        """Look at a long run's memory now and then."""
        interval_s = _SAMPLE_FIRST_S
        while True:
            await asyncio.sleep(interval_s)
            with suppress(engine.EngineError):
                run.peak_memory_bytes = await self._peak(run)
            interval_s = min(interval_s * 2, _SAMPLE_LONGEST_S)

    async def _peak(self, run: _Run) -> int | None:
        seen = [run.peak_memory_bytes, await self._engine.peak_memory(run.container_id)]
        return max((peak for peak in seen if peak is not None), default=None)


async def _unless(stop: asyncio.Event, wanted: Coroutine[Any, Any, T]) -> T | None:
    """Return what `wanted` gives, or None if `stop` is set before; it is cancelled then."""
    doing = asyncio.create_task(wanted)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not doing.done():
            doing.cancel()
    # It may have been done at the very moment of its cancelling: then it counts.
    await asyncio.wait({doing})
    return None if doing.cancelled() else doing.result()
