"""How does a dead letter become a call again? A new one, accepted as any other is.

It is run by its route as that is now, for that has been mended since; the input is the letter's.
The new call's id is decided in MySQL before Redis gets the call, and Redis takes it once. So
whatever dies in between, and however often it is asked for: one letter makes one call.
"""

import msgspec
import structlog

from services.api import invocation, metrics, plans
from services.api.catalog import Catalog, Found
from services.api.letters import Letter, Letters
from services.api.problems import Conflict, NotFound
from services.api.waiters import Overloaded
from shared import clock, ids, messages, scripts, streams
from shared.errors import Unavailable

log = structlog.get_logger()

#: How often an app may change under one redrive before we give up.
STALE_MAX = 5


class Redriving:
    """Redrives dead letters."""

    def __init__(
        self, letters: Letters, catalog: Catalog, outbox: streams.Outbox, queue_max: int
    ) -> None:
        """`queue_max`: async calls that may wait."""
        self._letters, self._catalog, self._outbox = letters, catalog, outbox
        self._queue_max = queue_max

    async def redrive(self, app: str, call_id: str) -> str:
        """Make a call of a letter, if none is made of it yet; returns the call's id.

        Raises `NotFound` without the letter or its route, `Conflict` if its input is lost, and
        `Overloaded` or `Unavailable`; then the letter stays.
        """
        letter = await self._find(app, call_id)
        if letter.redriven_as and letter.redriven_ms:
            return letter.redriven_as
        raw = await self._letters.parcel(letter)
        if raw is None:
            return await self._without_parcel(letter)
        new_id = await self._letters.name(letter.call_id, ids.new_call_id())
        if new_id is None:
            raise NotFound("Dead letter not found")
        await self._accept(letter, messages.decode(raw, messages.Parcel), new_id)
        await self._note(letter, new_id)
        return new_id

    async def _find(self, app: str, call_id: str) -> Letter:
        letter = await self._letters.find(app, call_id.lower())
        if letter is None:
            raise NotFound("Dead letter not found")
        return letter

    async def _without_parcel(self, letter: Letter) -> str:
        """Return the call that somebody else has made of it meanwhile. Raises `Conflict`."""
        now = await self._find(letter.app, letter.call_id)
        if now.redriven_as and now.redriven_ms:
            return now.redriven_as
        raise Conflict("The input of this call is lost; it can only be purged")

    async def _accept(self, letter: Letter, parcel: messages.Parcel, new_id: str) -> None:
        for _ in range(STALE_MAX):
            found = await self._catalog.lookup(letter.app, letter.path)
            head = _head(new_id, found)
            record = msgspec.structs.replace(
                invocation.queued_record(head), redrive_of=letter.call_id
            )
            answer = await self._outbox.send(
                scripts.redrive(
                    head,
                    _parcel(new_id, found, parcel),
                    record,
                    catalog_version=found.version,
                    queue_max=self._queue_max,
                )
            )
            if answer == scripts.FULL:
                raise Overloaded(f"{self._queue_max} async calls wait already")
            if answer != scripts.STALE:
                return
            self._catalog.forget(found)
        raise Unavailable("This app changes faster than a call can start")

    async def _note(self, letter: Letter, new_id: str) -> None:
        """Note it in the letter; if MySQL has gone away since, the next one to ask does."""
        metrics.REDRIVEN.inc()
        log.info("dead_letter_redriven", call_id=new_id, redrive_of=letter.call_id, app=letter.app)
        try:
            await self._letters.redriven(letter.call_id, clock.epoch_ms())
            await self._outbox.send(scripts.redrive_noted(new_id))
        except Unavailable as error:
            log.warning("redrive_unnoted", call_id=new_id, error=error.message)


def _head(new_id: str, found: Found) -> messages.CallHead:
    return msgspec.structs.replace(
        found.plan.head,
        call_id=new_id,
        mode="async",
        accepted_ms=clock.epoch_ms(),
        tries=plans.tries(found.route),
    )


def _parcel(new_id: str, found: Found, parcel: messages.Parcel) -> messages.Parcel:
    """Return the letter's parcel as the route's calls have it now."""
    plan = found.plan
    call_env = {k: v for k, v in parcel.call_env.items() if k not in plan.overridden}
    return msgspec.structs.replace(
        parcel,
        call_env=call_env | {"CALL_ID": new_id},
        config_env=plan.config_env,
        idle_timeout_s=plan.idle_timeout_s,
    )
