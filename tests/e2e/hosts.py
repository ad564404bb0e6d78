"""How do several hosts play on one machine? Each has a network and a container engine of its own.

A host is a network namespace, joined by a pair of virtual cables to a bridge that they all share
with this machine, a mount namespace, and a dockerd in both, with its own data, containerd, iptables
and bridge. What runs on a host reaches this machine by the bridge's address alone. The engine may
be killed and started again, as a crash or an upgrade does: what it had mounted and the containers
that it ran are still there then. All of it goes when the play is over, also if it fails midway.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared import clock
from tests.e2e import images
from tests.e2e.platforms import Platform, Service

_TOOLS = ("ip", "iptables", "nsenter", "unshare", "dockerd")
_ENGINE_START_S, _ENGINE_END_S = 60, 30
#: A cable that is cut swallows what is sent, and tells nobody.
_CUT = (("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i"), ("FORWARD", "-o"))
#: An engine finds its identity in /etc/docker, so each host gets one of its own. A process that
#: does nothing else keeps the mounts, whatever becomes of the engine.
_OWN_ETC = (
    'mkdir -p /etc/docker && mount --bind "$0" /etc/docker && echo mounted && exec sleep infinity'
)


def require() -> None:
    """Skip or fail (see `images.unable`) unless hosts can be played here."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        images.unable(f"hosts are played with {', '.join(missing)}, which are not here")
    if os.geteuid() != 0:
        images.unable("hosts are played by root alone")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode().strip()}")
    return done.stdout.decode()


