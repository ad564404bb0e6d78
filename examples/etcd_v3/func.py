"""Which value does a key of an etcd v3 server have, and give it this one.

Reads one request from standard input and answers on standard output:

    {"method": "put", "key": "/hello", "value": "hello word"}   ->   Put /hello success.
    {"method": "get", "key": "/hello"}                          ->   /hello : hello word

The server's address is in the environment, as `ETCD_SERVER`. Talks to etcd's own HTTP gateway
(etcd 3.4 and later), so it needs nothing but Python. What goes wrong is said on standard error,
and the exit code tells what kind it was: see `Problem`.
"""

# ruff: noqa: INP001 (a function's folder is what goes into its image, not a package)

import base64
import http.client
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DEFAULT_PORT = 2379
#: How long one server may take to answer before the next one of the list is asked, in seconds.
SERVER_TIMEOUT_S = 5.0

#: Asks etcd: path of the gateway and message to what it answers.
Ask = Callable[[str, dict[str, str]], dict[str, Any]]


class Problem(Exception):
    """Something the caller must be told; ends the function with `exit_code`."""

    exit_code = 1


class NoSuchKey(Problem):
    """etcd has no such key."""

    exit_code = 1


class BadRequest(Problem):
    """What stands on standard input is not a request."""

    exit_code = 2


class BadServer(Problem):
    """No etcd answers at `ETCD_SERVER`, or what answers refuses."""

    exit_code = 3


@dataclass(frozen=True)
class Server:
    """Where one etcd server listens."""

    host: str
    port: int
    tls: bool


def parse_servers(text: str) -> list[Server]:
    """Return the servers of `ETCD_SERVER`: host, host:port or http://host:port, comma-separated.

    >>> parse_servers("http://10.0.0.1:2379, db")
    [Server(host='10.0.0.1', port=2379, tls=False), Server(host='db', port=2379, tls=False)]
    """
    servers = [_parse_server(part.strip()) for part in text.split(",") if part.strip()]
    if not servers:
        raise BadServer("ETCD_SERVER is not set; the app's config needs it, as 10.0.0.1:2379")
    return servers


def _parse_server(text: str) -> Server:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"}:
        raise BadServer(f"ETCD_SERVER: {text!r} is neither host:port nor http://host:port")
    return Server(host, port, tls=parts.scheme == "https")


def parse_request(raw: bytes) -> dict[str, str]:
    """Return a well-formed request: method, key, and for a put the value."""
    if not raw.strip():
        raise BadRequest('standard input is empty; say {"method": "get", "key": "/hello"}')
    try:
        request = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"standard input is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest('standard input is not a JSON object like {"method": "get", "key": "/a"}')
    method = request.get("method")
    if method not in ("put", "get"):
        raise BadRequest(f'"method" is {json.dumps(method)}; it must be "put" or "get"')
    needed = ("key", "value") if method == "put" else ("key",)
    for field in needed:
        if not isinstance(request.get(field), str):
            raise BadRequest(f'"{field}" is missing or not a string; {method} needs it')
    if not request["key"]:
        raise BadRequest('"key" is empty')
    return {"method": method, **{field: request[field] for field in needed}}


def perform(request: Mapping[str, str], ask: Ask) -> bytes:
    """Return the answer to a request, asking etcd by `ask`."""
    key = request["key"]
    encoded = _encode(key)
    if request["method"] == "put":
        ask("/v3/kv/put", {"key": encoded, "value": _encode(request["value"])})
        return f"Put {key} success.".encode()
    found = ask("/v3/kv/range", {"key": encoded}).get("kvs")
    if not found:
        raise NoSuchKey(f"{key} : no such key")
    # etcd leaves out an empty value; one that is not text goes through as it is.
    return key.encode() + b" : " + base64.b64decode(found[0].get("value", ""))


def _encode(text: str) -> str:
    """Return text as the gateway wants bytes; lone surrogates of JSON become question marks."""
    return base64.b64encode(text.encode("utf-8", "replace")).decode()


def ask_first_of(servers: list[Server]) -> Ask:
    """Return an `Ask` that goes to the first of these servers that answers."""

    def ask(path: str, message: dict[str, str]) -> dict[str, Any]:
        failures = []
        for server in servers:
            try:
                return _post(server, path, message)
            except (OSError, http.client.HTTPException, ValueError) as error:
                why = str(error) or type(error).__name__
                failures.append(f"{server.host}:{server.port}: {why}")
        raise BadServer("no etcd answers: " + "; ".join(failures))

    return ask


def _post(server: Server, path: str, message: dict[str, str]) -> dict[str, Any]:
    """Return etcd's answer. Raises OSError, HTTPException or ValueError if none came."""
    kind = http.client.HTTPSConnection if server.tls else http.client.HTTPConnection
    connection = kind(server.host, server.port, timeout=SERVER_TIMEOUT_S)
    try:
        connection.request("POST", path, body=json.dumps(message))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        said = body.decode("utf-8", "replace").strip()
        raise BadServer(f"{server.host}:{server.port} answers {response.status}: {said}")
    answer: dict[str, Any] = json.loads(body)
    return answer


def main() -> int:
    """Serve one call; return the exit code."""
    try:
        request = parse_request(sys.stdin.buffer.read())
        servers = parse_servers(os.environ.get("ETCD_SERVER", ""))
        sys.stdout.buffer.write(perform(request, ask_first_of(servers)) + b"\n")
    except Problem as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
