"""How does a call run in a process of its own? Format `default`: environment, stdin, stdout, exit.

The sandbox's first process starts it, and tells its end when everything that it had started is
gone as well: so what the pipes hold then is all there will be.
"""

from services.runner import environment, pipes, processes, protocol, runs
from services.runner.link import Link
from services.runner.output import Bounds, Output

_KIB = 1024


class _Run:
    """One call under way: its pipes and what came out of them."""

    def __init__(
        self, sink: runs.Sink, output: Output, ours: processes.Pipes, taker: pipes.Taker
    ) -> None:
        self.sink, self.output = sink, output
        self.stdout = pipes.Reader(ours.stdout, taker)
        self.stderr = pipes.Reader(ours.stderr, output.log.write)
        self.stdin = pipes.Writer(ours.stdin)

    def feed(self, payload: bytes) -> None:
        self.stdin.write(payload)
        self.stdin.finish()

    def close(self) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


class FreshProcesses:
    """Runs one call at a time, each in a process of its own. A `sandbox.Driver`."""

    def __init__(self, link: Link, digest: str, bounds: Bounds) -> None:
        """`link` is to the first process of a sandbox whose image has this digest."""
        self._link, self._digest, self._bounds = link, digest, bounds
        self._run: _Run | None = None

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

    def _take(self, data: bytes) -> None:
        run = self._run
        if run is not None and not run.output.take(data):
            self._finish(run.output.overflowed(streamed=False), None, reusable=False)

    def _finish(self, ending: runs.Ending, peak_bytes: int | None, *, reusable: bool) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()
            run.sink.done(run.output.result(ending, peak_bytes), reusable=reusable)
