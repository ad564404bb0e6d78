"""Which runners are there, and which of them are to be empty? From their last heartbeats.

A wish to drain is kept in Redis until it is taken back, by a runner's id or by its name. Runners
learn of it by the answers to their heartbeats, so it outlives restarts of all services; one for a
name also those of the runner itself.
"""

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

import structlog
from redis.exceptions import RedisError

from services.api import cursors
from services.api.problems import Conflict, NotFound
from shared import keys, messages, streams, timestamps
from shared.errors import Unavailable, Undecodable
from shared.metrics import UNDECODABLE

log = structlog.get_logger()


class Listed(NamedTuple):
    """A page of runners by id, with the cursor of the next page or "".

    `unreadable` counts heartbeats, of all runners, that another version must have written.
    `wished` has the ids and names that are to drain, `absent` those of them that no runner has.
    """

    beats: list[messages.Heartbeat]
    next_cursor: str
    unreadable: int
    wished: frozenset[str]
    absent: list[str]


class Runners:
    """The runners that Redis knows: those alive, and those lost a moment ago."""

    def __init__(self, redis: streams.Redis) -> None:
        """Read `redis`."""
        self._redis = redis

    async def page(self, page: cursors.Page) -> Listed:
        """Return a page of them. Raises `Unavailable`, or `BadRequest` for a bad cursor."""
        after = cursors.decode(page.cursor, str)[0] if page.cursor else ""
        beats, unreadable = decoded(await self._do("HGETALL", keys.RUNNERS))
        wished = frozenset(name.decode() for name in await self._do("HKEYS", keys.DRAINS))
        following = [beat for beat in beats if beat.runner_id > after]
        shown = following[: page.limit]
        more = len(following) > len(shown)
        known = {called for beat in beats for called in _called(beat)}
        return Listed(
            shown,
            cursors.encode(shown[-1].runner_id) if more else "",
            unreadable,
            wished,
            sorted(wished - known),
        )

    async def drain(self, called: str, now_ms: int) -> list[messages.Heartbeat]:
        """Have the runner with an id, or all that bear a name, be empty; return them.

        Raises `NotFound`, and `Unavailable`.
        """
        beats, _ = decoded(await self._do("HGETALL", keys.RUNNERS))
        meant = _meant(called, beats)
        await self._do("HSETNX", keys.DRAINS, called, now_ms)
        log.info("drain_wished", called=called, runners=[beat.runner_id for beat in meant])
        return meant

    async def undrain(self, called: str) -> list[messages.Heartbeat]:
        """Let them take calls again. They need not be there, if they were to drain.

        Raises `NotFound`, `Conflict` for one runner of a name that all are to drain by, and
        `Unavailable`.
        """
        beats, _ = decoded(await self._do("HGETALL", keys.RUNNERS))
        wished = {name.decode() for name in await self._do("HKEYS", keys.DRAINS)}
        meant = [beat for beat in beats if called in _called(beat)]
        if called not in wished and not meant:
            meant = _meant(called, beats)
        names = {beat.name for beat in meant if beat.name in wished} - {called}
        for beat in beats:
            if beat.name in names and beat not in meant:
                raise Conflict(f"All runners named {beat.name} are to drain: undrain {beat.name}")
        await self._do("HDEL", keys.DRAINS, called, *names, *(beat.runner_id for beat in meant))
        log.info("drain_taken_back", called=called, runners=[beat.runner_id for beat in meant])
        return meant

    async def _do(self, *command: str | int) -> Any:  # noqa: ANN401 (whatever Redis says)
        try:
            return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise Unavailable(f"Redis does not answer: {error}") from error


def _called(beat: messages.Heartbeat) -> tuple[str, str]:
    return beat.runner_id, beat.name


def is_wished(beat: messages.Heartbeat, wished: Iterable[str]) -> bool:
    """Say whether a runner is to drain, by its id or its name."""
    return not set(_called(beat)).isdisjoint(wished)


def _meant(called: str, beats: Iterable[messages.Heartbeat]) -> list[messages.Heartbeat]:
    """Return the runners with this id or name. Raises `NotFound`, with names that are like it."""
    beats = list(beats)
    meant = [beat for beat in beats if called in _called(beat)]
    if meant:
        return meant
    known = sorted({name for beat in beats for name in _called(beat) if name})
    near = difflib.get_close_matches(called, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "GET /v1/runners lists them"
    raise NotFound(f"No runner has the id or name {called}; {hint}")


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


def as_json(beat: messages.Heartbeat, now_ms: int, *, drain_asked: bool) -> dict[str, Any]:
    """Return a runner as the public API shows it at an epoch time.

    `seen_ago_ms` compares two machines' clocks; it is never negative.
    """
    return {
        "id": beat.runner_id,
        "name": beat.name,
        "engine_id": beat.engine_id,
        "arch": beat.arch,
        "memory_mb": beat.memory_mb,
        "cpus": beat.cpus,
        "able": beat.able,
        "draining": beat.draining,
        "drain_asked": drain_asked,
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
