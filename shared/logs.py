"""How do log lines look? Events with fields, one JSON object a line, on stderr."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from shared import clock

#: The words for levels, in any case, and what they mean here.
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}


def configure(service: str, level: str) -> None:
    """Send structlog's and the standard library's lines to stderr as JSON, from `level` up.

    `level` is one of `LEVELS`.
    """
    least = LEVELS[level.lower()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = [
        # Without the values of variables: they may be a function's config, or a caller's.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        structlog.processors.JSONRenderer(),
    ]
    structlog.contextvars.bind_contextvars(service=service)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=least, force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class Seldom:
    """A warning that may be due a thousand times a second: logged at once, and then seldom.

    The next line after a pause says how often it was due since the one before: `times`.
    """

    def __init__(
        self, event: str, every_s: float = 5.0, now_s: Callable[[], float] = clock.monotonic_s
    ) -> None:
        """Log `event` at most every `every_s` seconds."""
        self._event, self._every_s, self._now_s = event, every_s, now_s
        self._log = structlog.get_logger()
        self._next_s = 0.0
        self._times = 0

    def warning(self, **fields: Any) -> None:  # noqa: ANN401 (what structlog takes)
        """Log the event with its fields, if it is time."""
        self._times += 1
        if self._now_s() >= self._next_s:
            self._next_s = self._now_s() + self._every_s
            self._log.warning(self._event, times=self._times, **fields)
            self._times = 0
