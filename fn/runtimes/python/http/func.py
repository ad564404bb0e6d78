"""Greets whom a call's body names: an HTTP request per call, and a response per answer."""

import sys
from http.client import parse_headers


def greeting(name: str) -> str:
    """Return how a name is greeted; nobody in particular is the world."""
    return f"Hello, {name.strip() or 'World'}!\n"


def serve() -> None:
    """Answer call after call."""
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while stdin.readline():
        headers = parse_headers(stdin)
        name = stdin.read(int(headers["Content-Length"])).decode()
        body = greeting(name).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        stdout.write(head % len(body) + body)
        stdout.flush()


if __name__ == "__main__":
    serve()
