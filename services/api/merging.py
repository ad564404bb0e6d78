"""What becomes of an app or route by a POST or a PATCH? Pure."""

import dataclasses
from typing import Any

from services.api import paths
from services.api.models import App, Route

#: Fields of a route that follow from its changes, and are never set.
READ_ONLY = ("previous_images",)
PREVIOUS_IMAGES_MAX = 10
#: Fields of a route that a PATCH merges; the others it replaces.
_MERGED = {"config", "headers"}
_NOT_FIELDS = {"app_name", "path", *READ_ONLY}
#: Fields of which 0 is a value like any other, also in a PATCH: no client of the original sends
#: them without meaning it.
_ZERO_COUNTS = {"min_sandboxes", "retries"}


def new_app(fields: dict[str, Any]) -> App:
    """Return the app that these fields make."""
    return App(**{"name": "", **fields})


def patched_app(app: App, fields: dict[str, Any]) -> App:
    """Return the app as a PATCH with these fields leaves it; config is merged, numbers replace."""
    changes = {name: value for name, value in fields.items() if name != "name"}
    if "config" in changes:
        changes["config"] = merged_config(app.config or {}, changes["config"])
    return dataclasses.replace(app, **changes)


def new_route(app: str, fields: dict[str, Any]) -> Route:
    """Return the route that these fields make; zero and empty ones mean the default."""
    return Route(
        app=app,
        path=paths.stored(fields["path"]),
        headers=merged_headers({}, fields.get("headers", {}), canonical=False),
        config=fields.get("config", {}),
        **_replaced(fields),
    )


def patched_route(route: Route, fields: dict[str, Any]) -> Route:
    """Return the route as a PATCH with these fields leaves it.

    Non-zero fields replace, and so does a 0 of those where it counts; config is merged, and ""
    deletes; header values are added, and an empty list deletes the header, in whatever case. The
    image that it replaces becomes the newest of the previous ones.
    """
    return dataclasses.replace(
        route,
        previous_images=_previous_images(route, fields.get("image") or route.image),
        headers=merged_headers(route.headers, fields.get("headers", {}), canonical=True),
        config=merged_config(route.config, fields.get("config", {})),
        **_replaced(fields),
    )


def _previous_images(route: Route, image: str) -> tuple[str, ...]:
    if image == route.image:
        return route.previous_images
    return (route.image, *route.previous_images)[:PREVIOUS_IMAGES_MAX]


def _replaced(fields: dict[str, Any]) -> dict[str, Any]:
    kept = _NOT_FIELDS | _MERGED
    return {k: v for k, v in fields.items() if k not in kept and (v or k in _ZERO_COUNTS)}


def merged_config(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """Return old config with new values; an empty one deletes.

    >>> merged_config({"A": "1", "B": "2"}, {"A": "", "C": "3"})
    {'B': '2', 'C': '3'}
    """
    return {k: v for k, v in {**old, **new}.items() if v or k not in new}


def merged_headers(
    old: dict[str, list[str]], new: dict[str, list[str]], *, canonical: bool
) -> dict[str, list[str]]:
    """Return old headers with new values behind theirs; an empty list deletes.

    A header's case does not matter; the first spelling stays. A new one is spelled as it came,
    or, if `canonical`, as HTTP does. Values that are there already are not added once more: the
    original client sends a route back whole to change anything of it.

    >>> merged_headers({"X-A": ["1"], "X-B": ["2"]}, {"x-a": ["3"], "x-b": [], "x-c": ["4"]},
    ...                canonical=True)
    {'X-A': ['1', '3'], 'X-C': ['4']}
    >>> merged_headers({"X-A": ["1", "2"]}, {"X-A": ["1", "2"]}, canonical=True)
    {'X-A': ['1', '2']}
    """
    merged = {name: list(values) for name, values in old.items()}
    spelled = {name.lower(): name for name in merged}
    for name, values in new.items():
        known = spelled.get(name.lower())
        if not values:
            merged.pop(known or "", None)
            continue
        first = known or (_canonical(name) if canonical else name)
        spelled[name.lower()] = first
        there = merged.get(first, [])
        merged[first] = there + [value for value in values if value not in there]
    return merged


def _canonical(name: str) -> str:
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))
