"""How does a call reach a process that lives on? By the frames of its format, one call at a time.

The process is started with the sandbox. Calls go to its standard input and answers come from its
standard output; or (`http-stream`) both go over a connection, new for each call, to the socket it
listens at. Whatever it says when it is not asked, and whatever breaks its format, ends the sandbox:
bytes of one call must not be taken for another's.
"""

import asyncio
import os
from collections.abc import Callable, Mapping

from services.runner import pipes, processes, protocol, runs
from services.runner.framing import answer
from services.runner.framing.formats import Framing
from services.runner.link import Link
from services.runner.output import Bounds, Output
from shared import streaming

#: How long a process that is to listen may take to do so, and how often it is tried, in seconds.
LISTEN_S, _CONNECT_EVERY_S = 30.0, 0.005
#: The word of a process's end may come so much later than the end of its output, in seconds.
_END_SLACK_S = 0.5
#: How often it is looked whether a process reads, in seconds.
_LOOK_FIRST_S, _LOOK_LONGEST_S = 0.0001, 0.01
#: How much of what a process says at its start is kept for the log of its first call.
_EARLY_LOG_BYTES = 16 * 1024
_CLOSED = runs.BadAnswer("it closed its standard output")


class Unready(Exception):
    """A process did not get so far that it could be called."""

    def __init__(self, ending: runs.Ending, log: bytes) -> None:
        """`ending` is what became of it, `log` what it said."""
        super().__init__(str(ending))
        self.ending, self.log = ending, log


class _Run:
    """One call under way."""

    __slots__ = (
        "accepted_before",
        "asked",
        "consumed",
        "failed",
        "head",
        "heard",
        "job",
        "look",
        "output",
        "parser",
        "passed_bytes",
        "patience",
        "sink",
        "streamed",
        "taken_bytes",
    )

    def __init__(
        self, job: runs.Job, sink: runs.Sink, output: Output, parser: answer.Parser
    ) -> None:
        self.job, self.sink, self.output, self.parser = job, sink, output, parser
        self.head: answer.Head | None = None
        self.failed: runs.SaysFailed | None = None
        #: Whether the answer is handed on in parts.
        self.streamed = False
        #: Whether all of the call has been written, and whether anything has come since.
        self.asked = self.heard = False
        #: Whether the process is known to have read all of it.
        self.consumed = False
        #: When to look again whether the process reads.
        self.look: asyncio.TimerHandle | None = None
        #: Bytes handed on, and how many of them their caller has taken.
        self.passed_bytes = self.taken_bytes = 0
        #: What the pipe had taken before this call.
        self.accepted_before = 0
        #: Rings if nothing more is heard of a process whose output has ended.
        self.patience: asyncio.TimerHandle | None = None


