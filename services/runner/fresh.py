"""How does a call run in a process of its own? Format `default`: environment, stdin, stdout, exit.

The sandbox's first process starts it, and tells its end when everything that it had started is
gone as well: so what the pipes hold then is all there will be. Most processes are over before they
have filled a pipe, and then that is read in one go; those that take longer are read as they write.
"""

import asyncio

from services.runner import environment, pipes, processes, protocol, runs
from services.runner.link import Link
from services.runner.output import Bounds, Output

_KIB = 1024
#: Whoever still runs at the first or second look has its output read as it comes; seconds.
_LOOK_EVERY_S = 0.01
#: Who is given more than this may have much to say, and is read from the beginning.
_SHORT_BYTES = 16 * _KIB


class _Run:
    """One call under way: its pipes and what came out of them."""

    __slots__ = ("output", "sink", "stderr", "stdin", "stdout")

    def __init__(
        self, sink: runs.Sink, output: Output, ours: processes.Pipes, taker: pipes.Taker
    ) -> None:
        self.sink, self.output = sink, output
        self.stdout = pipes.Reader(ours.stdout, taker, paused=True)
        self.stderr = pipes.Reader(ours.stderr, output.log.write, paused=True)
        self.stdin = pipes.Writer(ours.stdin)

    def feed(self, payload: bytes) -> None:
        self.stdin.write(payload)
        self.stdin.finish()

    def watch(self) -> None:
        """Read what is written as it is written."""
        self.stdout.resume()
        self.stderr.resume()

    def close(self) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


class FreshProcesses:
    """Runs one call at a time, each in a process of its own. A `sandbox.Driver`."""

    def __init__(self, link: Link, digest: str, bounds: Bounds) -> None:
        """`link` is to the first process of a sandbox whose image has this digest."""
        self._link, self._digest, self._bounds = link, digest, bounds
        self._run: _Run | None = None
        self._loop = asyncio.get_running_loop()
        #: The next look, and the run that was under way at the last one.
        self._look: asyncio.TimerHandle | None = None
        self._seen: _Run | None = None

    async def open(self) -> None:
        """Return at once: each call brings its process."""

    def run(self, job: runs.Job, sink: runs.Sink) -> None:
        """Run a call; `sink` is told of its end. Raises as `processes.start`."""
        parcel = job.parcel
        variables = environment.assemble(parcel.config_env, parcel.call_env, job.ends_ms)
        output = Output(job, self._digest, self._bounds)
        ours = processes.start(self._link, protocol.environment_block(variables))
        self._run = _Run(sink, output, ours, self._take)
        self._run.feed(parcel.payload)
        if len(parcel.payload) > _SHORT_BYTES:
            self._run.watch()
        elif self._look is None:
            self._look = self._loop.call_later(_LOOK_EVERY_S, self._look_again)

    def _look_again(self) -> None:
        """Watch a run that was here at the last look; one timer serves many short ones."""
        self._look = None
        seen, self._seen = self._seen, None
        if self._run is None:
            return
        if self._run is seen:
            self._run.watch()
        else:
            self._seen = self._run
            self._look = self._loop.call_later(_LOOK_EVERY_S, self._look_again)

    def ended(self, told: protocol.Ended) -> None:
        """Note that the process is gone."""
        run = self._run
        if run is not None:
            run.stdout.drain()
        if run is not None and run is self._run:  # it has not written too much just now
            run.stderr.drain()
            peak_bytes = told.peak_kib * _KIB or None
            sound = not (told.error or told.oom_kills or told.changed)
            self._finish(processes.ending(told), peak_bytes, reusable=sound)

    def connected(self, error: int, fd: int | None) -> None:
        """Nothing is ever connected to."""

    def more(self, taken_bytes: int) -> None:
        """Nothing is handed on in parts."""

    def abandon(self, ending: runs.Ending) -> bool:
        """End the run under way, because the sandbox ends; False if there is none."""
        if self._run is None:
            return False
        self._run.stderr.drain()
        self._finish(ending, None, reusable=False)
        return True

    def close(self) -> None:
        """Let go of everything; no run is under way."""
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _take(self, data: bytes) -> None:
        run = self._run
        if run is not None and not run.output.take(data):
            self._finish(run.output.overflowed(streamed=False), None, reusable=False)

    def _finish(self, ending: runs.Ending, peak_bytes: int | None, *, reusable: bool) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()
            run.sink.done(run.output.result(ending, peak_bytes), reusable=reusable)
