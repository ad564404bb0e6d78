"""How is a function called on this machine, as the platform would? One container for one call."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from fn import engine, framing, imagenames
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fn.framing import Answer, Call

_ENGINE_FAILED, _CANNOT_START, _NOT_FOUND, _KILLED = 125, 126, 127, 137
_LISTENER_FOLDER = "/tmp/iofs"  # noqa: S108 (the contract's own, inside of the container)
_PIDS, _FILES, _FILE_MAX_BYTES = 256, 16_384, 1024 * 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What a function may use, and how it is spoken to."""

    format: str = "default"
    memory_mb: int = 128
    cpus: float = 1.0
    timeout_s: int = 30
    #: The engine's own `--link`, as they were written.
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a call."""

    answer: Answer
    #: Why it failed; "" if it did not.
    failure: str = ""
    log: bytes = b""
    elapsed_s: float = 0.0


@dataclass
class _Container:
    """A container of one call, with what it says."""

    name: str
    process: subprocess.Popen[bytes]
    timed_out: threading.Event = field(default_factory=threading.Event)

    def kill(self) -> None:
        """End it, whatever it does."""
        subprocess.run([engine.DOCKER, "kill", self.name], capture_output=True, check=False)


def call(image: str, call: Call, limits: Limits, log: IO[bytes] | None = None) -> Outcome:
    """Run one call in a container of its own; return what became of it.

    What the function writes to standard error goes to `log`, or into the outcome.
    Raises `FnError` if no container can be started.
    """
    begun = time.monotonic()
    with tempfile.TemporaryFile() as kept, tempfile.TemporaryDirectory(prefix="fn-") as folder:
        Path(folder).chmod(0o1777)
        said = log or kept
        with _running(image, call, limits, folder, said) as container:
            answer, failure = _SPOKEN[limits.format](container, call, folder, limits)
        code = container.process.returncode
        kept.seek(0)
        written = kept.read()
        if code == _ENGINE_FAILED:
            said.seek(0)
            _raise_if_refused(image, said.read().decode(errors="replace"), answer)
        if container.timed_out.is_set():
            failure = f"it was ended after {limits.timeout_s} s, its timeout"
        elif failure or limits.format == "default":
            failure = _ending(code, limits) or failure
        return Outcome(answer or framing.Answer(), failure, written, time.monotonic() - begun)


def _raise_if_refused(image: str, written: str, answer: Answer | None) -> None:
    """Raise `FnError` if it was the engine that ended so, and not the function itself."""
    complaint = engine.last_line(written)
    if answer is not None and (answer.body or not complaint.startswith(f"{engine.DOCKER}: ")):
        return
    registry = imagenames.registry_of(image)
    raise engine.meaning(complaint, registry) or FnError(
        f"{image}: {complaint.partition(': ')[2] or complaint}", "", Exit.FAILED
    )


def _ending(code: int, limits: Limits) -> str:
    """Return why a container ended that way; "" if it ended well."""
    if code == _KILLED:
        return f"it was killed, most likely for using more than its {limits.memory_mb} MB of memory"
    if code in {_CANNOT_START, _NOT_FOUND}:
        return f"its command cannot be started (exit code {code})"
    return f"exit code {code}" if code > 0 else ""


@contextlib.contextmanager
def _running(
    image: str, call: Call, limits: Limits, folder: str, log: IO[bytes]
) -> Iterator[_Container]:
    name = f"fn-run-{secrets.token_hex(6)}"
    command = [engine.DOCKER, *arguments(image, call, limits, name, folder)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    except FileNotFoundError as error:
        raise engine.missing() from error
    container = _Container(name, process)

    def give_up() -> None:
        container.timed_out.set()
        container.kill()

    timer = threading.Timer(limits.timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        with process:
            try:
                yield container
            except BaseException:
                container.kill()
                raise
    finally:
        timer.cancel()


def arguments(image: str, call: Call, limits: Limits, name: str, folder: str) -> list[str]:
    """Return what the engine's command is told: the limits of a sandbox, and the environment."""
    memory = f"{limits.memory_mb}m"
    cpus = min(limits.cpus, float(os.cpu_count() or 1))
    told = [
        "run", "--rm", "--interactive", "--name", name, "--hostname", "function",
        "--memory", memory, "--memory-swap", memory, "--cpus", f"{cpus:g}",
        "--pids-limit", str(_PIDS), "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--ulimit", "core=0", "--ulimit", f"nofile={_FILES}",
        "--ulimit", f"fsize={_FILE_MAX_BYTES}", "--shm-size", "16m", "--log-driver", "none",
    ]  # fmt: skip
    for link in limits.links:
        told += ["--link", link]
    if limits.format == "http-stream":
        told += ["--volume", f"{folder}:{_LISTENER_FOLDER}"]
    for variable, value in framing.environment(call, limits.format, limits.memory_mb).items():
        told += ["--env", f"{variable}={value}"]
    return [*told, image]


