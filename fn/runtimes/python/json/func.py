"""Greets whom a call's body names: a line of JSON per call, and a line per answer."""

import json
import sys


def greeting(name: str) -> str:
    """Return how a name is greeted; nobody in particular is the world."""
    return f"Hello, {name.strip() or 'World'}!\n"


if __name__ == "__main__":
    for line in sys.stdin:
        call = json.loads(line)
        answer = {"content_type": "text/plain", "body": greeting(call["body"])}
        print(json.dumps(answer), flush=True)
