"""What has a run written by now, and how much may it? Beside that, when it began."""

from dataclasses import dataclass

from services.runner import runs
from services.runner.logbuffer import LogBuffer
from shared import clock


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a function's output is taken, in bytes."""

    response: int
    log: int
    #: Of an answer that is handed on as it is produced.
    stream: int


#: Endings of a process whose answer is whole, and of one that never was.
_WHOLE, _NEVER = (runs.Exited, runs.Answered), (runs.ImageUnusable, runs.TooLarge)


class Output:
    """The output of one run, which begins now."""

    __slots__ = ("_body", "_bounds", "_digest", "_size", "_started_ms", "_started_s", "job", "log")

    def __init__(self, job: runs.Job, digest: str, bounds: Bounds) -> None:
        """`digest` is the image's."""
        self.job, self._digest, self._bounds = job, digest, bounds
        self.log = LogBuffer(bounds.log)
        self._body: list[bytes] = []
        self._size = 0
        self._started_s, self._started_ms = clock.monotonic_s(), clock.epoch_ms()

    def take(self, data: bytes) -> bool:
        """Keep a piece of the answer; False if it is over its bound with that."""
        self._size += len(data)
        if self._size > self._bounds.response:
            return False
        self._body.append(data)
        return True

    def pass_on(self, data: bytes) -> bool:
        """Count a piece of an answer that is handed on; False if it is over its bound."""
        self._size += len(data)
        return self._size <= self._bounds.stream

    def overflowed(self, *, streamed: bool) -> runs.Overflowed:
        """Return the ending of a run that has written too much."""
        return runs.Overflowed(self._bounds.stream if streamed else self._bounds.response)

    def result(self, ending: runs.Ending, peak_memory_bytes: int | None = None) -> runs.Result:
        """Return what is known, with how the run ended."""
        whole, never = isinstance(ending, _WHOLE), isinstance(ending, _NEVER)
        return runs.Result(
            ending,
            self._whole_body() if whole else b"",
            self.log.text(),
            None if never else self._started_ms,
            (self._started_s - self.job.asked_s) * 1000,
            0.0 if never else (clock.monotonic_s() - self._started_s) * 1000,
            self._digest,
            peak_memory_bytes,
        )

    def _whole_body(self) -> bytes:
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)
