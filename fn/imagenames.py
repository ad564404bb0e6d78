"""How is an image called, here and in the hub? Pure."""

from __future__ import annotations

LOCAL_BASES = "millrace/runtime"


def registry_of(name: str) -> str:
    """Return the registry that a name begins with, "" if it has none.

    >>> registry_of("localhost:5000/me/greet"), registry_of("me/greet")
    ('localhost:5000', '')
    """
    first, slash, _ = name.partition("/")
    is_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first if is_registry else ""


def full(name: str, version: str, hub: str) -> str:
    """Return the whole name of a version of an image; one without a registry gets the hub's.

    >>> full("me/greet", "0.0.2", "127.0.0.1:5000"), full("me/greet", "0.0.2", "")
    ('127.0.0.1:5000/me/greet:0.0.2', 'me/greet:0.0.2')
    """
    where = f"{hub}/" if hub and not registry_of(name) else ""
    return f"{where}{name}:{version}"


def latest(image: str) -> str:
    """Return the name of the same image's latest version.

    >>> latest("127.0.0.1:5000/me/greet:0.0.2")
    '127.0.0.1:5000/me/greet:latest'
    """
    folder, slash, last = image.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}:latest"


def pinned(image: str, digest: str) -> str:
    """Return the image that has a digest, whatever becomes of its tag.

    >>> pinned("me/greet:0.0.2", "sha256:ab")
    'me/greet:0.0.2@sha256:ab'
    """
    return f"{image}@{digest}" if digest else image


def bases(language: str, tag: str, hub: str) -> list[str]:
    """Return the names under which a language's base image may be found, best first.

    >>> bases("python", "3.11", "127.0.0.1:5000")
    ['127.0.0.1:5000/runtime/python:3.11', 'millrace/runtime/python:3.11']
    """
    of_hub = [f"{hub}/runtime/{language}:{tag}"] if hub else []
    return [*of_hub, f"{LOCAL_BASES}/{language}:{tag}"]
