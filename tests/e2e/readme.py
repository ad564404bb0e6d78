"""Do the commands of a README do what it says that they do? Reads them out of it, and runs them.

A block marked `sh` is run; one marked `text` after it is what it has to print, where `...` stands
for anything. All blocks of a README are one session of bash, as a reader would have it, which ends
at the first command that fails.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: What stands between the output of two steps; no command prints it.
MARK = "\x1e"
TIMEOUT_S = 280


@dataclass(frozen=True)
class Step:
    """Some commands, and what they have to print, if that is told."""

    commands: str
    printed: str | None = None


def steps(readme: Path) -> list[Step]:
    """Return the steps of a README, in their order."""
    found: list[Step] = []
    for kind, text in BLOCK.findall(readme.read_text()):
        if kind == "sh":
            found.append(Step(text))
        else:
            assert found[-1].printed is None, "two outputs of one step"
            found[-1] = Step(found[-1].commands, text)
    return found


def fits(expected: str, printed: str) -> bool:
    """Return whether a step printed what was expected of it."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


async def follow(
    todo: Sequence[Step], folder: Path, env: Mapping[str, str], here: Mapping[str, str]
) -> list[str]:
    """Run steps in a folder; return what each printed. Fails if one fails or prints something else.

    `here` says what stands on this machine for the examples in the text, such as addresses.
    """
    commands = [replaced(step.commands, here) for step in todo]
    script = "".join(f"{text}\nprintf '\\036'\n" for text in commands)
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-e",
        "-c",
        script,
        cwd=folder,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    printed, errors = (text.decode(errors="replace") for text in told)
    outputs = printed.split(MARK)
    assert process.returncode == 0, f"{commands[len(outputs) - 1]}{outputs[-1]}{errors}"
    for step, text, output in zip(todo, commands, outputs, strict=False):
        expected = step.printed and replaced(step.printed, here)
        assert expected is None or fits(expected, output), f"{text}printed:\n{output}\n{errors}"
    return outputs[:-1]


def replaced(text: str, here: Mapping[str, str]) -> str:
    """Return a text with what stands on this machine for its examples."""
    for example, real in here.items():
        text = text.replace(example, real)
    return text


def commands(text: str, beginning: str) -> list[str]:
    """Return the commands of a step that begin so, each to the line before the next one."""
    return [f"{beginning}{rest}".rstrip() for rest in text.split(beginning)[1:]]
