"""How does a scheduler process start and stop?"""

import os
import sys

import structlog
import uvloop

from services.scheduler.service import Service
from services.scheduler.settings import Settings
from shared import ids, logs, service, settings, streams
from shared.errors import BadSettings

log = structlog.get_logger()


async def run(own: Settings) -> None:
    """Be a scheduler until SIGTERM or SIGINT."""
    redis = streams.connect(own.mq_url)
    owner = ids.new_process_id("scheduler")
    async with service.stop_signals() as stop, streams.Outbox(redis) as outbox:
        scheduler = Service(own, redis, outbox, owner)
        async with (
            service.operating_server(own.port, scheduler.readiness),
            service.supervised(scheduler=scheduler.run()),
        ):
            service.rest_garbage_collector()
            log.info("started", id=owner, port=own.port)
            await stop.wait()
            log.info("stopping", id=owner)
    await redis.aclose()


def main() -> int:
    """Return the exit code: 2 if settings are wrong."""
    try:
        own = settings.read(Settings, os.environ)
    except BadSettings as error:
        print(error.message, file=sys.stderr)  # noqa: T201 (before logs are configured)
        return 2
    logs.configure("scheduler", own.log_level)
    uvloop.run(run(own))
    return 0


if __name__ == "__main__":
    sys.exit(main())
