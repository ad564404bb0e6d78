"""How does a call look in each format, and what is its answer? Pure; see docs/formats.md."""

from __future__ import annotations

import base64
import binascii
import http.client
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LISTENER = "/tmp/iofs/lsnr.sock"  # noqa: S108 (the contract's own, inside of the container)
_SHOWN_BYTES = 80


class BadAnswer(ValueError):
    """A function wrote what its format does not allow."""


@dataclass(frozen=True)
class Call:
    """One call of a function."""

    body: bytes = b""
    method: str = "POST"
    app: str = "local"
    path: str = "/"
    url: str = "http://localhost:8080/r/local/"
    call_id: str = "00000000-0000-7000-8000-000000000000"
    #: When it must be answered, epoch milliseconds.
    deadline_ms: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    #: Config, by the names that functions see.
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def deadline(self) -> str:
        """The deadline as RFC 3339 has it."""
        at = datetime.fromtimestamp(self.deadline_ms / 1000, timezone.utc)
        return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.deadline_ms % 1000:03}Z"


@dataclass(frozen=True)
class Answer:
    """What a function answered."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def variable_name(key: str) -> str:
    """Return the environment's name for a config key or header.

    >>> variable_name("Content-Type")
    'CONTENT_TYPE'
    """
    return key.upper().replace("-", "_")


def call_environment(call: Call) -> dict[str, str]:
    """Return what a process of format `default` finds in its environment."""
    found = {variable_name(key): value for key, value in call.config.items()}
    found |= {
        "METHOD": call.method,
        "ROUTE": call.path,
        "REQUEST_URL": call.url,
        "CALL_ID": call.call_id,
        "APP_NAME": call.app,
    }
    sent: dict[str, str] = {}
    for key, value in call.headers:
        name = "HEADER_" + variable_name(key)
        sent[name] = f"{sent[name]} {value}" if name in sent else value
    return {**found, **sent, "DEADLINE": str(call.deadline_ms)}


def environment(call: Call, format_: str, memory_mb: int) -> dict[str, str]:
    """Return the environment in which a process of a format is started."""
    if format_ == "default":
        return call_environment(call)
    config = {variable_name(key): value for key, value in call.config.items()}
    if format_ != "http-stream":
        return {**config, "FN_FORMAT": format_}
    name = call.path.lstrip("/")
    return {
        **config,
        "FN_FORMAT": format_,
        "FN_LISTENER": f"unix:{LISTENER}",
        "FN_MEMORY": str(memory_mb),
        "FN_TYPE": "sync",
        "FN_APP_ID": call.app,
        "FN_APP_NAME": call.app,
        "FN_FN_ID": f"{call.app}/{name}",
        "FN_FN_NAME": name,
    }


def json_request(call: Call) -> bytes:
    """Return a call's line in format `json`."""
    try:
        body, is_base64 = call.body.decode(), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(call.body).decode(), True
    headers: dict[str, list[str]] = {}
    for name, value in call.headers:
        headers.setdefault(_canonical(name), []).append(value)
    line = {
        "call_id": call.call_id,
        "method": call.method,
        "request_url": call.url,
        "headers": headers,
        "content_type": next(iter(headers.get("Content-Type", [])), ""),
        "deadline": call.deadline,
        "deadline_ms": call.deadline_ms,
        "body": body,
        "is_base64": is_base64,
    }
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def json_answer(line: bytes) -> Answer:
    """Return what a line in format `json` answers. Raises `BadAnswer`."""
    try:
        said: dict[str, Any] = json.loads(line)
        headers = [
            (name, value)
            for name, values in said.get("headers", {}).items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        if said.get("content_type"):
            headers = [pair for pair in headers if pair[0].lower() != "content-type"]
            headers.append(("Content-Type", said["content_type"]))
        return Answer(int(said.get("status", 200)), tuple(headers), _json_body(said))
    except (ValueError, AttributeError, TypeError) as error:
        raise BadAnswer(
            f"its answer is no line of JSON as docs/formats.md has it: {_begin(line)}"
        ) from error


def _json_body(said: dict[str, Any]) -> bytes:
    body = said.get("body")
    if body is None:
        return b""
    if said.get("is_base64"):
        try:
            return binascii.a2b_base64(body)
        except binascii.Error as error:
            raise ValueError(str(error)) from error
    return body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()


def http_request(call: Call) -> bytes:
    """Return a call as an HTTP request in IronFunctions' form."""
    lines = ["GET / HTTP/1.1"]
    for variable, value in call_environment(call).items():
        clean = "".join(c if c.isprintable() else " " for c in value)
        lines.append(f"{variable.capitalize()}: {clean}")
    lines += [f"Content-Length: {len(call.body)}", f"Task-Id: {call.call_id}", "", ""]
    return "\r\n".join(lines).encode() + call.body


def http_answer(stream: IO[bytes]) -> Answer:
    """Return the answer that stands in a stream, reading no more than that. Raises `BadAnswer`."""
    response = http.client.HTTPResponse(_Sock(stream))  # type: ignore[arg-type]  # all it uses of one
    try:
        response.begin()
        return Answer(response.status, tuple(response.getheaders()), response.read())
    except http.client.BadStatusLine as error:
        said = str(error).strip("'\"")
        if not said or isinstance(error, http.client.RemoteDisconnected):
            raise BadAnswer("it ended without an answer") from error
        raise BadAnswer(f"its answer is no HTTP: {said[:_SHOWN_BYTES]}") from error
    except http.client.HTTPException as error:
        raise BadAnswer(f"its answer is no whole HTTP response: {error!r}") from error


class _Sock:
    """As much of a socket as a response is read by."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def makefile(self, _: str) -> IO[bytes]:
        """Return the stream itself: it has one answer, and is closed behind it."""
        return self._stream


def stream_headers(call: Call) -> dict[str, str]:
    """Return the headers of a call in format `http-stream`."""
    sent = {f"Fn-Http-H-{_canonical(name)}": value for name, value in call.headers}
    types = [value for name, value in call.headers if name.lower() == "content-type"]
    return {
        **sent,
        "Fn-Call-Id": call.call_id,
        "Fn-Deadline": call.deadline,
        "Fn-Intent": "httprequest",
        "Fn-Http-Method": call.method,
        "Fn-Http-Request-Url": call.url,
        "Content-Type": types[0] if types else "application/octet-stream",
        "Content-Length": str(len(call.body)),
    }


def stream_answer(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
    """Return what the caller gets of an answer in format `http-stream`."""
    passed: list[tuple[str, str]] = []
    for name, value in headers:
        lower = name.lower()
        if lower == "fn-http-status" and value.isdigit():
            status = int(value)
        elif lower.startswith("fn-http-h-"):
            passed.append((name[len("fn-http-h-") :], value))
        elif lower == "content-type":
            passed.append((name, value))
    return Answer(status, tuple(passed), body)


def _canonical(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))


def _begin(data: bytes) -> str:
    return repr(data[:_SHOWN_BYTES])[1:]