def _speak_once(container: _Container, call: Call, _: str, __: Limits) -> tuple[Answer | None, str]:
    """Speak `default`: the body in, all output is the answer."""
    out, _nothing = container.process.communicate(call.body)
    return framing.Answer(body=out), ""


def _speak_lines(
    container: _Container, call: Call, _: str, __: Limits
) -> tuple[Answer | None, str]:
    """Speak `json`: a line in, a line out."""
    stdout = _told(container, framing.json_request(call))
    line = stdout.readline()
    while line in {b"\n", b"\r\n"}:
        line = stdout.readline()
    _end(container)
    return _parsed(lambda: framing.json_answer(line)) if line else (None, _SILENT)


def _speak_http(container: _Container, call: Call, _: str, __: Limits) -> tuple[Answer | None, str]:
    """Speak `http`: a request in, a response out."""
    stdout = _told(container, framing.http_request(call))
    found = _parsed(lambda: framing.http_answer(stdout))
    _end(container)
    return found


def _speak_socket(
    container: _Container, call: Call, folder: str, limits: Limits
) -> tuple[Answer | None, str]:
    """Speak `http-stream`: a POST on the socket that the function listens on."""
    path = Path(folder) / framing.LISTENER.rpartition("/")[2]
    until = time.monotonic() + limits.timeout_s
    while not path.exists() and container.process.poll() is None:
        if time.monotonic() > until:
            break
        time.sleep(0.02)
    if not path.exists():
        _end(container)
        return None, f"it does not listen on {framing.LISTENER}"
    connection = _SocketConnection(str(path))
    try:
        connection.request("POST", "/call", call.body, framing.stream_headers(call))
        response = connection.getresponse()
        answer = framing.stream_answer(response.status, response.getheaders(), response.read())
    except (OSError, http.client.HTTPException) as error:
        return None, f"it does not answer on its socket: {error or type(error).__name__}"
    finally:
        connection.close()
        _end(container)
    return answer, "" if response.status < http.client.BAD_GATEWAY else "the function failed"


_SILENT = "it ended without an answer"
_SPOKEN: dict[str, Any] = {
    "default": _speak_once,
    "json": _speak_lines,
    "http": _speak_http,
    "http-stream": _speak_socket,
}


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _told(container: _Container, request: bytes) -> IO[bytes]:
    """Write a request; return where the answer comes. A process that is gone has read nothing."""
    stdin = cast("IO[bytes]", container.process.stdin)
    with contextlib.suppress(BrokenPipeError):
        stdin.write(request)
        stdin.flush()
    return cast("IO[bytes]", container.process.stdout)


def _end(container: _Container) -> None:
    """Let the process see the end of its input; one that goes on is ended."""
    stdin = cast("IO[bytes]", container.process.stdin)
    with contextlib.suppress(BrokenPipeError):
        stdin.close()
    try:
        container.process.wait(1)
    except subprocess.TimeoutExpired:
        container.kill()
        container.process.wait()


def _parsed(parse: Any) -> tuple[Answer | None, str]:  # noqa: ANN401 (a function of no arguments)
    try:
        return parse(), ""
    except framing.BadAnswer as error:
        return None, str(error)
