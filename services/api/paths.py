"""Which route does a path mean? Pure: percent-escapes and cleaning, as the original had them."""

import posixpath
import re
from urllib.parse import unquote

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def clean(path: str) -> str:
    """Return the shortest absolute form of a decoded path: one name for one route.

    >>> clean("//a/./b/../c/")
    '/a/c'
    >>> clean("")
    '/'
    """
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def route_of(raw_path: str, prefix_parts: int) -> str:
    """Return the route that a URL's raw path names after its first `prefix_parts` parts.

    >>> route_of("/v1/apps/a/routes/%2Fhello", 4)
    '/hello'
    >>> route_of("/r/a//hello/", 2)
    '/hello'
    """
    parts = raw_path.split("/", prefix_parts + 1)
    return clean(unquote(parts[prefix_parts + 1]) if len(parts) > prefix_parts + 1 else "")


def is_malformed(path: str) -> bool:
    r"""Tell whether a path in a route's definition is no URL path at all.

    >>> [is_malformed(p) for p in ("/a%20b", "/%zz", "/a?b", "/a\n", "/a%00b")]
    [False, True, True, True, True]
    """
    if _BAD_ESCAPE.search(path) or "?" in path or "#" in path:
        return True
    # No environment variable can hold a zero byte, and no URL pattern matches a line break.
    return bool(_CONTROL.search(unquote(path)))


def stored(path: str) -> str:
    """Return a well-formed path of a definition as it is stored: decoded and cleaned."""
    return clean(unquote(path))
