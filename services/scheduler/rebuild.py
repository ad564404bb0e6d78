"""What is going on? How a new reign learns it from Redis.

In this order, so that nothing falls between:

1. The reign's number is raised before (`Lease.begin_reign`): from then on, no assignment of an
   earlier reign is performed.
2. `events` is read to its last id, for callers who left while nobody listened (a cancel may be
   forwarded twice so). What is reported after that id will be read.
3. The runners and what each one's stream holds are read. A call that ends after step 2 may be
   found here, and its `ExecutionFinished` comes later and releases it. One that ended before is
   not here.
4. The streams of waiting calls are read from their beginning. A call that a runner puts back
   after step 3 is found in both: the later, waiting, holds (`State`).

A race stays open: a call leaves its runner's stream when its outcome is known, a moment before
its container is gone. A reign that begins in that moment gives its capacity out early.
"""

from typing import Any

import structlog

from services.scheduler import events, pages
from services.scheduler.intake import Intake
from shared import clock, keys, messages
from shared.errors import Undecodable
from shared.streams import Redis

log = structlog.get_logger()


async def rebuild(redis: Redis, intake: Intake) -> tuple[events.Rebuilt, str]:
    """Return what is known of runners and their calls, and from which event on to read."""
    last_id, left = await _missed(redis, intake)
    known: Any = await redis.hgetall(keys.RUNNERS)
    heartbeats = [_heartbeat(runner_id.decode(), raw) for runner_id, raw in sorted(known.items())]
    held: list[events.Held] = []
    for heartbeat in heartbeats:
        stream = keys.runner(heartbeat.runner_id)
        async for entry in pages.entries(redis, stream):
            head = intake.head(stream, entry) if entry[1].get(b"k") == b"assign" else None
            if head is not None:
                held.append(events.Held(heartbeat.runner_id, head))
    log.info("rebuilt", runners=len(heartbeats), assigned=len(held), events_after=last_id)
    return events.Rebuilt(tuple(heartbeats), tuple(held), left), last_id


async def _missed(redis: Redis, intake: Intake) -> tuple[str, tuple[str, ...]]:
    """Return the last id of `events`, and the calls whose callers left before it."""
    last_id = "0-0"
    left: list[str] = []
    async for entry in pages.entries(redis, keys.EVENTS):
        last_id = entry[0].decode()
        left += [r.call_id for r in intake.reports([entry]) if isinstance(r, messages.CancelCall)]
    return last_id, tuple(left)


def _heartbeat(runner_id: str, raw: bytes) -> messages.Heartbeat:
    """Return a runner's last heartbeat.

    Of one that cannot be decoded only the id is known. It takes no calls; unless it is heard of,
    it is lost after a while, and its stream is reclaimed.
    """
    try:
        return messages.decode(raw, messages.Heartbeat)
    except Undecodable as error:
        log.error("heartbeat_undecodable", runner_id=runner_id, why=str(error))  # noqa: TRY400
        return messages.Heartbeat(
            runner_id=runner_id,
            engine_id=runner_id,
            sent_ms=clock.epoch_ms(),
            memory_mb=0,
            cpus=0.0,
            arch="",
            able=False,
            draining=True,
        )
