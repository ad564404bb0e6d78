"""Which functions does the benchmark call? Echoes, one for each format, built here."""

import asyncio
import hashlib
from pathlib import Path
from typing import Literal

from tests.e2e import images

SOURCES = Path(__file__).parent / "functions"

Name = Literal["default", "http", "json", "http-stream"]


async def image(name: Name) -> str:
    """Return the tag of a function's image; it is built if there is none of these sources."""
    tag = f"millrace/bench-{name}:{_fingerprint()}"
    if not await asyncio.to_thread(images.has_image, tag):
        await asyncio.to_thread(_build, tag, name)
    return tag


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _build(tag: str, name: Name) -> None:
    images.docker(
        *("build", "--quiet", "--tag", tag, "--target", name, str(SOURCES)),
        timeout_s=images.BUILD_TIMEOUT_S,
    )