@dataclass
class Host:
    """A machine of the play: its name is that of its network namespace, and of its runner."""

    name: str
    address: str
    folder: Path
    #: The network whose registries its engine takes without TLS.
    lan: str
    runner: Service | None = None
    _cut: bool = field(default=False, init=False)
    _mounts: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _engine: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command is to begin with that is to run there."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    @property
    def socket(self) -> str:
        """Where its engine is reached, on this machine too."""
        return f"unix://{self.folder}/engine.sock"

    def docker(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Return what a docker command prints that is for its engine."""
        return images.docker("-H", self.socket, *arguments, stdin=stdin)

    def load(self, image: str) -> None:
        """Give its engine an image of this machine's, without any registry."""
        saved = subprocess.run(["docker", "save", image], capture_output=True, check=True)
        self.docker("load", stdin=saved.stdout)

    def containers(self, label: str) -> list[str]:
        """Return the ids of its containers with a label, running or not."""
        return self.docker("ps", "-aq", "--no-trunc", "--filter", f"label={label}").split()

    def cut(self) -> None:
        """Let packets between it and all others vanish."""
        self._cut = True
        for chain, side in _CUT:
            _run(*self.inside, "iptables", "-w", "-I", chain, side, "eth0", "-j", "DROP")

    def mend(self) -> None:
        """Let them through again."""
        if not self._cut:
            return
        self._cut = False
        for chain, side in _CUT:
            _run(*self.inside, "iptables", "-w", "-D", chain, side, "eth0", "-j", "DROP")

    def mount(self) -> None:
        """Give it mounts of its own, as long as it is there."""
        etc = self.folder / "etc"
        etc.mkdir()
        command = ("unshare", "--mount", "sh", "-c", _OWN_ETC, str(etc))
        self._mounts = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._mounts.stdout is not None
        if self._mounts.stdout.readline() != b"mounted\n":
            raise RuntimeError(f"{self.name} cannot have mounts of its own")

    def unmount(self) -> None:
        """Let its mounts go with the last process that has them."""
        if self._mounts is not None:
            self._mounts.kill()
            self._mounts.communicate()

    def start_engine(self) -> None:
        """Start its container engine, for the first time or again; see `wait_for_engine`."""
        assert self._mounts is not None
        here = self.folder
        command = (
            *(*self.inside, f"--mount=/proc/{self._mounts.pid}/ns/mnt"),
            *("dockerd", "--data-root", str(here / "data"), "--exec-root", str(here / "exec")),
            *("--pidfile", str(here / "engine.pid"), "-H", self.socket),
            *("--insecure-registry", self.lan),
        )
        with (here / "engine.log").open("ab") as log:
            self._engine = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_for_engine(self) -> None:
        """Wait until its engine answers."""
        until_s = clock.monotonic_s() + _ENGINE_START_S
        while True:
            try:
                self.docker("version")
            except (RuntimeError, subprocess.TimeoutExpired):
                if clock.monotonic_s() > until_s:
                    log = (self.folder / "engine.log").read_text(errors="replace")
                    pytest.fail(
                        f"the engine of {self.name} does not answer; its log:\n{log[-4000:]}"
                    )
                time.sleep(0.1)
            else:
                return

    def kill_engine(self) -> None:
        """End its engine as a crash does, with the containerd it has started; containers go on."""
        assert self._engine is not None
        self._engine.kill()
        self._engine.wait()
        self._kill_containerd()

    def stop_engine(self) -> None:
        """End its engine by SIGTERM, which ends its containers first; by SIGKILL if that fails."""
        assert self._engine is not None
        self._engine.terminate()
        try:
            self._engine.wait(_ENGINE_END_S)
        except subprocess.TimeoutExpired:
            self._engine.kill()
            self._engine.wait()
        # It ends by itself with its engine, unless that was killed.
        self._kill_containerd()

    def end(self) -> None:
        """Remove all its containers, and end its engine, in whatever state that is."""
        assert self._engine is not None
        with suppress(RuntimeError, subprocess.TimeoutExpired, pytest.fail.Exception):
            if self._engine.poll() is not None:
                self.start_engine()
            self.wait_for_engine()
            if left := self.docker("ps", "-aq").split():
                self.docker("rm", "-fv", *left)
        self.stop_engine()

    def _kill_containerd(self) -> None:
        folder = self.folder / "exec" / "containerd"
        noted = folder / "containerd.pid"
        with suppress(OSError, ValueError):
            pid = int(noted.read_text())
            if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        # The next engine would take it for alive as long as nobody has reaped it.
        noted.unlink(missing_ok=True)

    def join(self, platform: Platform, **settings: str) -> Service:
        """Start a runner there that knows of the platform where its Redis is."""
        self.runner = platform.add(
            "runner",
            starter=self.inside,
            address=self.address,
            DOCKER_HOST=self.socket,
            RUNNER_NAME=self.name,
            RUNNER_FOLDER=str(self.folder / "run"),
            **settings,
        )
        return self.runner


@dataclass(frozen=True)
class Lan:
    """The hosts, and the address by which they reach this machine."""

    gateway: str
    hosts: list[Host]


@contextmanager
def lan(count: int) -> Iterator[Lan]:
    """Play so many hosts while inside."""
    name, net = f"mr{secrets.token_hex(3)}", f"10.213.{secrets.randbelow(256)}"
    gateway = f"{net}.1"
    with ExitStack() as undo:
        _run("ip", "link", "add", name, "type", "bridge")
        undo.callback(_run, "ip", "link", "del", name)
        _run("ip", "addr", "add", f"{gateway}/24", "dev", name)
        _run("ip", "link", "set", name, "up")
        folder = Path(tempfile.mkdtemp(prefix="mr-"))  # paths of sockets must be short
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        hosts = []
        for number in range(1, count + 1):
            host = Host(
                f"{name}-{number}", f"{net}.{10 + number}", folder / str(number), f"{net}.0/24"
            )
            host.folder.mkdir()
            undo.enter_context(_wired(host, name, gateway))
            undo.enter_context(_engine(host))
            hosts.append(host)
        for host in hosts:
            host.wait_for_engine()
        yield Lan(gateway, hosts)


@contextmanager
def _wired(host: Host, bridge: str, gateway: str) -> Iterator[None]:
    """Give a host its network."""
    cable = f"{bridge}v{host.name.rpartition('-')[2]}"
    _run("ip", "netns", "add", host.name)
    try:
        _run(
            *("ip", "link", "add", cable, "type", "veth"),
            *("peer", "name", "eth0", "netns", host.name),
        )
        _run("ip", "link", "set", cable, "master", bridge, "up")
        inside = ("ip", "-n", host.name)
        _run(*inside, "link", "set", "lo", "up")
        _run(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "route", "add", "default", "via", gateway)
        yield
    finally:
        # Its end of the cable may live on for a while, with what still has the namespace open.
        with suppress(RuntimeError):
            _run("ip", "link", "del", cable)
        _run("ip", "netns", "del", host.name)


@contextmanager
def _engine(host: Host) -> Iterator[None]:
    """Run a container engine on a host."""
    host.mount()
    try:
        host.start_engine()
        try:
            yield
        finally:
            host.end()
    finally:
        host.unmount()


def sleeping(there: Lan, seconds: str) -> set[str]:
    """Return the names of the hosts on which a container runs `sleep` for so long."""
    wanted = f"sleep\0{seconds}\0".encode()
    found = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "cmdline").read_bytes() == wanted:
                found.add(_host_of(there, process))
    return found


def _host_of(there: Lan, process: Path) -> str:
    """Return the host of a process: that of the engine whose shim is among its ancestors."""
    while process.name != "0":
        command = (process / "cmdline").read_bytes().decode(errors="replace")
        for host in there.hosts:
            if f"{host.folder}/exec/" in command:
                return host.name
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        process = process.parent / fields[1]
    raise RuntimeError("it is no container of any host")


def engine_id(host: Host) -> str:
    """Return what a host's engine calls itself."""
    return str(json.loads(host.docker("info", "--format", "{{json .ID}}")))
