"""Which runners are there, and what do they say of themselves? From their last heartbeats."""

from typing import Any, NamedTuple

import structlog
from redis.exceptions import RedisError

from services.api import cursors
from shared import keys, messages, streams, timestamps
from shared.errors import Unavailable, Undecodable
from shared.metrics import UNDECODABLE

log = structlog.get_logger()


class Listed(NamedTuple):
    """A page of runners by id, with the cursor of the next page or "".

    `unreadable` counts heartbeats, of all runners, that another version must have written.
    """

    beats: list[messages.Heartbeat]
    next_cursor: str
    unreadable: int


class Runners:
    """The runners that Redis knows: those alive, and those lost a moment ago."""

    def __init__(self, redis: streams.Redis) -> None:
        """Read `redis`."""
        self._redis = redis

    async def list(self, page: cursors.Page) -> Listed:
        """Return a page of them. Raises `Unavailable`, or `BadRequest` for a bad cursor."""
        after = cursors.decode(page.cursor, str)[0] if page.cursor else ""
        try:
            raw: Any = await self._redis.hgetall(keys.RUNNERS)
        except (RedisError, OSError) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error
        beats, unreadable = decoded(raw)
        following = [beat for beat in beats if beat.runner_id > after]
        shown = following[: page.limit]
        more = len(following) > len(shown)
        return Listed(shown, cursors.encode(shown[-1].runner_id) if more else "", unreadable)


def decoded(raw: dict[bytes, bytes]) -> tuple[list[messages.Heartbeat], int]:
    """Return the heartbeats among these values, by runner id, and how many were none."""
    beats = []
    for name, value in raw.items():
        try:
            beats.append(messages.decode(value, messages.Heartbeat))
        except Undecodable as error:
            UNDECODABLE.labels(stream="runners").inc()
            log.warning(
                "heartbeat_undecodable", runner=name.decode(errors="replace"), error=str(error)
            )
    return sorted(beats, key=lambda beat: beat.runner_id), len(raw) - len(beats)


def as_json(beat: messages.Heartbeat, now_ms: int) -> dict[str, Any]:
    """Return a runner as the public API shows it at an epoch time.

    `seen_ago_ms` compares two machines' clocks; it is never negative.
    """
    return {
        "id": beat.runner_id,
        "engine_id": beat.engine_id,
        "arch": beat.arch,
        "memory_mb": beat.memory_mb,
        "cpus": beat.cpus,
        "able": beat.able,
        "draining": beat.draining,
        "running": beat.running,
        "idle_memory_mb": beat.idle_memory_mb,
        "seen_at": timestamps.rfc3339(beat.sent_ms),
        "seen_ago_ms": max(0, now_ms - beat.sent_ms),
        "images": list(beat.images),
        "sandboxes": [_sandboxes(count) for count in beat.sandboxes],
    }


def _sandboxes(count: messages.SandboxCount) -> dict[str, Any]:
    return {
        "app_name": count.app,
        "path": count.path,
        "idle": count.idle,
        "busy": count.busy,
        "starting": count.starting,
    }
