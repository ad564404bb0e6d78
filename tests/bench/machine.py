"""How much of this machine did the benchmark have? Only Linux says what others took."""

import os
from pathlib import Path
from typing import NamedTuple

_STAT = Path("/proc/stat")


class CpuTime(NamedTuple):
    """CPU time since the machine began, in ticks."""

    #: What its own processes and kernel took.
    used: int
    #: What they wanted while a hypervisor gave the CPU to other machines.
    stolen: int


def cpu_time(stat: str) -> CpuTime:
    """Return the times in the first line of `/proc/stat`, whose fields `proc_stat(5)` names."""
    user, nice, system, _idle, _iowait, irq, softirq, stolen, *_ = map(int, stat.split()[1:9])
    return CpuTime(user + nice + system + irq + softirq, stolen)


class Machine:
    """What others take of it, from now on."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._before = _now()

    def told(self) -> str:
        """Return what a reader of the figures should know."""
        told, after = f"{os.cpu_count()} CPUs, load {self._load:.1f} before", _now()
        if self._before is None or after is None:
            return told
        share = stolen(self._before, after)
        return f"{told}, {share:.0%} of the CPU time wanted meanwhile went to other machines"


def _now() -> CpuTime | None:
    return cpu_time(_STAT.read_text()) if _STAT.exists() else None


def stolen(before: CpuTime, after: CpuTime) -> float:
    """Return the part of the CPU time wanted between that was not given.

    Example: a process wanted a CPU for ten seconds and had it for nine of them: 0.1.
    """
    used, lost = after.used - before.used, after.stolen - before.stolen
    return lost / (used + lost) if used + lost else 0.0
