"""Who calls back? Waits on a port for one callback of the function, prints it, and ends.

    python3 receiver.py 9000

With `CALLBACK_SECRET` in the environment, it takes only a callback that is signed with it.
"""

# ruff: noqa: INP001 (it stands beside the function, and is no package either)

import hashlib
import hmac
import os
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = os.environ.get("CALLBACK_SECRET", "")


def is_signed(body: bytes, signature: str) -> bool:
    """Return whether a callback comes from one who knows the secret."""
    expected = "sha256=" + hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()
    return hmac.compare_digest(expected.encode(), signature.encode())


class Receiver(BaseHTTPRequestHandler):
    """Takes the callback."""

    def do_POST(self) -> None:
        """Print what has come, or refuse it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        taken = not SECRET or is_signed(body, self.headers.get("X-Signature", ""))
        self.send_response(HTTPStatus.NO_CONTENT if taken else HTTPStatus.FORBIDDEN)
        self.end_headers()
        if taken:
            sys.stdout.write(body.decode() + "\n")
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
