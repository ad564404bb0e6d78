"""How does this file become the platform's `fn`? `fn upgrade`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

import fn
from fn import output, platform
from fn.commanding import examples
from fn.errors import Exit, FnError
from fn.version import version as own_version

_GOOD = 200
_EXECUTABLE = 0o755
_CHECK_TIMEOUT_S = 60


@click.command(epilog=examples("fn upgrade", "fn upgrade --force"))
@click.option("--force", is_flag=True, help="Also to an older version.")
def upgrade(force: bool) -> None:  # noqa: FBT001 (a flag)
    """Replace this file with the client that the platform serves, if that is another."""
    own = own_file()
    here = platform.current()
    offered, checksum = served(here)
    mine = checksum_of(own)
    names = told(own_version(), mine, offered, checksum)
    value = {"file": str(own), "from": own_version(), "to": offered, "upgraded": mine != checksum}
    if mine == checksum:
        output.show(value, f"fn {names[0]} is what {here.url} serves; nothing to do")
        return
    if numbers(offered) < numbers(own_version()) and not force:
        raise FnError(
            f"{own} is {names[0]}, and {here.url} serves the older {names[1]}",
            "`fn upgrade --force` goes back to it",
            Exit.REFUSED,
        )
    fresh = _downloaded(here, checksum)
    # From the replacement on, nothing can be imported: the file it would come from has gone.
    output.prepare()
    replace(own, fresh)
    output.show(value, f"{own} upgraded from {names[0]} to {names[1]}")


def own_file() -> Path:
    """Return the packed file that runs. Raises `FnError` if it runs from its source."""
    archive = getattr(fn.__spec__.loader, "archive", None) if fn.__spec__ else None
    if archive is None:
        raise FnError(
            "this fn runs from its source, and is no file that could be replaced",
            "`git pull` brings the source up to date",
        )
    return Path(archive).resolve()


def checksum_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def served(here: platform.Platform) -> tuple[str, str]:
    """Return version and SHA-256 of the client that a platform serves."""
    answer = here.fetch("GET", "/fn/sha256")
    words = answer.body.decode(errors="replace").split()
    if answer.status != _GOOD or not words or len(words[0]) != hashlib.sha256().digest_size * 2:
        raise FnError(
            f"{here.url} serves no fn", "Its operator packs one: `make fn images up`", Exit.REFUSED
        )
    return answer.headers.get("X-Fn-Version", "unknown"), words[0]


def told(own: str, mine: str, offered: str, checksum: str) -> tuple[str, str]:
    """Return both versions as they are told apart.

    >>> told("0.1.0", "aaaaaaaaaaaa", "0.2.0", "bbbbbbbbbbbb")
    ('0.1.0', '0.2.0')
    >>> told("0.1.0", "aaaaaaaaaaaa", "0.1.0", "bbbbbbbbbbbb")
    ('0.1.0 (aaaaaaaa)', '0.1.0 (bbbbbbbb)')
    """
    if own != offered or mine == checksum:
        return own, offered
    return f"{own} ({mine[:8]})", f"{offered} ({checksum[:8]})"


def numbers(version: str) -> list[int]:
    """Return a version's numbers, to be compared.

    >>> numbers("0.10.1") > numbers("0.9")
    True
    """
    return [int(part) for part in version.split(".") if part.isdigit()]


def _downloaded(here: platform.Platform, checksum: str) -> bytes:
    answer = here.fetch("GET", "/fn/download")
    if hashlib.sha256(answer.body).hexdigest() != checksum:
        raise FnError(
            f"what {here.url} sent is not what its checksum says",
            "Nothing was changed; try again",
            Exit.UNREACHABLE,
        )
    return answer.body


def replace(own: Path, fresh: bytes) -> None:
    """Put a new file into an old one's place, at once and only if it runs."""
    try:
        handle, name = tempfile.mkstemp(dir=own.parent, prefix=".fn-")
    except OSError as error:
        raise FnError(
            f"cannot write to {own.parent}: {error.strerror}",
            f"Run it as who owns the folder: sudo fn upgrade; nothing was changed in {own}",
        ) from error
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(fresh)
            stream.flush()
            os.fsync(stream.fileno())
        made.chmod(_EXECUTABLE)
        _check(made)
        made.replace(own)
    finally:
        made.unlink(missing_ok=True)


def _check(made: Path) -> None:
    """Let a new file run once. Raises `FnError` if it does not."""
    done = subprocess.run(
        [sys.executable, str(made), "--version"],
        capture_output=True,
        timeout=_CHECK_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise FnError(
            f"the new fn does not run here: {words[-1] if words else done.returncode}",
            "Nothing was changed",
        )
