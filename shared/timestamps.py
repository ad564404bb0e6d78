"""How do times look to clients and functions? Pure: epoch milliseconds to RFC 3339 and back."""

import re
from datetime import UTC, datetime

#: What a UUIDv7 can carry.
_END_MS = 1 << 48
#: In a query string a `+` before the offset has become a space.
_LOST_PLUS = re.compile(r"(?<=T)(.*) (\d\d:\d\d)$")


def rfc3339(epoch_ms: int) -> str:
    """Return a time in UTC, to the millisecond.

    >>> rfc3339(1733289443328)
    '2024-12-04T05:17:23.328Z'
    """
    whole = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}Z"


def parse(text: str) -> int:
    """Return epoch milliseconds of RFC 3339 text, or of epoch milliseconds as text.

    Raises ValueError.

    >>> parse("2024-12-04T05:17:23.328Z"), parse("1733289443328")
    (1733289443328, 1733289443328)
    """
    if text.isascii() and text.isdigit():
        epoch_ms = int(text[:20])
    else:
        moment = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        if moment.tzinfo is None:
            raise ValueError("no offset from UTC")
        epoch_ms = round(moment.timestamp() * 1000)
    if not 0 <= epoch_ms < _END_MS:
        raise ValueError("out of range")
    return epoch_ms
