"""Greets whom its input names. Each call has a process of its own."""

import sys


def greeting(name: str) -> str:
    """Return how a name is greeted; nobody in particular is the world."""
    return f"Hello, {name.strip() or 'World'}!"


if __name__ == "__main__":
    print(greeting(sys.stdin.read()))
