"""What does this runner offer, and how does it say so? Pure."""

from collections.abc import Iterable

from services.runner.engine import EngineInfo
from shared import messages

BEAT_S = 1.0
#: Of more images than this only the first are told, so that a heartbeat stays small.
IMAGES_MAX = 256
_RESERVED_SHARE = 0.1
_RESERVED_LEAST_MB = 1024
_DEFAULT_TAG = ":latest"


def offered_memory_mb(engine_mb: int, wanted_mb: int) -> int:
    """Return the memory offered to functions; `wanted_mb` 0: what the platform can do without.

    >>> offered_memory_mb(4096, 0), offered_memory_mb(24_000, 0), offered_memory_mb(4096, 512)
    (3072, 21600, 512)
    """
    reserved_mb = max(_RESERVED_LEAST_MB, int(engine_mb * _RESERVED_SHARE))
    return wanted_mb or max(0, engine_mb - reserved_mb)


def route_names(image_names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that routes may use for images on disk, as `shared.imagenames` cuts them.

    The names come with those first that are told if there are too many.

    >>> route_names(["a/b:latest", "c:1"])
    ('a/b', 'a/b:latest', 'c:1')
    """
    names: dict[str, None] = {}
    for name in image_names:
        names[name] = names[name.removesuffix(_DEFAULT_TAG)] = None
    return tuple(sorted(list(names)[:IMAGES_MAX]))


def build(
    runner_id: str,
    info: EngineInfo,
    *,
    name: str,
    memory_mb: int,
    overcommit: float,
    able: bool,
    draining: bool,
    images: tuple[str, ...],
    running: int,
    sandboxes: tuple[messages.SandboxCount, ...],
    idle_memory_mb: int,
    now_ms: int,
) -> messages.Heartbeat:
    """Return a heartbeat; `memory_mb` and `overcommit` are the settings."""
    return messages.Heartbeat(
        runner_id=runner_id,
        engine_id=info.engine_id,
        sent_ms=now_ms,
        memory_mb=offered_memory_mb(info.memory_mb, memory_mb),
        cpus=info.cpus * overcommit,
        arch=info.arch,
        able=able,
        draining=draining,
        images=images,
        running=running,
        sandboxes=sandboxes,
        idle_memory_mb=idle_memory_mb,
        name=name,
    )
