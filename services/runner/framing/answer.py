"""What can come of reading a hot function's answer? Pure types: the words of every format's parser.

A parser is fed what the function writes, in whatever pieces it arrives, and says what is in it. It
decides nothing about the process that wrote it, and it has no idea of time.
"""

from typing import Protocol

import msgspec

#: How much of what a function wrote is shown to its author.
_EXCERPT_BYTES = 80


class _Said(msgspec.Struct, frozen=True, gc=False):
    pass


class Head(_Said, frozen=True):
    """The answer begins."""

    status: int
    #: As they may be sent on: none of the connection's own, no control characters.
    headers: tuple[tuple[str, str], ...]
    #: Whether its length is not known beforehand: to be passed on as it is produced.
    streamed: bool


class Data(_Said, frozen=True):
    """The next bytes of the body; never none."""

    data: bytes


class FunctionFailed(_Said, frozen=True):
    """In place of `Head` and `Data`: the function says itself that it failed; an `End` follows."""

    #: For the function's author: it may hold what is not meant for callers.
    message: str
    #: Whether what failed is that it took too long.
    timed_out: bool


class End(_Said, frozen=True):
    """The answer is whole."""

    #: Whether the process may get another call.
    reusable: bool


Event = Head | Data | FunctionFailed | End


class BadAnswer(Exception):
    """What the function wrote does not follow its format. The message is for its author.

    Whatever else it wrote is not to be trusted: the process must not get another call.
    """


class TooLarge(BadAnswer):
    """An answer that must be whole before it can be read is longer than allowed."""


class Parser(Protocol):
    """Reads the answer to one call. After a `BadAnswer` it is of no more use."""

    def feed(self, data: bytes) -> list[Event]:
        """Return what is known now: of each kind of event at most one, in their order.

        Line ends before and after an answer mean nothing and are passed over; anything else
        after `End` raises `BadAnswer`, as does whatever does not follow the format.
        """

    def eof(self) -> list[Event]:
        """Return what it means that there will be no more.

        Raises `BadAnswer` if the answer is not whole.
        """


def excerpt(data: bytes) -> str:
    r"""Return the beginning of `data` as an author can read it and a log can hold it.

    >>> print(excerpt(b"Traceback:\n\xff"))
    b'Traceback:\n\xff'
    """
    return f"{data[:_EXCERPT_BYTES]!r}{'...' if len(data) > _EXCERPT_BYTES else ''}"


def require_blank(data: bytes) -> None:
    """Raise `BadAnswer` if there is more than line ends after the answer."""
    if rest := data.strip(b"\r\n"):
        raise BadAnswer(f"The function answered twice: {excerpt(rest)} after its answer")


def unfinished(*, begun: bool) -> BadAnswer:
    """Return what to raise when the output ended before the answer was whole."""
    when = "in the middle of its answer" if begun else "before it had answered"
    return BadAnswer(f"The function's output ended {when}")
