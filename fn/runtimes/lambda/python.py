"""Calls an AWS Lambda handler as a function: JSON from standard input, JSON to standard output."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time

MODULE, FUNCTION = "{{module}}", "{{function}}"


class Context:
    """What a handler is told of its call."""

    function_name = os.environ.get("ROUTE", "").strip("/")
    function_version = "$LATEST"
    aws_request_id = os.environ.get("CALL_ID", "")
    memory_limit_in_mb = "128"

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the call may still take."""
        deadline_ms = int(os.environ.get("DEADLINE", "0"))
        return max(0, deadline_ms - int(time.time() * 1000))


def main() -> None:
    """Answer one call; what the handler prints is log."""
    event = json.loads(sys.stdin.read() or "{}")
    with contextlib.redirect_stdout(sys.stderr):
        handler = getattr(importlib.import_module(MODULE), FUNCTION)
        result = handler(event, Context())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
