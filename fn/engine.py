"""How is the container engine asked? The `docker` command, and what its complaints mean."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DOCKER = "docker"
#: What a push or a pull says of one layer: which, and what becomes of it.
LAYER = re.compile(r"([0-9a-f]{12}): (.+)")
_NOTE = re.compile(
    r"^(DEPRECATED: The legacy builder|\s+Install the buildx|\s+https://docs\.docker)"
)
#: What of the engine's words means what: a part of them, our line, our hint, the exit code.
_MEANINGS: tuple[tuple[str, str, str, Exit], ...] = (
    (
        r"cannot connect to the docker daemon|is the docker daemon running|error during connect",
        "the container engine does not answer",
        "Start it (sudo systemctl start docker, or dockerd), or say where it is: DOCKER_HOST.",
        Exit.UNREACHABLE,
    ),
    (
        r"permission denied while trying to connect",
        "you may not use the container engine",
        "Join its group (sudo usermod -aG docker $USER, then log in anew), or use sudo.",
        Exit.UNREACHABLE,
    ),
    (
        r"unauthorized|authentication required|no basic auth cred|denied: requested|incorrect user",
        "the registry does not know your password",
        "Log in: docker login {registry}",
        Exit.UNAUTHORIZED,
    ),
    (
        r"server gave http response to https client",
        "the registry speaks HTTP, and the engine expects HTTPS of it",
        'Add {registry} to "insecure-registries" in /etc/docker/daemon.json; restart the engine.',
        Exit.UNREACHABLE,
    ),
    (
        r"x509|certificate",
        "the engine does not trust the registry's certificate",
        "Put its authority into /etc/docker/certs.d/{registry}/ca.crt.",
        Exit.UNREACHABLE,
    ),
    (
        r"connection refused|no such host|timeout|no route to host|deadline|unreachable",
        "the registry {registry} does not answer",
        "Is it up (make up on the platform's machine)? HUB=host:port names another one.",
        Exit.UNREACHABLE,
    ),
    (
        r"no space left on device",
        "the disk of the container engine is full",
        "Make room: docker system prune",
        Exit.FAILED,
    ),
)


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """What it wrote to standard output."""
        return self.out.decode(errors="replace").strip()

    @property
    def complaint(self) -> str:
        """The last line of what it wrote to standard error, without the engine's advice."""
        return last_line(self.err.decode(errors="replace"))


def last_line(text: str) -> str:
    """Return the last line that says something."""
    said = [line.strip() for line in text.splitlines() if line.strip() and not _NOTE.match(line)]
    said = [line for line in said if not line.startswith(("See 'docker", "Run 'docker"))]
    return said[-1] if said else ""


def meaning(complaint: str, registry: str = "") -> FnError | None:
    """Return what the engine's words mean, if that is known; pure."""
    for pattern, message, hint, code in _MEANINGS:
        if re.search(pattern, complaint, re.IGNORECASE):
            where = registry or "registry"
            return FnError(message.format(registry=where), hint.format(registry=where), code)
    return None


def ask(*arguments: str, stdin: bytes | None = None, timeout_s: float | None = None) -> Said:
    """Run a docker command; return how it ended. Raises `FnError` if no engine can be asked."""
    try:
        done = subprocess.run(
            [DOCKER, *arguments], input=stdin, capture_output=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise missing() from error
    said = Said(done.returncode, done.stdout, done.stderr)
    if said.code:
        known = meaning(said.err.decode(errors="replace"))
        if known and known.code == Exit.UNREACHABLE and "container engine" in known.message:
            raise known
    return said


def must(*arguments: str, registry: str = "", what: str = "") -> Said:
    """Run a docker command that has to work. Raises `FnError` with the engine's complaint."""
    said = ask(*arguments)
    if said.code:
        known = meaning(said.complaint, registry)
        raise known or FnError(
            f"{what or 'docker ' + arguments[0]}: {said.complaint}", "", Exit.FAILED
        )
    return said


def missing() -> FnError:
    """Return the error for a machine without the docker command."""
    return FnError(
        "there is no container engine here: no `docker` command",
        "Install one (Debian, Ubuntu: sudo apt-get install docker.io), then: fn doctor",
        Exit.UNREACHABLE,
    )


def follow(
    *arguments: str,
    each_line: Callable[[str], None],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Run a docker command, telling each line as it comes; return its exit code and all lines."""
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            [DOCKER, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=None if environment is None else dict(environment),
        )
    except FileNotFoundError as error:
        raise missing() from error
    with process:
        for raw in process.stdout or ():
            line = raw.decode(errors="replace").rstrip()
            if not _NOTE.match(line):
                lines.append(line)
                each_line(line)
    return process.returncode, lines


def has_image(name: str) -> bool:
    """Return whether the engine has an image."""
    return not ask("image", "inspect", name).code
