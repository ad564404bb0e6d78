"""Which of the hub's manifests does nobody need any more? Removes what the registry knows of them.

Needed is what a tag names, what a route names by its digest or named before, and the parts of what
is needed, if that is an index. The registry's own garbage collection then frees their layers.
(It could also remove what has no tag, but knows nothing of routes, and takes parts of an index for
unneeded.)

    prune.py FOLDER <ROUTES

FOLDER is where the registry keeps its data, ROUTES the api's answer to `GET /v1/routes`. Nobody may
push meanwhile. Knows nothing of the api but that answer, and of Python no more than its library.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROOT = Path("docker/registry/v2")


def named_by_routes(answer: Mapping[str, Any]) -> set[str]:
    """Return the digests that routes name, or can be rolled back to.

    Raises KeyError or TypeError if the answer is not one that has all of them.
    """
    images = [i for r in answer["routes"] for i in (r["image"], *r["previous_images"])]
    return {digest for image in images for digest in _DIGEST.findall(image)}


def unneeded(manifests: Mapping[str, Collection[str]], needed: Collection[str]) -> set[str]:
    """Return the manifests that are neither needed nor a part of one that is.

    `manifests` has the parts of each.

    >>> sorted(unneeded({"index": ["part"], "part": [], "old": []}, {"index"}))
    ['old']
    """
    reached: set[str] = set()
    ahead = list(needed)
    while ahead:
        digest = ahead.pop()
        if digest not in reached:
            reached.add(digest)
            ahead += manifests.get(digest, ())
    return manifests.keys() - reached


class Repository:
    """One repository, as the registry's storage has it on disk."""

    def __init__(self, folder: Path, blobs: Path) -> None:
        """`folder` is the repository's own, `blobs` what all have in common."""
        self._folder, self._blobs = folder / "_manifests", blobs

    def tagged(self) -> set[str]:
        """Return the digests that have a tag now."""
        links = self._folder.glob("tags/*/current/link")
        return {link.read_text().strip() for link in links}

    def manifests(self) -> dict[str, list[str]]:
        """Return the digests of all manifests, each with its parts."""
        links = self._folder.glob("revisions/sha256/*/link")
        digests = [link.read_text().strip() for link in links]
        return {digest: self._parts(digest) for digest in digests}

    def remove(self, digest: str) -> None:
        """Forget a manifest, and that a tag ever named it."""
        name = digest.partition(":")[2]
        for old in self._folder.glob(f"tags/*/index/sha256/{name}"):
            shutil.rmtree(old)
        shutil.rmtree(self._folder / "revisions" / "sha256" / name)

    def _parts(self, digest: str) -> list[str]:
        name = digest.partition(":")[2]
        blob = self._blobs / "sha256" / name[:2] / name / "data"
        if not blob.exists():
            return []
        parts = json.loads(blob.read_bytes()).get("manifests") or ()
        return [part["digest"] for part in parts]


def repositories(folder: Path) -> Iterator[Repository]:
    """Give the repositories in a registry's folder."""
    for here, names, _ in os.walk(folder / _ROOT / "repositories"):
        if "_manifests" in names:
            yield Repository(Path(here), folder / _ROOT / "blobs")
        names[:] = [name for name in names if not name.startswith("_")]


def prune(folder: Path, kept: Collection[str]) -> tuple[int, int]:
    """Remove the unneeded manifests of all repositories; return how many went and how many stay."""
    removed = stay = 0
    for repository in repositories(folder):
        manifests = repository.manifests()
        gone = unneeded(manifests, {*kept, *repository.tagged()})
        for digest in gone:
            repository.remove(digest)
        removed, stay = removed + len(gone), stay + len(manifests) - len(gone)
    return removed, stay


if __name__ == "__main__":
    try:
        routes = named_by_routes(json.load(sys.stdin))
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: the list of routes is not one, so nothing is removed: {error!r}")
    sys.stdout.write("{} manifests removed, {} kept\n".format(*prune(Path(sys.argv[1]), routes)))
