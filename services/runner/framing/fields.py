"""Which header fields cross between callers and functions, and how are they written? Pure.

Nothing that a caller, a config value or a function writes may become a line of its own in somebody
else's header block.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

#: Fields in one answer, and the bytes its header block may take.
FIELDS_MAX = 200
HEAD_MAX_BYTES = 64 * 1024

#: They belong to one connection and end with it.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: Fields of an answer that its next sender writes anew.
REWRITTEN = HOP_BY_HOP | {"content-length"}
_REWRITTEN_AND_TYPE = REWRITTEN | {"content-type"}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROLS = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\t")}
#: Names remembered; they are few, but callers can invent others.
_NAMES = 512

Fields = tuple[tuple[str, str], ...]


def is_name(text: str) -> bool:
    """Return whether HTTP allows a field of this name."""
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=_NAMES)
def canonical(name: str) -> str:
    """Return a field's name in Go's canonical form; "" if there can be no such field.

    >>> canonical("HEADER_ACCEPT"), canonical("x-real-ip"), canonical("no: good")
    ('Header_accept', 'X-Real-Ip', '')
    """
    return "-".join(map(str.capitalize, name.split("-"))) if is_name(name) else ""


def clean(value: str) -> str:
    r"""Return a value that stays within its line: each control character becomes a space.

    >>> clean("a\r\nX-Evil: b")
    'a  X-Evil: b'
    """
    return value if value.isprintable() else value.translate(_CONTROLS)


def text(raw: bytes) -> str:
    r"""Return a received value, cleaned: UTF-8, or Latin-1 if it is not that.

    >>> text(b"caf\xc3\xa9"), text(b"caf\xe9")
    ('café', 'café')
    """
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        value = raw.decode("latin-1")
    return clean(value).strip(" \t")


def first(fields: Iterable[tuple[str, str]], name: str) -> str:
    """Return the value of the first field with this lower-case name; "" without one."""
    for field, value in fields:
        if field.lower() == name:
            return value
    return ""


def passed_on(found: Iterable[tuple[str, str]], content_type: str) -> Fields:
    """Return an answer's fields as they may be sent on, cleaned, with this type unless it is "".

    >>> passed_on([("X-A", "1"), ("Connection", "close"), ("content-type", "a/b")], "text/plain")
    (('Content-Type', 'text/plain'), ('X-A', '1'))
    """
    dropped = _REWRITTEN_AND_TYPE if content_type else REWRITTEN
    kept = [(name, clean(value)) for name, value in found if name.lower() not in dropped]
    return (("Content-Type", clean(content_type)), *kept) if content_type else tuple(kept)


def has_body(status: int) -> bool:
    """Return whether HTTP lets an answer with this final status have a body."""
    return status not in (204, 304)


def is_final(status: int) -> bool:
    """Return whether a caller can be answered with this status."""
    return 200 <= status <= 599  # noqa: PLR2004 (RFC 9110, 15)
