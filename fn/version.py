"""Which version of `fn` is this? That of pyproject.toml, which `make fn` packs with it."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

#: Where `make fn` puts the version, beside this module.
PACKED = "VERSION"


def version() -> str:
    """Return the version, as in 0.1.0."""
    try:
        packed = pkgutil.get_data("fn", PACKED)
    except OSError:
        packed = None
    return packed.decode().strip() if packed else _of_project()


def _of_project() -> str:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else "unknown"
