"""A hot function that does what its input says, step by step; any other input it echoes.

Its input is `{"steps": [[verb, argument], ...]}`. Before the first call it does the steps in
PUPPET_START. With PUPPET_UNREAD it answers a call having read so many bytes of it, and no other.
With PUPPET_NAMES its answers say to which call they belong.
"""

import base64
import json
import os
import socket
import sys
import time

NAMES_CALLS = "PUPPET_NAMES" in os.environ


class Http:
    """Calls and answers in HTTP: format `http`, and `http-stream` on each connection."""

    def __init__(self, source, send):
        self.source, self.write = source, send
        self.call_id = ""

    def read(self):
        length = 0
        while (line := self.source.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(": ")
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "task-id":
                self.call_id = value.strip()
        if not line:
            return None
        return self.source.read(length)

    def answer(self, body):
        named = f"Task-Id: {self.call_id}\r\n" if self.call_id and NAMES_CALLS else ""
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{named}\r\n"
        self.write(head.encode() + body)

    def begin(self, content_type):
        head = "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.write((head % content_type).encode())

    def chunk(self, data):
        self.write(b"%x\r\n%s\r\n" % (len(data), data))


class Json(Http):
    """Calls and answers in lines of JSON."""

    def read(self):
        line = self.source.readline()
        if not line:
            return None
        call = json.loads(line)
        self.call_id = call["call_id"]
        body = call["body"].encode()
        return base64.b64decode(body) if call["is_base64"] else body

    def answer(self, body):
        said = {"body": base64.b64encode(body).decode(), "is_base64": True}
        if NAMES_CALLS:
            said["call_id"] = self.call_id
        self.write(json.dumps(said).encode() + b"\n")


def do(channel, verb, argument):
    if verb == "answer":
        channel.answer(argument.encode())
    elif verb == "write":
        channel.write(base64.b64decode(argument))
    elif verb == "begin":
        channel.begin(argument)
    elif verb == "chunk":
        channel.chunk(argument.encode())
    elif verb == "chunks":
        count, size = argument
        for number in range(count):
            channel.chunk(b"%08d" % number * (size // 8))
    elif verb == "stdout":
        os.write(1, argument.encode())
    elif verb == "log":
        os.write(2, argument.encode())
    elif verb == "sleep":
        time.sleep(argument)
    elif verb == "wait":
        while not os.path.exists(argument):
            time.sleep(0.01)
    elif verb == "close":
        os.close(argument)
    elif verb == "exit":
        os._exit(argument)
    elif verb == "kill":
        os.kill(os.getpid(), argument)
    elif verb == "memory":
        kept = [bytearray(1 << 20) for _ in iter(int, 1)]
        del kept
    elif verb == "fork":
        # A child that lives on and holds everything open.
        if os.fork() == 0:
            time.sleep(argument)
            os._exit(0)
    elif verb == "run":
        exec(argument, {"channel": channel})
    else:
        raise ValueError(verb)


def handle(channel):
    """Handle one call; return False if there are no more."""
    payload = channel.read()
    if payload is None:
        return False
    if payload.startswith(b'{"steps"'):
        for step in json.loads(payload)["steps"]:
            do(channel, *step)
    else:
        channel.answer(payload)
    return True


def serve_standard(make):
    channel = make(sys.stdin.buffer, write_out)
    unread = int(os.environ.get("PUPPET_UNREAD", "0"))
    start(channel)
    while True:
        if unread:
            while unread:
                unread -= len(os.read(0, unread))
            channel.answer(b"unread")
            time.sleep(600)
        elif not handle(channel):
            return


def serve_socket():
    start(Http(sys.stdin.buffer, write_out))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["FN_LISTENER"].removeprefix("unix:"))
    listener.listen(16)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as source:
            try:
                handle(Http(source, connection.sendall))
            except OSError:
                pass


def write_out(data):
    while data:
        data = data[os.write(1, data) :]


def start(channel):
    for step in json.loads(os.environ.get("PUPPET_START", "[]")):
        do(channel, *step)


if __name__ == "__main__":
    how = os.environ["FN_FORMAT"]
    if how == "http-stream":
        serve_socket()
    else:
        serve_standard(Json if how == "json" else Http)
