"""Who calls back? Waits on a port for one callback of the platform, prints it, and ends.

    CALLBACK_SECRET=$(fn apps callback-secret demo) python3 receiver.py 9000

It takes only a callback that is signed with the app's secret, and not long ago.
"""

# ruff: noqa: INP001 (it stands beside the function, and is no package either)

import hashlib
import hmac
import os
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = os.environ.get("CALLBACK_SECRET", "")
#: How old a signature may be, so that nobody can send again what he once saw, in seconds.
TOLERANCE_S = 300


def is_signed(body: bytes, signature: str, now_s: float) -> bool:
    """Return whether a callback comes from the platform: see docs/callbacks.md."""
    stamp, *given = signature.encode().split(b",")
    seconds = stamp.removeprefix(b"t=")
    expected = (
        b"v1=" + hmac.digest(SECRET.encode(), seconds + b"." + body, hashlib.sha256).hex().encode()
    )
    fresh = seconds.isdigit() and abs(now_s - int(seconds)) <= TOLERANCE_S
    return fresh and any(hmac.compare_digest(expected, each) for each in given)


class Receiver(BaseHTTPRequestHandler):
    """Takes the callback."""

    def do_POST(self) -> None:
        """Print what has come, or refuse it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        taken = is_signed(body, self.headers.get("X-Millrace-Signature", ""), time.time())
        self.send_response(HTTPStatus.NO_CONTENT if taken else HTTPStatus.FORBIDDEN)
        self.end_headers()
        if taken:
            sys.stdout.write(f"{self.headers['X-Millrace-Status']} {body.decode()}")
            self.server.done = True  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Say nothing but what has come."""


class OneCallback(HTTPServer):
    """Serves until one callback was taken."""

    done = False

    def serve(self) -> None:
        """Serve request after request, until then."""
        while not self.done:
            self.handle_request()


if __name__ == "__main__":
    OneCallback(("", int(sys.argv[1])), Receiver).serve()
