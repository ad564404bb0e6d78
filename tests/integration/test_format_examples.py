"""Do the functions printed in docs/formats.md answer? Each is run, and asked twice.

Those in the languages that are on this machine; the ones made with the Fn Project's kits need more
than a language, and have tests of their own.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runner.framing import answer, formats
from shared import messages
from tests.unit.runner import builders

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
COMMANDS = {"python": [sys.executable], "js": ["node"], "go": ["go", "run"]}
SUFFIXES = {"python": "py", "js": "js", "go": "go"}
#: How many functions the document has for the formats on standard input and output.
PRINTED = 6


def printed() -> Iterator[tuple[messages.Format, str, str]]:
    """Return each function of the document: its format, its language, its code."""
    names: tuple[messages.Format, ...] = ("json", "http")
    for name in names:
        _, _, section = DOCUMENT.read_text().partition(f"\n## `{name}`\n")
        section = section.partition("\n## ")[0]
        for language, code in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
            yield name, language, code


EXAMPLES = list(printed())
RUNNABLE = [found for found in EXAMPLES if shutil.which(COMMANDS[found[1]][0])]


@pytest.mark.parametrize(("name", "language", "code"), RUNNABLE, ids=lambda v: v[:6])
def test_a_documented_function_answers_call_after_call(
    name: messages.Format, language: str, code: str, tmp_path: Path
) -> None:
    source = tmp_path / f"func.{SUFFIXES[language]}"
    source.write_text(code.replace("time.sleep(1)", "time.sleep(0)"))
    command = [*COMMANDS[language], str(source)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as process:
        try:
            streams = "event-stream" in code
            for name_of_caller in ("Ada", ""):
                told = ask(process, formats.of(name), name_of_caller.encode())
                hello = f"Hello, {name_of_caller or 'World'}!\n".encode()
                assert told == (b"data: 0\n\ndata: 1\n\ndata: 2\n\n" if streams else hello)
        finally:
            process.kill()


def ask(process: subprocess.Popen[bytes], framing: formats.Framing, payload: bytes) -> bytes:
    """Return the body of the process's answer to one call."""
    assert process.stdin
    assert process.stdout
    parcel = messages.Parcel(call_env={"METHOD": "POST"}, config_env={}, payload=payload)
    process.stdin.write(framing.request(builders.head(), parcel, builders.NOW_MS))
    parser, body = framing.parser(builders.HEAD.call_id, 1000), b""
    while True:
        data = process.stdout.read(65536)
        for event in parser.feed(data) if data else parser.eof():
            match event:
                case answer.Data(more):
                    body += more
                case answer.End(reusable):
                    assert reusable
                    return body


def test_the_document_prints_functions() -> None:
    assert len(EXAMPLES) == PRINTED
