"""Which headers can an answer carry? Pure: HTTP's grammar, and what belongs to the server alone."""

import re

#: Headers that belong to one connection, or that only the server can know.
OWN = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE_BAD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def is_name(text: str) -> bool:
    """Tell whether a header can be called so.

    >>> is_name("X-Tier"), is_name("X Tier"), is_name("")
    (True, False, False)
    """
    return _NAME.match(text) is not None


def is_value(text: str) -> bool:
    r"""Tell whether a header can have this value: line breaks would begin another one.

    >>> is_value("a, b"), is_value("a\r\nB: c")
    (True, False)
    """
    return _VALUE_BAD.search(text) is None
