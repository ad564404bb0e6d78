"""How is a function's image built? Pure: templates and Dockerfiles, no files."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_INSTRUCTION = re.compile(r"\s*[A-Za-z]+(\s|$)")


def render(template: str, facts: Collection[str], values: Mapping[str, str]) -> str:
    r"""Return a template with what is true of a function.

    Lines between `#if FACT` and `#else` or `#end` stay if the fact is among `facts`, those between
    `#else` and `#end` if not; `{{name}}` is a value.

    >>> render("#if a\nRUN {{x}}\n#else\nRUN z\n#end\n", {"a"}, {"x": "y"})
    'RUN y\n'
    """
    kept: list[str] = []
    shown: list[bool] = []
    for line in template.splitlines():
        word, _, fact = line.partition(" ")
        if word == "#if":
            shown.append(fact in facts)
        elif word == "#else":
            shown[-1] = not shown[-1]
        elif word == "#end":
            shown.pop()
        elif all(shown):
            kept.append(line)
    text = "\n".join(kept) + "\n"
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def words(command: list[str] | str) -> list[str]:
    """Return a command's words.

    >>> words("python3 -c 'a b'")
    ['python3', '-c', 'a b']
    """
    return command if isinstance(command, list) else shlex.split(command)


def start(entrypoint: list[str] | str, cmd: list[str] | str) -> str:
    r"""Return the lines that say what is started; empty ones are left out.

    >>> start("python3 func.py", [])
    'ENTRYPOINT ["python3", "func.py"]\n'
    """
    lines = (("ENTRYPOINT", words(entrypoint)), ("CMD", words(cmd)))
    return "".join(f"{word} {json.dumps(said)}\n" for word, said in lines if said)


def line_of_step(dockerfile: str, step: int) -> int:
    r"""Return the line on which the instruction with a number begins, both from 1; 0 if unknown.

    >>> line_of_step("# hi\nFROM a\nRUN b \\\n  c\nRUN d", 3)
    5
    """
    count, continued = 0, False
    for number, line in enumerate(dockerfile.splitlines(), 1):
        is_comment = line.lstrip().startswith("#") or not line.strip()
        if is_comment:
            continue
        if not continued and _INSTRUCTION.match(line):
            count += 1
            if count == step:
                return number
        continued = line.rstrip().endswith("\\")
    return 0


def ignored_below(folder: str, patterns: str) -> str:
    r"""Return a .dockerignore's text for a context in which all it speaks of is in a folder.

    >>> ignored_below("function", "# big\n*.iso\n!/small.iso\n")
    'function/*.iso\n!function/small.iso\n'
    """
    lines = []
    for line in patterns.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        sign, rest = ("!", pattern[1:].strip()) if pattern.startswith("!") else ("", pattern)
        lines.append(f"{sign}{folder}/{rest.lstrip('/')}\n")
    return "".join(lines)
