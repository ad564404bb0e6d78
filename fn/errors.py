"""What can go wrong for who types a command, and with which exit code does it end?"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes that scripts can use."""

    OK = 0
    #: A function failed, or a test of it.
    FAILED = 1
    #: The command line or a file of the user's is wrong.
    USAGE = 2
    #: The platform refuses: it is there already, it has no such thing, it is not as it should be.
    REFUSED = 3
    #: A token is missing, expired or wrongly signed; a registry does not know the password.
    UNAUTHORIZED = 4
    #: The platform, the engine or the hub does not answer.
    UNREACHABLE = 5
    #: A defect in `fn` itself.
    DEFECT = 70
    #: The user pressed Ctrl-C.
    INTERRUPTED = 130


class FnError(Exception):
    """A command cannot do what it was asked for: one line that says why, and one that helps."""

    def __init__(self, message: str, hint: str = "", code: Exit = Exit.USAGE) -> None:
        """`message` says what is wrong, `hint` what to do about it; each is one line."""
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code
