"""What does wrk find? Runs it on one address, and reads what its script says at the end."""

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.figures import Checked, Figures, Value, figures

SCRIPT = Path(__file__).with_name("wrk.lua")
#: After so long a call counts as failed.
TIMEOUT_S = 10


class _Told(msgspec.Struct):
    """The script's line."""

    duration_us: int
    #: Of each right answer after the warm-up.
    taken_us: list[int]
    right: int
    failed: int
    wrong: int
    unanswered: int
    example: str


@dataclass(frozen=True, slots=True)
class Load:
    """What one run found."""

    samples_ms: tuple[float, ...]
    #: How long it lasted, the warm-up aside.
    wall_s: float
    checked: Checked

    def figures(self) -> Figures:
        """Return what the calls took. Raises `ValueError` if none was answered as it should."""
        if not self.samples_ms and self.checked.bad:
            raise ValueError(f"no call went well: {self.checked.example}")
        return figures(self.samples_ms, self.wall_s)

    def values(self) -> tuple[Value, ...]:
        """Return what a reader wants to see of the figures; nothing if there are none."""
        return self.figures().values() if self.samples_ms else ()


def parsed(output: bytes, callers: int, warm_up_s: int) -> Load:
    """Return what a run found, from wrk's output. Raises `ValueError` if it says nothing.

    If nobody had an answer before the end, all callers' calls failed.
    """
    *_, line = output.splitlines() or [b""]
    try:
        told = msgspec.json.decode(line, type=_Told)
    except msgspec.DecodeError as error:
        raise ValueError(f"wrk says {line!r}") from error
    answered = told.right + told.failed + told.wrong
    unanswered = told.unanswered or (0 if answered else callers)
    checked = Checked(
        calls=answered + unanswered,
        failed=told.failed + unanswered,
        wrong=told.wrong,
        example=told.example or ("no answer" if unanswered else ""),
    )
    samples_ms = tuple(us / 1000 for us in told.taken_us)
    return Load(samples_ms, told.duration_us / 1e6 - warm_up_s, checked)


async def load(
    url: str, callers: int, seconds: int, *, warm_up_s: int = 0, pause_ms: int = 0
) -> Load:
    """Call an echo from so many callers at once, each as often as it can, for so long.

    The calls of a warm-up before that are checked and not measured. With a pause, each caller
    waits so long between an answer and its next call. The last calls of a run are cut off. Raises
    as `parsed` does, `RuntimeError` if wrk fails.
    """
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{callers}", f"-d{warm_up_s + seconds}s", "--timeout", f"{TIMEOUT_S}s"),
        *("-s", str(SCRIPT), url, "--", secrets.token_hex(8), str(warm_up_s), str(pause_ms)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"wrk: {complaint.decode().strip()}")
    return parsed(output, callers, warm_up_s)
