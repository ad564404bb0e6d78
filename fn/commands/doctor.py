"""What is missing on this machine, and how is it to be had? `fn doctor`."""

from __future__ import annotations

import os
import platform as machine
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import urllib3

from fn import contexts, hints, output, platform
from fn.commanding import examples
from fn.commands import runners, upgrade
from fn.errors import Exit, FnError
from fn.version import version as own_version

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENGINE_TIMEOUT_S = 20
_HUB_TIMEOUT_S = 5.0
_HUB_ANSWERS = (200, 401)
#: Where the engine looks for the authorities of registries.
_ENGINES_CERTIFICATES = Path("/etc/docker/certs.d")


@dataclass(frozen=True)
class Finding:
    """What one look has shown."""

    what: str
    state: str
    detail: str
    #: How to get it, or set it right; "" if all is well.
    help: str = ""
    #: How `fn doctor` ends because of it.
    code: Exit = Exit.OK


def ok(what: str, detail: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(what, "ok", detail)


def missing(what: str, detail: str, help_: str, code: Exit = Exit.UNREACHABLE) -> Finding:
    """Return that something is not there, or not as it should be."""
    return Finding(what, "missing", detail, help_, code)


@click.command(epilog=examples("fn doctor", "fn doctor -o json"))
def doctor() -> None:
    """Look at what `fn` needs here: Python, engine, platform, token, hub, PATH.

    The exit code is 0 if nothing is missing; 5 if the engine, the platform or the hub is.
    """
    found = list(_findings())
    rows = [(f.what, f.state, f.detail, f.help) for f in found]
    told = [{k: v for k, v in asdict(f).items() if k != "code"} for f in found]
    output.show(told, output.Table(("what", "state", "found", "how to get it"), rows))
    worst = max(f.code for f in found)
    if worst:
        click.get_current_context().exit(worst)


def _findings() -> Iterator[Finding]:
    yield ok("python", f"{machine.python_version()} at {sys.executable}")
    yield _path()
    yield _engine()
    try:
        context = contexts.current()
    except FnError as error:
        yield missing("context", error.message, error.hint, error.code)
        return
    yield ok("context", f"{context.api_url}{' with a key' if context.jwt_auth_key else ''}")
    yield from _platform(context)


def _path() -> Finding:
    """Tell whether typing `fn` starts this one."""
    try:
        own = upgrade.own_file()
    except FnError:
        return ok("fn", f"{own_version()} from its source")
    first = shutil.which("fn")
    if first is None:
        line = f'export PATH="{own.parent}:$PATH"'
        return missing("fn", f"{own} is not in the PATH", f"{line}   # in ~/.profile", Exit.USAGE)
    if Path(first).resolve() != own:
        return missing("fn", f"typing fn starts {first}, not {own}", f"rm {first}", Exit.USAGE)
    return ok("fn", f"{own_version()} at {own}")


def _engine() -> Finding:
    """Tell whether images can be built and run here."""
    client = shutil.which("docker")
    if client is None:
        return missing("engine", "no docker command", engine_help(sys.platform))
    try:
        done = subprocess.run(
            [client, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=_ENGINE_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return missing("engine", f"it does not answer in {_ENGINE_TIMEOUT_S} s", "restart it")
    if done.returncode == 0:
        return ok("engine", f"docker {done.stdout.decode().strip()}")
    words = " ".join(done.stderr.decode(errors="replace").split())
    return missing("engine", words[:160], engine_down_help(words))


def engine_help(system: str) -> str:
    """Return how a machine gets a container engine.

    >>> engine_help("darwin")
    'install Docker Desktop, or: brew install colima docker && colima start'
    """
    if system == "darwin":
        return "install Docker Desktop, or: brew install colima docker && colima start"
    return "Debian, Ubuntu: sudo apt-get install docker.io; Fedora: sudo dnf install docker"


def engine_down_help(words: str) -> str:
    """Return what helps if the engine's client cannot use it, by its words."""
    if "permission denied" in words.lower():
        return "sudo usermod -aG docker $USER, and log in again"
    if os.environ.get("DOCKER_HOST"):
        return f"is DOCKER_HOST={os.environ['DOCKER_HOST']} right?"
    return "sudo systemctl start docker"


def _platform(context: contexts.Context) -> Iterator[Finding]:
    here = platform.Platform(context)
    try:
        told = here.ask("GET", "/version")
    except FnError as error:
        yield missing("api", error.message, error.hint, error.code)
        return
    yield ok("api", f"{told.get('version')} at {here.url}")
    try:
        found = here.ask("GET", "/v1/runners")["runners"]
    except FnError as error:
        what = "token" if error.code == Exit.UNAUTHORIZED else "runners"
        yield missing(what, error.message, error.hint, error.code)
        return
    yield ok("token", "accepted" if context.jwt_auth_key else "none is asked for")
    yield _runners(found)
    yield _client(here)
    yield _hub(context, here)


def _runners(found: list[dict[str, Any]]) -> Finding:
    able = [runner for runner in found if runners.state(runner) == "ready"]
    detail = f"{len(able)} of {len(found)} ready"
    if able:
        return ok("runners", detail)
    return missing("runners", detail, "on the platform's machine: make ps, make up")


def _client(here: platform.Platform) -> Finding:
    """Tell whether this client is the platform's."""
    try:
        own = upgrade.own_file()
        offered, checksum = upgrade.served(here)
    except FnError as error:
        return Finding("client", "ok", error.message)
    if upgrade.checksum_of(own) == checksum:
        return ok("client", f"the platform's own, {offered}")
    return Finding("client", "other", f"the platform serves {offered}", "fn upgrade")


def _hub(context: contexts.Context, here: platform.Platform) -> Finding:
    try:
        address = context.hub or str(here.ask("GET", "/v1/version").get("hub") or "")
    except FnError as error:
        return missing("hub", error.message, error.hint, error.code)
    if not address:
        return missing("hub", "the platform names none", "set HUB=HOST:5000")
    why = hub_trouble(address)
    if why:
        return missing("hub", f"{address}: {why}", "is HUB right, and the registry running?")
    return ok("hub", address)


def hub_trouble(address: str) -> str:
    """Return why a registry does not answer; "" if it does, by HTTPS or by HTTP."""
    why = ""
    host = address.partition("/")[0]
    known = _ENGINES_CERTIFICATES / host / "ca.crt"
    pool = urllib3.PoolManager(ca_certs=str(known) if known.is_file() else None)
    for scheme in ("https", "http"):
        url = f"{scheme}://{host}/v2/"
        try:
            answer = pool.request("GET", url, timeout=_HUB_TIMEOUT_S, retries=False)
        except urllib3.exceptions.HTTPError as error:
            why = hints.unreachable(url, error)[0]
            if hints.is_distrust(error):
                break
            continue
        if answer.status in _HUB_ANSWERS:
            return ""
        why = f"it answers {answer.status}"
    return why
