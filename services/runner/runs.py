"""What is a run asked for, and what came of it? Pure types, the words of the sandbox's interface.

They say what happened, not what it means: that is `outcome`'s.
"""

from dataclasses import dataclass, field

from shared import messages


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a function: everything a sandbox needs to know."""

    head: messages.CallHead
    parcel: messages.Parcel


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended by itself, or by a signal that was not ours."""

    code: int
    #: The kernel killed something in the sandbox because its memory was used up.
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Overflowed:
    """The process wrote more than `limit` bytes to stdout, and was killed for it."""

    limit: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """We were asked to stop it, and it may be assumed that it no longer runs."""


@dataclass(frozen=True, slots=True)
class PullFailed:
    """The image is not here and could not be pulled."""

    image: str
    why: str


@dataclass(frozen=True, slots=True)
class ImageUnusable:
    """The engine says that nothing can be started from this image."""

    why: str


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """The engine did not answer, or failed through no fault of the image or the function."""

    why: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A defect of ours kept the call from running."""

    why: str


Ending = Exited | Overflowed | Stopped | PullFailed | ImageUnusable | EngineFailed | Broken


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    ending: Ending
    stdout: bytes = field(default=b"", repr=False)
    log: bytes = field(default=b"", repr=False)
    #: Epoch milliseconds at which the process was started; None if it never was.
    started_ms: int | None = None
    #: Milliseconds from being asked to the process running, and from there to the end.
    start_ms: float = 0.0
    run_ms: float = 0.0
    #: "sha256:..." of the image; "" if it was never found.
    digest: str = ""
    peak_memory_bytes: int | None = None
