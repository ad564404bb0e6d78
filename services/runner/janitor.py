"""Which containers does nobody own any more? Pure.

A runner that is killed leaves containers behind. The next runner on that engine removes them: those
of runners that are not alive, and its own that are no sandbox and keep no namespace. Each runner
also has a folder, named by the last part of its id.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from services.runner.engine import Found
from shared import messages

#: A runner whose last heartbeat is older is dead, in milliseconds.
DEAD_AFTER_MS = 10_000
#: Our own are left alone for so long: they may be on their way to being known, in seconds.
_YOUNG_S = 120
#: A living runner touches its folder far more often than this, in seconds.
_UNTOUCHED_S = 120
_FOLDER_NAME = re.compile(r"[0-9a-f]{8}\Z")


def alive(heartbeats: Iterable[messages.Heartbeat], now_ms: int, heard_since_ms: int) -> set[str]:
    """Return the ids of the runners that may live, by their last heartbeats.

    `heard_since_ms` is when Redis last came back: before, others could not be heard either.
    """
    return {
        beat.runner_id
        for beat in heartbeats
        if now_ms - max(beat.sent_ms, heard_since_ms) < DEAD_AFTER_MS
    }


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

    `sandboxes` are the ids of the sandboxes this runner has, `namespaces` the containers that keep
    namespaces for it; `now_s` is epoch time in seconds, as the engine's.

    >>> leftovers([Found("c", "dead", "", 0)], own_id="me", living=["me"], sandboxes=[],
    ...           namespaces=[], now_s=9)
    ['c']
    """
    removed = []
    for container in found:
        if container.runner_id != own_id:
            kept = container.runner_id in living
        else:
            young = now_s - container.created_s < _YOUNG_S
            kept = (
                young or container.sandbox_id in sandboxes or container.container_id in namespaces
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


def stale_folders(touched_s: Mapping[str, float], now_s: float) -> list[str]:
    """Return the folders whose runners are gone, by when each was last touched (epoch seconds).

    Heartbeats would not do: a runner has a folder before it first beats, one whom Redis does not
    hear lives on, and platforms may share a folder. What is named otherwise is somebody else's.

    >>> stale_folders({"0123abcd": 0.0, "4567cdef": 199.0, "photos": 0.0}, now_s=200.0)
    ['0123abcd']
    """
    return [
        name
        for name, last_s in touched_s.items()
        if _FOLDER_NAME.match(name) and now_s - last_s > _UNTOUCHED_S
    ]
