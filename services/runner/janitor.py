"""Which containers does nobody own any more? Pure.

A runner that is killed leaves containers behind. The next runner on that engine removes them: those
of runners that are not alive, and its own that are no sandbox and keep no namespace. Each runner
also has a folder, named by the last part of its id.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from services.runner.engine import Found

#: A runner whose last heartbeat is older is dead, in seconds.
DEAD_AFTER_S = 10.0
#: Our own that are no sandbox are left alone for so long: what keeps a namespace is known only when
#: it is made. A sandbox is known before, until nothing is left of it. In seconds.
_YOUNG_S = 120
#: A living runner touches its folder far more often than this, in seconds.
_UNTOUCHED_S = 120
_FOLDER_NAME = re.compile(r"[0-9a-f]{8}\Z")


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life: what it was last, and since when we have seen it so, in monotonic seconds."""

    what: object
    since_s: float


def watched(
    before: Mapping[str, Sign], signs: Mapping[str, object], now_s: float
) -> dict[str, Sign]:
    """Return what is known of signs of life, when these are seen now.

    By our own watch: clocks of others may be wrong, and any may jump.

    >>> first = watched({}, {"a": 1, "b": 1}, 10.0)
    >>> {name: sign.since_s for name, sign in watched(first, {"a": 2, "b": 1}, 15.0).items()}
    {'a': 15.0, 'b': 10.0}
    """
    return {
        name: before[name] if name in before and before[name].what == what else Sign(what, now_s)
        for name, what in signs.items()
    }


def alive(beats: Mapping[str, Sign], now_s: float) -> set[str]:
    """Return the ids of the runners that may live, by when their last heartbeats changed."""
    return {name for name, sign in beats.items() if now_s - sign.since_s < DEAD_AFTER_S}


def leftovers(
    found: Iterable[Found],
    *,
    own_id: str,
    living: Collection[str],
    sandboxes: Collection[str],
    namespaces: Collection[str],
    now_s: float,
) -> list[str]:
    """Return the ids of the containers to remove.

    `sandboxes` are the ids of the sandboxes this runner has, as of after `found`, `namespaces` the
    containers that keep namespaces for it; `now_s` is epoch time in seconds, as the engine's.

    >>> leftovers([Found("c", "dead", "", 0)], own_id="me", living=["me"], sandboxes=[],
    ...           namespaces=[], now_s=9)
    ['c']
    """
    removed = []
    for container in found:
        if container.runner_id != own_id:
            kept = container.runner_id in living
        else:
            kept = (
                container.sandbox_id in sandboxes
                if container.sandbox_id
                else container.container_id in namespaces or now_s - container.created_s < _YOUNG_S
            )
        if not kept:
            removed.append(container.container_id)
    return removed


def folder_name(runner_id: str) -> str:
    """Return the name of a runner's folder: short, because paths of sockets must be.

    >>> folder_name("runner-host-1-0123abcd")
    '0123abcd'
    """
    return runner_id.rpartition("-")[2]


def stale_folders(touched: Mapping[str, Sign], now_s: float) -> list[str]:
    """Return the folders whose runners are gone, by when the time of each last changed.

    Heartbeats would not do: a runner has a folder before it first beats, one whom Redis does not
    hear lives on, and platforms may share a folder. What is named otherwise is somebody else's.

    >>> old, young = Sign(1.0, 0.0), Sign(2.0, 199.0)
    >>> stale_folders({"0123abcd": old, "4567cdef": young, "photos": old}, now_s=200.0)
    ['0123abcd']
    """
    return [
        name
        for name, sign in touched.items()
        if _FOLDER_NAME.match(name) and now_s - sign.since_s > _UNTOUCHED_S
    ]
