"""How do tests run the client? As the one file that people get, in a home of its own."""

import functools
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platforms import ROOT

FILE = ROOT / "dist" / "fn"
PACK_TIMEOUT_S = 300
RUN_TIMEOUT_S = 120


@functools.cache
def packed() -> Path:
    """Return the packed client, packed now if its sources have changed."""
    done = subprocess.run(
        [ROOT / "deploy" / "fn"],
        capture_output=True,
        text=True,
        timeout=PACK_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"cannot pack fn:\n{done.stdout}{done.stderr}")
    return FILE


@dataclass(frozen=True)
class Ended:
    """How one command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return what it wrote to standard output as JSON."""
        return json.loads(self.out)


@dataclass
class Fn:
    """A shell in which `fn` can be typed."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    file: Path = field(default_factory=packed)

    def environment(self, **env: str) -> dict[str, str]:
        """Return the environment of its commands: nothing of the test's own but the PATH."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **self.env, **env}

    def __call__(self, *arguments: str, stdin: str | bytes | None = None, **env: str) -> Ended:
        """Run a command to its end; without `stdin`, it has none."""
        sent = stdin.encode() if isinstance(stdin, str) else stdin
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if sent is None else {"input": sent}
        done = subprocess.run(
            [self.file, *arguments],
            cwd=self.home,
            env=self.environment(**env),
            capture_output=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
            **source,
        )
        ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in ended.err
        return ended

    def ok(self, *arguments: str, stdin: str | bytes | None = None, **env: str) -> str:
        """Run a command that works and complains of nothing; return what it writes."""
        ended = self(*arguments, stdin=stdin, **env)
        assert (ended.code, ended.err) == (0, ""), ended
        return ended.out

    def start(self, written: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command that writes all it says into a file; who starts it ends it."""
        with written.open("wb") as out:
            command = [self.file, *arguments]
            return subprocess.Popen(command, env=self.environment(), stdout=out, stderr=out)
