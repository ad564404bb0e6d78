"""Which settings does the scheduler have?"""

from dataclasses import dataclass

from shared import urls
from shared.settings import at_least, log_level, setting


@dataclass(frozen=True)
class Settings:
    """The scheduler's settings, each read from the variable of its name in capitals."""

    mq_url: str = setting(
        "redis://127.0.0.1:6379/0",
        "Redis, as redis://host:port/db, unix:///path/of/redis.sock, or by its "
        "[sentinels](operating.md#a-redis-that-fails-over).",
        check=urls.check_redis,
    )
    port: int = setting(8081, "Port of /healthz, /readyz and /metrics.", check=at_least(0))
    log_level: str = log_level()
    sync_backlog_max: int = setting(
        5000,
        "Sync calls that may wait for capacity; beyond, one is refused with `overloaded`.",
        unit="calls",
        check=at_least(1),
    )
    async_backlog_max: int = setting(
        10_000,
        "Async calls the scheduler keeps a reference to; beyond, they wait unread in Redis.",
        unit="calls",
        check=at_least(4),
    )
    runner_lost_s: float = setting(
        5.0, "Without a heartbeat for so long, a runner is lost.", unit="s", check=at_least(1)
    )
    earmark_after_s: float = setting(
        5.0,
        "After so long without a call of some size placed, a runner is kept free for one.",
        unit="s",
        check=at_least(0),
    )
    unfit_async_s: float = setting(
        60.0,
        "An async call that is too large for any runner present fails after so long.",
        unit="s",
        check=at_least(1),
    )
