"""How does an image get into a registry, and which digest has it there?"""

from __future__ import annotations

import re

from fn import engine, imagenames, output
from fn.errors import Exit, FnError

_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")


def push(image: str, *, verbose: bool = False) -> str:
    """Push a version of an image, and the same one as `latest`; return its digest.

    Raises `FnError`, with what helps if the registry refuses it.
    """
    digest = _push(image, verbose=verbose)
    latest = imagenames.latest(image)
    engine.must("tag", image, latest, what=f"cannot name {latest}")
    engine.must("push", "-q", latest, registry=imagenames.registry_of(latest))
    return digest


def _push(image: str, *, verbose: bool) -> str:
    with output.Progress(f"pushing {image}") as progress:

        def tell(line: str) -> None:
            layer = engine.LAYER.fullmatch(line)
            if verbose:
                progress.line(line)
            elif layer:
                progress.part(layer[1], layer[2])

        code, lines = engine.follow("push", image, each_line=tell)
    said = "\n".join(lines)
    if code:
        why = engine.last_line(said)
        registry = imagenames.registry_of(image)
        raise engine.meaning(why, registry) or FnError(
            f"cannot push {image}: {why}", f"docker push {image} tells more.", Exit.FAILED
        )
    found = _DIGEST.search(said)
    if not found:
        raise FnError(f"pushed {image}, but the registry told no digest", "", Exit.FAILED)
    return found[1]
