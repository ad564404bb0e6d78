"""What is done to a platform, and when? Pure: a seed says it all."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Deed = Literal["kill", "restart", "freeze", "cut", "partition"]
Target = Literal["api", "scheduler", "runner", "redis", "mysql", "sandbox", "engine", "host"]

#: What can be done to what, each as often as it stands here.
_HARMS: tuple[tuple[Deed, Target], ...] = (
    ("kill", "api"),
    ("kill", "scheduler"),
    ("kill", "runner"),
    ("kill", "runner"),
    ("kill", "redis"),
    ("kill", "sandbox"),
    ("kill", "sandbox"),
    ("restart", "api"),
    ("restart", "scheduler"),
    ("restart", "runner"),
    ("restart", "mysql"),
    ("freeze", "api"),
    ("freeze", "scheduler"),
    ("freeze", "runner"),
    ("cut", "api"),
    ("cut", "scheduler"),
    ("cut", "runner"),
)
#: The same of a host that is played, if there is one.
_HARMS_OF_HOSTS: tuple[tuple[Deed, Target], ...] = (
    ("kill", "engine"),
    ("kill", "engine"),
    ("restart", "engine"),
    ("partition", "host"),
    ("partition", "host"),
)
#: The pause before a deed, and how long what was killed, frozen or cut off stays so, in seconds.
_PAUSE_S, _LASTS_S = (4.0, 12.0), (0.5, 10.0)


@dataclass(frozen=True, slots=True)
class Harm:
    """One deed."""

    after_s: float
    deed: Deed
    target: Target
    #: Which replica of the target: this, modulo how many there are.
    which: int
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.deed} {self.target} {self.which} for {self.lasts_s:.1f} s"


def harms(seed: int, seconds: float, *, hosts: int = 0) -> Iterator[Harm]:
    """Yield what is done within so many seconds; the same for the same seed and number of hosts.

    Nothing begins so late that it would not be over by then.
    """
    chosen = random.Random(seed)
    possible = _HARMS + (_HARMS_OF_HOSTS if hosts else ())
    at_s = 0.0
    while True:
        after_s, lasts_s = chosen.uniform(*_PAUSE_S), chosen.uniform(*_LASTS_S)
        deed, target = chosen.choice(possible)
        at_s += after_s + lasts_s
        if at_s > seconds:
            return
        yield Harm(after_s, deed, target, chosen.randrange(1000), lasts_s)
