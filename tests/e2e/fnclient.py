"""How do tests type commands? `fn` as a process of its own, in a folder of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.platforms import INHERITED, ROOT

TIMEOUT_S = 300


@dataclass(frozen=True)
class Said:
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str

    def good(self) -> "Said":
        """Return itself; fails the test if the command has failed."""
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self

    def refused(self, code: int, words: str) -> "Said":
        """Return itself; fails the test unless it ended in one line with these words."""
        lines = [line for line in self.err.splitlines() if line.startswith("fn: ")]
        assert self.code == code, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert len(lines) == 1, self.err
        assert words in lines[0], self.err
        assert "Traceback" not in self.err
        return self


@dataclass(frozen=True)
class Fn:
    """A developer's shell: a folder and an environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Said:
        """Type a command."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        certificates = {name: v for name, v in os.environ.items() if name == "PIP_CERT"}
        env = {**inherited, **certificates, "PYTHONPATH": str(ROOT)}
        env |= {**self.environment, **environment}
        done = subprocess.run(
            [sys.executable, "-m", "fn", *arguments],
            cwd=self.folder,
            env=env,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def at(self, name: str) -> "Fn":
        """Return the same shell in a folder below, made if need be."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return Fn(folder, self.environment)

    def write(self, name: str, text: str) -> None:
        """Write a file of the function."""
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        """Return a file of the function."""
        return (self.folder / name).read_text()
