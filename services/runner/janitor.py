"""Which containers does nobody own any more? Pure.

A runner that is killed leaves containers behind. The next runner on that engine removes them: those
of runners that are not alive, and its own that are no sandbox and keep no namespace. Each runner
also has a folder, named by the last part of its id.
"""

from collections.abc import Collection, Iterable

from services.runner.engine import Found
from shared import messages

#: A runner whose last heartbeat is older is dead, in milliseconds.
DEAD_AFTER_MS = 10_000
#: Our own are left alone for so long: they may be on their way to being known, in seconds.
_YOUNG_S = 120


def alive(heartbeats: Iterable[messages.Heartbeat], now_ms: int) -> set[str]:
    """Return the ids of the runners that live, by their last heartbeats."""
    return {beat.runner_id for beat in heartbeats if now_ms - beat.sent_ms < DEAD_AFTER_MS}


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

    >>> folder_name("runner-host-1-abc123")
    'abc123'
    """
    return runner_id.rpartition("-")[2]


def stale_folders(names: Iterable[str], *, own_id: str, living: Collection[str]) -> list[str]:
    """Return the folders of runners that are not alive.

    >>> stale_folders(["a", "b"], own_id="runner-x-a", living=[])
    ['b']
    """
    kept = {folder_name(runner_id) for runner_id in (own_id, *living)}
    return [name for name in names if name not in kept]
