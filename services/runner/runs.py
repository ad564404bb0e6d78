"""What is a run asked for, and what came of it? Pure types, the words of the sandbox's interface.

They say what happened, not what it means: that is `outcome`'s.
"""

from typing import Protocol

import msgspec

from shared import messages

Headers = tuple[tuple[str, str], ...]


class _Fact(msgspec.Struct, frozen=True, gc=False):
    pass


class Job(_Fact, frozen=True):
    """One run of a function: everything a sandbox needs to know."""

    head: messages.CallHead
    parcel: messages.Parcel
    #: Monotonic seconds at which the call came to this runner.
    asked_s: float
    #: When the run will be stopped, in epoch milliseconds.
    ends_ms: int


class Exited(_Fact, frozen=True):
    """The process ended by itself, or by a signal that was not ours."""

    code: int
    #: The kernel killed something in the sandbox because its memory was used up.
    oom_killed: bool = False


class Answered(_Fact, frozen=True):
    """A process that lives on answered in its format; `streamed`: its body has been handed on."""

    status: int
    headers: Headers
    streamed: bool = False


class BadAnswer(_Fact, frozen=True):
    """A process that lives on broke its format."""

    why: str


class SaysFailed(_Fact, frozen=True):
    """A process that lives on says itself that the function failed, or took too long."""

    timed_out: bool


class Overflowed(_Fact, frozen=True):
    """The process wrote more than `limit` bytes as its answer, and was killed for it."""

    limit: int


class Stopped(_Fact, frozen=True):
    """We were asked to stop it, and it may be assumed that it no longer runs."""


class TooLarge(_Fact, frozen=True):
    """The process could not be given its environment: the system has a limit of its own."""

    why: str


class PullFailed(_Fact, frozen=True):
    """The image is not here and could not be pulled. `code` says whose fault it is."""

    image: str
    why: str
    code: str = "image_pull"


class ImageUnusable(_Fact, frozen=True):
    """Nothing can be started from this image, says the engine or the kernel."""

    why: str


class EngineFailed(_Fact, frozen=True):
    """The engine did not answer, or failed through no fault of the image or the function."""

    why: str


class EngineAway(EngineFailed, frozen=True):
    """The engine did not answer before anything of a call was run."""


class Interrupted(_Fact, frozen=True):
    """The answer was handed on in parts, and some were lost on their way."""

    why: str


class Broken(_Fact, frozen=True):
    """A defect of ours kept the call from running."""

    why: str


Ending = (
    Exited
    | Answered
    | BadAnswer
    | SaysFailed
    | Overflowed
    | Stopped
    | TooLarge
    | PullFailed
    | ImageUnusable
    | EngineFailed
    | EngineAway
    | Interrupted
    | Broken
)


class Result(_Fact, frozen=True):
    """What came of a run."""

    ending: Ending
    #: The answer's body, as far as it has not been handed on.
    body: bytes = b""
    log: bytes = b""
    #: Epoch milliseconds at which the process was given the call; None if it never was.
    started_ms: int | None = None
    #: Milliseconds from the call's coming here to that, and from there to the end.
    start_ms: float = 0.0
    run_ms: float = 0.0
    #: "sha256:..." of the image; "" if it was never found.
    digest: str = ""
    peak_memory_bytes: int | None = None

    def __repr__(self) -> str:
        """Leave out what the function wrote: it is no business of our own log's."""
        return f"Result({self.ending!r}, digest={self.digest!r})"


class Sink(Protocol):
    """Who is told what comes of a run. Its methods are called in the loop and return at once."""

    #: Whether an answer may be handed on in parts.
    streams: bool

    def head(self, status: int, headers: Headers) -> None:
        """An answer begins; `data` follows, then `done`."""

    def data(self, data: bytes) -> None:
        """The next bytes of an answer that has begun."""

    def done(self, result: Result, *, reusable: bool) -> None:
        """The run is over; `reusable`: the sandbox may run another call."""

    def refused(self) -> None:
        """The process has seen nothing of the call, and is of no use: another one may run it."""
