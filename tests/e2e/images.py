"""Where do the tests' functions come from? Small images, built on the fly, one per behaviour."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

BASE = os.environ.get("BUSYBOX_IMAGE", "millrace/busybox:local")
BUILD_TIMEOUT_S = 300
_built: set[str] = set()


def unable(why: str) -> None:
    """Skip the test on a laptop; fail it where `CI` is set: there, everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def docker(*arguments: str, stdin: bytes | None = None, timeout_s: float = 60) -> str:
    """Return what a docker command prints; raises RuntimeError with its error."""
    done = subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, timeout=timeout_s, check=False
    )
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout.decode().strip()


def has_image(name: str) -> bool:
    """Return whether the engine has an image."""
    command = ["docker", "image", "inspect", name]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def require_engine() -> None:
    """Skip or fail (see `unable`) unless the engine answers and has the base image."""
    try:
        found = subprocess.run(["docker", "version"], capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        unable("no docker command")
        return
    if found.returncode:
        unable("no container engine answers")
    if not has_image(BASE):
        unable(f"no image {BASE}; deploy/images makes it")


def build(name: str, dockerfile: str) -> str:
    """Build an image without context from a Dockerfile's text, once; return its name and tag.

    The tag is the text's hash, so an image of the same text is used again.
    """
    tag = f"{name}:{hashlib.sha256(dockerfile.encode()).hexdigest()[:12]}"
    if tag not in _built and not has_image(tag):
        docker("build", "-q", "-t", tag, "-", stdin=dockerfile.encode(), timeout_s=BUILD_TIMEOUT_S)
    _built.add(tag)
    return tag


def build_folder(tag: str, folder: Path, **arguments: str) -> str:
    """Build an image from a folder with build arguments; return its tag."""
    options = [
        part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")
    ]
    docker("build", "-q", "-t", tag, *options, str(folder), timeout_s=BUILD_TIMEOUT_S)
    return tag


def function_image(script: str) -> str:
    """Return the tag of an image that runs a busybox shell script for each call."""
    return build("millrace/e2e", f"FROM {BASE}\nENTRYPOINT {json.dumps(['sh', '-c', script])}\n")
