"""Which word was perhaps meant? Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def suggestion(written: str, known: Iterable[str]) -> str:
    """Return "; did you mean `memory`?" for `memroy`, or "" if nothing is near.

    >>> suggestion("memroy", ["memory", "path"])
    '; did you mean `memory`?'
    """
    by_letters = {_letters(word): word for word in known}
    close = difflib.get_close_matches(_letters(written), by_letters, n=1, cutoff=0.6)
    return f"; did you mean `{by_letters[close[0]]}`?" if close else ""


def _letters(word: str) -> str:
    return word.lower().replace("-", "_")
