"""Where are the examples built and deployed? In their folders, with fn, as developers do it."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e import readme
from tests.e2e.fnclient import Fn, Said
from tests.e2e.platforms import ROOT

EXAMPLES = ROOT / "examples"
#: A client that runs out of the sources.
FN = f"""#!/bin/sh
PYTHONPATH={ROOT} exec {sys.executable} -m fn "$@"
"""
#: What the client would take from the developer who runs the tests.
DEVELOPERS_OWN = ("API_URL", "JWT_AUTH_KEY", "SSL_SKIP_VERIFY", "HUB", "WORK_DIR")


@dataclass
class Workshop:
    """A developer's place: an empty folder, `fn` on the path, and a hub."""

    folder: Path
    hub: str
    _built: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Put `fn` on the path."""
        program = self.folder / "bin" / "fn"
        program.parent.mkdir()
        program.write_text(FN)
        program.chmod(0o755)

    def env(self, **more: str) -> dict[str, str]:
        """Return the environment of a shell there."""
        kept = {name: value for name, value in os.environ.items() if name not in DEVELOPERS_OWN}
        return kept | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "HUB": self.hub,
            **more,
        }

    def copy(self, purpose: str) -> Path:
        """Return a folder with a fresh copy of `examples`: deploying one writes its func.yaml."""
        made = self.folder / purpose
        shutil.copytree(EXAMPLES, made / "examples")
        return made

    def build(self, name: str) -> str:
        """Build the image of an example, once; return its name."""
        if name not in self._built:
            self._built[name] = f"{self.hub}/millrace/{name}:0.0.1"
            assert self._built[name] in self.fn(name, "build").good().out
        return self._built[name]

    def fn(self, name: str, *arguments: str) -> Said:
        """Type a command in a fresh copy of an example's folder."""
        folder = self.copy(f"{name}-{secrets.token_hex(4)}") / "examples" / name
        home = {"HUB": self.hub, "XDG_CONFIG_HOME": str(self.folder / "config")}
        return Fn(folder, home)(*arguments)

    async def follow(
        self, name: str, url: str, here: Mapping[str, str], *extra: readme.Step
    ) -> list[str]:
        """Do what an example's README says, on a platform; return what each step printed.

        `here` says what stands for the examples in the text; `extra` steps come before the last.
        """
        steps = readme.steps(EXAMPLES / name / "README.md")
        steps[-1:-1] = extra
        return await readme.follow(
            steps,
            self.copy(f"follow-{name}"),
            self.env(API_URL=url),
            {"127.0.0.1:8080": url.removeprefix("http://"), **here},
        )


def run(image: str, stdin: bytes, **env: str) -> str:
    """Return how an image answers a call without a platform: exit code, output, errors."""
    options = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
    done = subprocess.run(
        ["docker", "run", "--rm", "-i", *options, image],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return f"{done.returncode} {done.stdout.decode()}{done.stderr.decode()}".strip()
