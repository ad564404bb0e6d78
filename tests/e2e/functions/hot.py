"""A hot function that does what its call asks for, in the format FN_FORMAT says.

The body is JSON: {"do": what, ...}. For the tests of everything that can go wrong.
"""

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

STDIN, STDOUT = sys.stdin.buffer, sys.stdout.buffer
HTTP = os.environ["FN_FORMAT"] == "http"
SEEN: list[bytearray] = []


def write(data: bytes) -> None:
    STDOUT.write(data)
    STDOUT.flush()


def http_calls() -> Iterator[tuple[dict[str, str], bytes]]:
    while STDIN.readline():
        headers = http.client.parse_headers(STDIN)
        yield dict(headers), STDIN.read(int(headers["Content-Length"]))


def json_calls() -> Iterator[tuple[dict[str, str], bytes]]:
    for line in STDIN:
        call = json.loads(line)
        yield {"Task-Id": call["call_id"]}, call["body"].encode()


def answer(body: bytes, status: int = 200, **headers: str) -> bytes:
    if not HTTP:
        said = {"status": status, "headers": headers, "content_type": "text/plain"}
        return json.dumps({**said, "body": body.decode()}).encode() + b"\n"
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream(pieces: list[str], pause_s: float = 0) -> None:
    write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for piece in pieces:
        write(f"{len(piece):x}\r\n{piece}\r\n".encode())
        time.sleep(pause_s)
    write(b"0\r\n\r\n")


def flood(size: int) -> None:
    write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"x" * 65536
    for _ in range(size // len(piece)):
        write(b"%x\r\n%s\r\n" % (len(piece), piece))
    write(b"0\r\n\r\n")


def late(after_s: float) -> None:
    write(answer(b"in time"))
    time.sleep(after_s)
    write(answer(b"far too late"))


def last_words() -> None:
    write(answer(b"last words"))
    os._exit(3)


def break_off() -> None:
    write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    os._exit(1)


def leave(code: int) -> None:
    os._exit(code)


def echo(echo: object = None, status: int = 200) -> None:
    told = {"pid": os.getpid(), "echo": echo, "env": os.environ.get("KEY", "")}
    write(answer(json.dumps(told).encode(), status, **{"X-Own": "yes"}))


DEEDS: dict[str, Callable[..., object]] = {
    "echo": echo,
    "exit": leave,
    "hang": lambda: time.sleep(1000),
    "garbage": lambda: write(b"this is no answer\n\n"),
    "twice": lambda: write(answer(b"one") + answer(b"two")),
    "answer and exit": last_words,
    "late": late,
    "allocate": lambda: SEEN.append(bytearray(1 << 30)),
    "stream": stream,
    "break off": break_off,
    "flood": flood,
}


def main() -> None:
    if os.environ.get("EARLY"):
        write(b"hello, is anybody there?\n")
        time.sleep(1000)
    for headers, body in http_calls() if HTTP else json_calls():
        asked = json.loads(body)
        sys.stderr.write(f"log of {headers['Task-Id']}\n")
        DEEDS[asked.pop("do")](**asked)


main()
