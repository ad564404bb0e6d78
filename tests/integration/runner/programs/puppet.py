"""A hot function that does what its input says, step by step; any other input it echoes.

Its input is `{"steps": [[verb, argument], ...]}`. Before the first call it does the steps in
PUPPET_START. With PUPPET_UNREAD it answers each call having read so many bytes of it.
"""

import base64
import json
import os
import socket
import sys
import time


class Http:
    """Calls and answers in HTTP: format `http`, and `http-stream` on each connection."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink

    def read(self):
        length = 0
        while (line := self.source.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not line:
            return None
        return self.source.read(length)

    def answer(self, body):
        head = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.write(head.encode() + body)

    def begin(self, content_type):
        head = "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.write((head % content_type).encode())

    def chunk(self, data):
        self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def write(self, data):
        self.sink.write(data)
        self.sink.flush()


class Json(Http):
    """Calls and answers in lines of JSON."""

    def read(self):
        line = self.source.readline()
        if not line:
            return None
        call = json.loads(line)
        body = call["body"].encode()
        return base64.b64decode(body) if call["is_base64"] else body

    def answer(self, body):
        said = {"body": base64.b64encode(body).decode(), "is_base64": True}
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
    channel = make(sys.stdin.buffer, sys.stdout.buffer)
    unread = int(os.environ.get("PUPPET_UNREAD", "0"))
    start(channel)
    while True:
        if unread:
            os.read(0, unread)
            channel.answer(b"unread")
        elif not handle(channel):
            return


def serve_socket():
    start(Http(sys.stdin.buffer, sys.stdout.buffer))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["FN_LISTENER"].removeprefix("unix:"))
    listener.listen(16)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as source, connection.makefile("wb") as sink:
            try:
                handle(Http(source, sink))
            except OSError:
                pass


def start(channel):
    for step in json.loads(os.environ.get("PUPPET_START", "[]")):
        do(channel, *step)


if __name__ == "__main__":
    how = os.environ["FN_FORMAT"]
    if how == "http-stream":
        serve_socket()
    else:
        serve_standard(Json if how == "json" else Http)