class HotProcess:
    """Hands calls to one process. A `sandbox.Driver`.

    Invariant: while no call is under way nothing comes from the process but log lines, or it is
    never given a call again.
    """

    def __init__(
        self,
        link: Link,
        digest: str,
        bounds: Bounds,
        *,
        framing: Framing,
        variables: Mapping[str, str],
        useless: Callable[[], None],
    ) -> None:
        """`variables` are what the process gets at its start, beside the image's own.

        `useless` is called if, with no call under way, the process turns out to be of no use.
        """
        self._link, self._digest, self._bounds, self._framing = link, digest, bounds, framing
        self._variables, self._tell_useless = variables, useless
        self._loop = asyncio.get_running_loop()
        self._run: _Run | None = None
        self._used = False
        #: Why it is of no use, once it is.
        self._useless: runs.Ending | None = None
        self._end: protocol.Ended | None = None
        self._early_log = b""
        self._logs: list[pipes.Reader] = []
        self._requests: pipes.Writer | None = None
        self._answers: pipes.Reader | None = None
        #: Looks at the logs, and at the answers if they come from a pipe.
        self._glance = pipes.Glance(())
        #: While it is opened: whether the process listens.
        self._listens: asyncio.Future[bool] | None = None

    # Start and end.

    async def open(self) -> None:
        """Start the process, and return when it can be called. Raises `Unready`."""
        try:
            ours = processes.start(self._link, protocol.environment_block(self._variables))
        except OSError as error:
            raise Unready(processes.unstarted(error), b"") from error
        self._logs.append(pipes.Reader(ours.stderr, self._log))
        if self._framing.listener:
            os.close(ours.stdin)
            self._logs.append(pipes.Reader(ours.stdout, self._log))
            self._glance = pipes.Glance(self._logs)
            await self._until_it_listens(self._framing.listener)
        else:
            answers = self._speak_by(ours.stdin, ours.stdout)
            self._glance = pipes.Glance([*self._logs, answers])

    async def _until_it_listens(self, listener: str) -> None:
        try:
            async with asyncio.timeout(LISTEN_S):
                while True:
                    if await self._tries_to_connect(listener):
                        return
                    await asyncio.sleep(_CONNECT_EVERY_S)
        except TimeoutError as error:
            why = f"it did not listen at FN_LISTENER within {LISTEN_S:g} s"
            raise self._unready(runs.BadAnswer(why)) from error

    async def _tries_to_connect(self, listener: str) -> bool:
        """Return whether it listens by now. Raises `Unready` if it never will."""
        self._listens = self._loop.create_future()
        self._link.send(protocol.connect(listener))
        listens = self._link.open and await self._listens
        if self._useless is not None:
            raise self._unready(self._useless)
        if not self._link.open:
            raise self._unready(runs.EngineFailed("the sandbox ended at its start"))
        return listens

    def _unready(self, ending: runs.Ending) -> Unready:
        self._drain_logs()
        return Unready(ending, self._early_log)

    def close(self) -> None:
        """Let go of everything; no call is under way."""
        self._tell_listens(listens=False)
        self._hang_up()
        for log in self._logs:
            log.close()

    def _tell_listens(self, *, listens: bool) -> bool:
        """Tell who opens it; False if nobody does."""
        if self._listens is None or self._listens.done():
            return False
        self._listens.set_result(listens)
        return True

    def _speak_by(self, requests: int, answers: int) -> pipes.Reader:
        self._requests = pipes.Writer(requests)
        self._answers = pipes.Reader(answers, self._take, self._silent)
        return self._answers

    def _hang_up(self) -> None:
        for pipe in (self._requests, self._answers):
            if pipe is not None:
                pipe.close()
        self._requests = self._answers = None

    # Calls.

    def run(self, job: runs.Job, sink: runs.Sink) -> None:
        """Hand a call to the process; `sink` is told what comes of it."""
        if self._glance.sees():
            self._drain_logs()
            if self._answers is not None:
                self._answers.drain()
        if self._useless is not None and self._used:
            sink.refused()
            return
        output = Output(job, self._digest, self._bounds)
        if self._early_log:
            output.log.write(self._early_log)
            self._early_log = b""
        if self._useless not in (None, _CLOSED):
            sink.done(output.result(self._useless), reusable=False)
            return
        parser = self._framing.parser(job.head.call_id, self._bounds.response)
        self._run = _Run(job, sink, output, parser)
        if self._useless is None:
            self._ask(self._run)
        else:
            self._cut_off(self._run, _CLOSED.why)

    def _ask(self, run: _Run) -> None:
        if self._framing.listener and self._requests is None:
            self._link.send(protocol.connect(self._framing.listener))
            return
        assert self._requests is not None  # noqa: S101 (opened)
        job = run.job
        run.accepted_before = self._requests.accepted
        request = self._framing.request(job.head, job.parcel, job.ends_ms)
        if self._framing.listener:
            run.asked = True
            self._write(run, request)
        else:
            self._write(run, request[:1])
            self._ask_once_it_reads(run, request[1:], _LOOK_FIRST_S)

    def _ask_once_it_reads(self, run: _Run, rest: bytes, pause_s: float) -> None:
        """Send the rest of a call once the process waits for calls.

        Then it has done with the call before. What it wrote since its answer to that, a second one
        perhaps, is in the pipe by now, and is not taken for the answer to this call.
        """
        if run is not self._run or self._requests is None or self._answers is None:
            return
        if self._requests.unread():
            later_s = min(2 * pause_s, _LOOK_LONGEST_S)
            run.look = self._loop.call_later(pause_s, self._ask_once_it_reads, run, rest, later_s)
            return
        self._answers.drain()
        if run is self._run:
            run.asked = True
            self._write(run, rest)

    def _write(self, run: _Run, data: bytes) -> None:
        assert self._requests is not None  # noqa: S101 (opened)
        self._requests.write(data)
        if self._requests.broken and self._unread(run):
            self._cut_off(run, "it closed its standard input")

    def connected(self, error: int, fd: int | None) -> None:
        """Take the connection that was asked for, or the reason why there is none."""
        run = self._run
        if fd is not None and run is not None:
            self._speak_by(os.dup(fd), fd)
            self._ask(run)
            return
        if fd is not None:
            os.close(fd)
        if not self._tell_listens(listens=fd is not None) and run is not None:
            why = f"its socket does not take a connection: {os.strerror(error).lower()}"
            self._cut_off(run, why)

    def more(self, taken_bytes: int) -> None:
        """Go on reading an answer, of which its caller has taken so many bytes in all."""
        run = self._run
        if run is not None and self._answers is not None:
            run.taken_bytes = max(run.taken_bytes, taken_bytes)
            if run.passed_bytes - run.taken_bytes < streaming.WINDOW_BYTES:
                self._answers.resume()

    def abandon(self, ending: runs.Ending) -> bool:
        """End the call under way, because the sandbox ends; False if there is none."""
        if self._run is None:
            return False
        self._drain_logs()
        self._finish(ending, reusable=False)
        return True

    def ended(self, told: protocol.Ended) -> None:
        """Note that the process is gone."""
        self._end = told
        run = self._run
        if run is None:
            if self._useless == _CLOSED:
                self._useless = self._death()
            self._is_useless(self._death())
            return
        if self._answers is not None:
            self._answers.drain()
        self._parse(run, run.parser.eof)

    # What comes from the process.

    def _log(self, data: bytes) -> None:
        if self._run is not None:
            self._run.output.log.write(data)
        elif not self._used:
            self._early_log = (self._early_log + data)[-_EARLY_LOG_BYTES:]

    def _drain_logs(self) -> None:
        for log in self._logs:
            log.drain()

    def _take(self, data: bytes) -> None:
        run = self._run
        said = bool(data.strip(b"\r\n"))
        if run is not None and said and self._is_unasked(run):
            self._refuse_unasked(run, data)
        elif run is not None:
            self._parse(run, run.parser.feed, data)
        elif said:
            self._is_useless(_unasked(data))

    def _is_unasked(self, run: _Run) -> bool:
        """Say whether what comes first cannot be an answer: nothing of the call has been read."""
        if run.heard:
            return False
        run.heard = True
        assert self._requests is not None  # noqa: S101 (what it says comes beside that)
        if self._framing.listener:
            return not run.asked
        unread = self._requests.unread()
        run.consumed = not unread and self._requests.all_written
        return not run.asked or unread == self._requests.accepted - run.accepted_before

    def _refuse_unasked(self, run: _Run, data: bytes) -> None:
        """End a call on whose pipe something else came: perhaps an earlier answer once more."""
        self._drain_logs()
        why = _unasked(data)
        if run.accepted_before:
            self._useless = why
            self._forget(run)
            run.sink.refused()
        else:
            self._finish(why, reusable=False)

    def _parse(self, run: _Run, parse: Callable[..., list[answer.Event]], *data: bytes) -> None:
        if run is not self._run:
            return
        try:
            self._handle(run, parse(*data))
        except answer.TooLarge:
            self._finish(run.output.overflowed(streamed=False), reusable=False)
        except answer.BadAnswer as error:
            self._broke_off(run, str(error))

    def _handle(self, run: _Run, events: list[answer.Event]) -> None:
        # One that is whole at once is not worth handing on in parts.
        whole = bool(events) and isinstance(events[-1], answer.End)
        for event in events:
            if run is not self._run:
                return
            match event:
                case answer.Head():
                    run.head = event
                    run.streamed = event.streamed and run.sink.streams and not whole
                    if run.streamed:
                        run.sink.head(event.status, event.headers)
                case answer.Data(data):
                    self._keep(run, data)
                case answer.FunctionFailed(message, timed_out):
                    # What it says may be meant for its author alone: it is a matter of its log.
                    run.output.log.write(message.encode())
                    run.failed = runs.SaysFailed(timed_out)
                case answer.End(reusable):
                    self._answered(run, reusable=reusable)

    def _keep(self, run: _Run, data: bytes) -> None:
        if not (run.output.pass_on if run.streamed else run.output.take)(data):
            self._finish(run.output.overflowed(streamed=run.streamed), reusable=False)
        elif run.streamed:
            run.passed_bytes += len(data)
            full = run.passed_bytes - run.taken_bytes >= streaming.WINDOW_BYTES
            if full and self._answers is not None:
                self._answers.pause()
            run.sink.data(data)

    def _answered(self, run: _Run, *, reusable: bool) -> None:
        assert self._requests is not None  # noqa: S101 (it was asked)
        if self._glance.sees():
            self._drain_logs()
        ending: runs.Ending = runs.BadAnswer("it ended before it began")
        if run.failed is not None:
            ending = run.failed
        elif run.head is not None:
            ending = runs.Answered(run.head.status, run.head.headers, run.streamed)
        # What it has not read of this call it would take for the next; a connection is not reused.
        reusable = bool(self._framing.listener) or (
            reusable
            and (run.consumed or (self._requests.all_written and not self._requests.unread()))
        )
        self._finish(ending, reusable=reusable and self._end is None)

    def _silent(self) -> None:
        """Note that nothing more comes: that may be how an answer ends."""
        run = self._run
        if run is None:
            self._is_useless(_CLOSED)
            return
        try:
            events = run.parser.eof()
        except answer.BadAnswer as error:
            self._cut_off(run, str(error))
        else:
            self._handle(run, events)

    def _cut_off(self, run: _Run, why: str) -> None:
        """End a call of which nothing more will come; how its process ended says more than `why`.

        Should it have ended, that is told soon.
        """
        if self._end is not None or self._unseen(run):
            self._broke_off(run, why)
        elif run.patience is None:
            run.patience = self._loop.call_later(_END_SLACK_S, self._broke_off, run, why)

    def _broke_off(self, run: _Run, why: str) -> None:
        """End a call whose answer is none: by how the process ended, if it has."""
        if run is not self._run:
            return
        self._drain_logs()
        if self._unseen(run):
            self._forget(run)
            run.sink.refused()
        elif self._end is None:
            self._finish(runs.BadAnswer(why), reusable=False)
        else:
            self._finish(self._death(), reusable=False)

    def _unseen(self, run: _Run) -> bool:
        """Say whether the process was of use before and knows nothing of this call."""
        if self._requests is None:
            return self._used
        begun = run.asked and not self._unread(run)
        return run.accepted_before > 0 and run.head is None and not begun

    def _unread(self, run: _Run) -> bool:
        """Say whether the process has read nothing of a call; nobody can tell of a connection."""
        if self._requests is None or self._framing.listener:
            return False
        return self._requests.unread() == self._requests.accepted - run.accepted_before

    def _death(self) -> runs.Ending:
        assert self._end is not None  # noqa: S101 (asked once it has ended)
        ending = processes.ending(self._end)
        if ending == runs.Exited(0):
            return runs.BadAnswer("it ended (exit code 0) without an answer")
        return ending

    def _is_useless(self, why: runs.Ending) -> None:
        if self._useless is None:
            self._useless = why
            self._tell_listens(listens=False)
            self._hang_up()
            self._tell_useless()

    def _finish(self, ending: runs.Ending, *, reusable: bool) -> None:
        run = self._run
        if run is not None:
            self._forget(run)
            self._used = True
            if self._answers is not None:
                self._answers.resume()
            run.sink.done(run.output.result(ending), reusable=reusable)

    def _forget(self, run: _Run) -> None:
        self._run = None
        for timer in (run.patience, run.look):
            if timer is not None:
                timer.cancel()
        if self._framing.listener:
            self._hang_up()


def _unasked(data: bytes) -> runs.BadAnswer:
    return runs.BadAnswer(f"it wrote {answer.excerpt(data)} without being asked")
