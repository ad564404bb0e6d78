"""Where does a page of a list begin and end? Pure: `limit` and opaque `cursor`s."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.api.problems import BadRequest
from shared import ids

LIMIT_MAX = 1000
_WRONG = "cursor must be a next_cursor of the same list, unchanged"


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that a client asks for; neither field: all of it."""

    limit: int | None = None
    cursor: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether the client asked for pages at all."""
        return self.limit is not None or self.cursor is not None


def page(query: Mapping[str, str]) -> Page:
    """Return the page a query string asks for. Raises `BadRequest`, which names `limit`."""
    text = query.get("limit")
    if text is None:
        return Page(None, query.get("cursor") or None)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= LIMIT_MAX:
        raise BadRequest(f"limit must be a whole number from 1 to {LIMIT_MAX}, not {text!r}")
    return Page(int(text), query.get("cursor") or None)


def encode(*parts: str | int) -> str:
    """Return an opaque cursor of the sort key of a page's last row."""
    raw = json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Return the parts of a cursor, of these types. Raises `BadRequest`, which names `cursor`.

    >>> decode(encode("myapp", "/hello"), str, str)
    ('myapp', '/hello')
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        parts = json.loads(raw)
        json.dumps(parts, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or [type(p) for p in parts] != list(kinds):
        raise BadRequest(_WRONG)
    return tuple(parts)


def call_id(page: Page) -> str | None:
    """Return the call at which the page before ended; None if there was none.

    Raises `BadRequest`, which names `cursor`. MySQL takes ids for ASCII, and fails at other text.
    """
    if not page.cursor:
        return None
    last: str = decode(page.cursor, str)[0]
    if ids.call_time_ms(last) is None:
        raise BadRequest(_WRONG)
    return last
