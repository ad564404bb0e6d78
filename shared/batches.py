"""How do commands that are ready together become fewer? Steps of one kind go as one.

Does nothing but sort, pack and hand on. A batch knows who is to be told what became of each of its
commands.
"""

from collections.abc import Callable, Iterable
from typing import Any

import hiredis
from redis.exceptions import ResponseError

from shared import scripts
from shared.errors import Unavailable
from shared.scripts import Command, Script, Step

#: Told what became of a command: Redis' answer, or `Unavailable`, or `ResponseError`.
Landed = Callable[[Any], None]

#: Steps in one batch at most: Redis does nothing else meanwhile.
STEPS_MAX = 64
#: Answers that mean "not now", not "wrong".
_REFUSALS = ("OOM ", "MISCONF ", "BUSY ", "CLUSTERDOWN ", "NOREPLICAS ")
#: Answers of a server that is no master, or not yet one: its connection is left.
_LEFT = ("READONLY ", "LOADING ", "MASTERDOWN ", "UNBLOCKED ")


class Batch:
    """A command, or several steps that go as one. Performed in the order they were given."""

    __slots__ = ("_command", "_landed", "_steps", "left", "script")

    def __init__(self, command: Command, landed: Landed) -> None:
        """Begin with one command."""
        self._landed = [landed]
        self._steps: list[Step] = []
        self._command: Command = ()
        #: What a server answered that is no master; "" from any other.
        self.left = ""
        #: None for a plain command.
        self.script: Script | None = None
        if isinstance(command, Step):
            self._steps.append(command)
            self.script = command.script
        else:
            self._command = command

    def __len__(self) -> int:
        return len(self._landed)

    def takes(self, command: Command, landed: Landed) -> bool:
        """Take one more step in if it can go with the others; says whether."""
        if self.script is None or not isinstance(command, Step):
            return False
        if command.script is not self.script or command.shared != self._steps[0].shared:
            return False
        if len(self._steps) >= STEPS_MAX:
            return False
        self._steps.append(command)
        self._landed.append(landed)
        return True

    def packed(self, *, whole: bool = False) -> bytes:
        """Return the bytes to send; `whole`: with the script's text, which Redis may lack."""
        script = self.script
        if script is None:
            return _packed(self._command)
        first = ("EVAL", script.text) if whole else ("EVALSHA", script.sha)
        return _packed((*first, *scripts.parts(self._steps)))

    def land(self, answer: Any) -> None:  # noqa: ANN401 (whatever Redis says)
        """Tell each who waits what Redis has answered."""
        landed = self._landed
        if len(landed) == 1:
            landed[0](self._meant(answer))
        elif isinstance(answer, list) and len(answer) == len(landed):
            for one, own in zip(landed, answer, strict=True):
                one(self._meant(own))
        else:  # the whole of it was refused
            for one in landed:
                one(self._meant(answer))

    def _meant(self, answer: Any) -> Any:  # noqa: ANN401 (whatever Redis says)
        if not isinstance(answer, hiredis.ReplyError):
            return answer
        message = str(answer)
        if message.startswith(_LEFT):
            self.left = message
            return Unavailable(f"Redis refuses: {message}")
        if message.startswith(_REFUSALS):
            return Unavailable(f"Redis refuses: {message}")
        return ResponseError(message)

    def fail(self, why: str) -> None:
        """Tell each who waits that there is no answer."""
        for one in self._landed:
            one(Unavailable(f"Redis does not answer: {why}"))


def batches(ready: Iterable[tuple[Command, Landed]]) -> list[Batch]:
    """Return commands as few batches, in the same order: only neighbours go together."""
    made: list[Batch] = []
    for command, landed in ready:
        if not made or not made[-1].takes(command, landed):
            made.append(Batch(command, landed))
    return made


def loading(script: Script, landed: Landed) -> Batch:
    """Return the command after which Redis knows a script."""
    return Batch(("SCRIPT", "LOAD", script.text), landed)


def lacks_script(answer: Any) -> bool:  # noqa: ANN401 (whatever Redis says)
    """Say whether an answer means that the script is unknown, and nothing was done."""
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT")


def _packed(command: Any) -> bytes:  # noqa: ANN401 (a tuple of any of its types)
    packed: bytes = hiredis.pack_command(command)
    return packed
