"""What is going on? How a new reign learns it from Redis.

In this order, so that nothing falls between:

1. The reign's number is raised before (`Lease.begin_reign`): from then on, no assignment of an
   earlier reign is performed.
2. The last id of `events` is taken. What is reported after it will be read.
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
    last: Any = await redis.xrevrange(keys.EVENTS, count=1)
    last_id = last[0][0].decode() if last else "0-0"
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
    return events.Rebuilt(tuple(heartbeats), tuple(held)), last_id


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
