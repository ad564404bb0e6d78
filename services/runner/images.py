"""Is the image here, and how does it get here? Local first; else pulled once for all who wait.

A tag can move in its registry. So a tag in use that came from a registry is pulled again behind
the calls' backs, at most every `check_s` seconds: the calls of that moment still run the old image,
the next ones the new, and a registry that is away fails nothing. Images built on this engine are
never looked for elsewhere: whoever owns that name in a public registry is somebody else.
"""

import asyncio
import re
from collections.abc import Sequence

import structlog

from services.runner import credentials, metrics
from services.runner.engine import (
    Engine,
    EngineError,
    Image,
    ImageRefused,
    NotFound,
    PullTroubled,
)
from services.runner.pulls import Trouble
from shared import clock
from shared.errors import MillraceError
from shared.streams import Backoff

log = structlog.get_logger()

_HOST = r"localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:)"
_WORD = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
#: How images are named: [host[:port]/]path[:tag][@digest]. Anything else must not get into an
#: address of the engine.
_NAME = re.compile(
    rf"(?:(?:{_HOST})(?::[0-9]+)?/)?{_WORD}(?:/{_WORD})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,})?"
)


class PullFailed(MillraceError):
    """The image could not be pulled."""

    def __init__(self, message: str, trouble: Trouble) -> None:
        """`message` is for the caller, `trouble` says whose fault it is."""
        super().__init__(message)
        self.code = trouble.value


class Images:
    """What is known of the images on the engine's disk. A name with a digest never moves.

    Invariant: of each name at most one pull is under way.
    """

    def __init__(
        self,
        engine: Engine,
        known_credentials: Sequence[credentials.Credential],
        *,
        tries: int,
        timeout_s: float,
        check_s: float,
    ) -> None:
        """`timeout_s` is for all tries of a pull together; `check_s` 0: tags are never checked."""
        self._engine = engine
        self._credentials = known_credentials
        self._tries, self._timeout_s, self._check_s = tries, timeout_s, check_s
        self._known: dict[str, Image] = {}
        self._checked_s: dict[str, float] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, name: str) -> Image:
        """Return an image that is on the engine's disk by now; `PullFailed` if it cannot be.

        `ImageRefused` if no image can have that name.
        """
        if not _NAME.fullmatch(name):
            raise ImageRefused("invalid reference format")
        image = self._known.get(name)
        if image is None:
            try:
                image = await self._engine.image(name)
            except NotFound:
                await asyncio.shield(self._pull(name, self._tries))
                image = await self._engine.image(name)
            self._known[name] = image
        self._check(name, image)
        return image

    def forget(self) -> None:
        """Look at the engine again before believing that an image is there."""
        self._known.clear()

    async def close(self) -> None:
        """Give up all pulls."""
        for task in self._pulls.values():
            task.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    def _check(self, name: str, image: Image) -> None:
        """Pull a tag again in the background if it is due."""
        if not (self._check_s and image.from_registry) or "@" in name:
            return
        now_s = clock.monotonic_s()
        if now_s - self._checked_s.setdefault(name, now_s) >= self._check_s:
            self._checked_s[name] = now_s
            self._pull(name, tries=1)

    def _pull(self, name: str, tries: int) -> asyncio.Task[None]:
        """Return the pull of an image that is under way, or start it."""
        task = self._pulls.get(name)
        if task is None:
            task = self._pulls[name] = asyncio.create_task(
                self._pull_bounded(name, tries), name=f"pull {name}"
            )
            task.add_done_callback(lambda done: self._pulled(name, done))
        return task

    def _pulled(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._pulls[name]
        failed = task.cancelled() or task.exception() is not None
        metrics.PULLS.labels("failed" if failed else "done").inc()
        self._checked_s[name] = clock.monotonic_s()
        self._known.pop(name, None)

    async def _pull_bounded(self, name: str, tries: int) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._pull_tries(name, tries)
        except TimeoutError as error:
            raise PullFailed(f"not done within {self._timeout_s:g} s", Trouble.AWAY) from error

    async def _pull_tries(self, name: str, tries: int) -> None:
        credential = credentials.match(self._credentials, name)
        backoff = Backoff(first_s=0.5, longest_s=5.0)
        for left in reversed(range(tries)):
            try:
                await self._engine.pull(name, credential)
            except EngineError as error:
                trouble = error.trouble if isinstance(error, PullTroubled) else Trouble.AWAY
                log.warning("image_pull_failed", image=name, tries_left=left, error=error.message)
                if trouble.final or not left:
                    raise PullFailed(error.message, trouble) from error
                await backoff.wait()
            else:
                log.info("image_pulled", image=name)
                return
