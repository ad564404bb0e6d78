"""What do the client's tests stand on? A platform that answers what a test wants."""

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fn import cli


@dataclass(frozen=True)
class Asked:
    """A request as the platform got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Told:
    """An answer."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class FakePlatform:
    """Answers what it was told to by method and path; remembers what it was asked."""

    url: str = ""
    answers: dict[str, Told] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, request: str, body: Any = None, status: int = 200, **headers: str) -> None:
        """Answer a request, as in "GET /v1/apps", from now on."""
        self.answers[request] = Told({} if body is None else body, status, headers)

    def refuse(self, request: str, status: int, message: str) -> None:
        """Answer a request with an error of the API."""
        self.answer(request, {"error": {"message": message}}, status)


def handler(platform: FakePlatform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers), body)
            platform.asked.append(asked)
            bare = f"{self.command} {self.path.partition('?')[0]}"
            told = platform.answers.get(bare, Told("Not Found", 404))
            raw = told.raw()
            self.send_response_only(told.status)
            for name, value in {"Date": self.date_time_string(), **told.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = serve  # noqa: N815 (the library's)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    """A platform that knows nothing yet."""
    yield from served(None)


def served(tls: ssl.SSLContext | None) -> Iterator[FakePlatform]:
    made = FakePlatform()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    made.url = f"http{'s' if tls else ''}://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody trusts, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


@pytest.fixture
def tls_fake(certificate: Path) -> Iterator[FakePlatform]:
    """The same behind TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    yield from served(tls)


@dataclass(frozen=True)
class Ended:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The line that says what is wrong; fails unless there is one and at most one hint."""
        lines = self.err.splitlines()
        assert 1 <= len(lines) <= 2, self.err
        assert lines[0].startswith("fn: "), self.err
        assert all(line.startswith("    ") for line in lines[1:]), self.err
        return lines[0].removeprefix("fn: ")

    @property
    def hint(self) -> str:
        """The line that helps."""
        assert self.complaint
        return self.err.splitlines()[1].strip()


Run = Callable[..., Ended]


@pytest.fixture
def run(
    fake: FakePlatform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Run:
    """Runs `fn` with arguments, against the fake platform unless `env` says otherwise."""
    for name in ("JWT_AUTH_KEY", "SSL_SKIP_VERIFY", "HUB", "FN_DEBUG", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("API_URL", fake.url)

    def run(*arguments: str, **env: str) -> Ended:
        with monkeypatch.context() as here:
            here.setattr("sys.argv", ["fn", *arguments])
            for name, value in env.items():
                here.setenv(name, value)
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main()
        told = capfd.readouterr()
        assert "Traceback" not in told.err
        return Ended(int(ended.value.code or 0), told.out, told.err)

    return run
