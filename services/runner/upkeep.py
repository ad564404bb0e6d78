"""What does a runner do besides running calls? It beats, and looks after engine and images."""

import asyncio
import os
import shutil
from contextlib import aclosing
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import RedisError

from services.runner import engine, heartbeat, janitor, metrics, state
from services.runner.contact import Contact
from services.runner.images import PullFailed
from services.runner.pool import Kind
from services.runner.service import Runner
from services.runner.settings import Settings
from services.runner.world import World
from shared import clock, ids, keys, messages, scripts, streams
from shared.errors import Refused, Unavailable, Undecodable
from shared.metrics import UNDECODABLE

log = structlog.get_logger()

_SWEEP_S = 5.0
_IMAGES_S = 30.0
_TAGS_S = 5.0
#: However much changes, there are no more heartbeats than one in so many seconds.
_BEAT_PAUSE_S = 0.1
_WANTED_S = 1.0
_ENGINE_CHECK_S = 1.0
#: How often it is looked whether this runner may be thought lost: far more often than the time for
#: stopping its calls is long.
_CONTACT_S = 0.2


class Upkeep:
    """The long-lived tasks of a runner that are about no call."""

    def __init__(
        self,
        runner_id: str,
        settings: Settings,
        world: World,
        info: engine.EngineInfo,
        runner: Runner,
    ) -> None:
        """`info` is what the engine said of itself at the start."""
        self._id, self._settings, self._world, self._info = runner_id, settings, world, info
        self._runner = runner
        self._name = settings.runner_name or ids.host_name()
        self._contact = Contact(settings.runner_lost_s, clock.monotonic_s())
        self._folders = Path(settings.runner_folder)
        #: Signs of life of all runners, and of all runners' folders.
        self._beats: dict[str, janitor.Sign] = {}
        self._touched: dict[str, janitor.Sign] = {}
        self._image_names: tuple[str, ...] = ()

    async def arrive(self) -> None:
        """Be known to the scheduler, and remove leftovers, before anything is taken."""
        await self._make_stream()
        names = await self._world.engine.image_names()
        self._image_names = heartbeat.route_names(names)
        await self._beat()
        await self._sweep()

    async def _make_stream(self) -> None:
        backoff = streams.Backoff()
        while True:
            try:
                stream = keys.runner(self._id)
                await streams.make_group(self._world.redis, stream, keys.RUNNER_GROUP)
            except (RedisError, OSError) as error:
                log.warning("waiting_for_redis", error=str(error))
                await backoff.wait()
            else:
                return

    async def beat(self) -> None:
        """Send heartbeats, each second and when something in them changes, for ever.

        The second is reckoned from the sending, as contact is: when an answer has been long under
        way, the next heartbeat is due at once.
        """
        while True:
            self._runner.changed.clear()
            sent_s = clock.monotonic_s()
            await self._beat()
            await asyncio.sleep(sent_s + _BEAT_PAUSE_S - clock.monotonic_s())
            try:
                async with asyncio.timeout(sent_s + heartbeat.BEAT_S - clock.monotonic_s()):
                    await self._runner.changed.wait()
            except TimeoutError:
                continue

    async def _beat(self) -> None:
        now_ms, pool = clock.epoch_ms(), self._runner.state.pool
        sent = heartbeat.build(
            self._id,
            self._info,
            memory_mb=self._settings.runner_memory_mb,
            overcommit=self._settings.runner_cpu_overcommit,
            able=self._runner.state.able,
            draining=self._runner.state.draining,
            images=self._image_names,
            running=len(self._runner.state.calls),
            sandboxes=pool.counts(),
            idle_memory_mb=pool.idle_mb(),
            now_ms=now_ms,
            name=self._name,
        )
        for name in ("idle", "busy", "starting"):
            metrics.SANDBOXES.labels(name).set(sum(getattr(s, name) for s in sent.sandboxes))
        sent_s = clock.monotonic_s()
        try:
            wished = await self._world.outbox.send(scripts.tell(sent))
        except Unavailable as error:
            # The next one is due in a second.
            log.warning("heartbeat_unsent", error=error.message)
            if isinstance(error, Refused):
                self._contact.refused(clock.monotonic_s())
        else:
            self._contact.heard(sent_s)
            self._notice_contact()
            self._wish(wished=bool(wished))

    def _wish(self, *, wished: bool) -> None:
        if wished != self._runner.state.emptying:
            log.info("drain_wished", wished=wished)
            self._runner.apply(state.DrainWished(wished))

    async def watch_contact(self) -> None:
        """Notice when this runner may be thought lost, and when it is heard again, for ever."""
        while True:
            await asyncio.sleep(_CONTACT_S)
            self._notice_contact()

    def _notice_contact(self) -> None:
        was_cut, now_s = self._runner.state.cut, clock.monotonic_s()
        cut = self._contact.is_lost(now_s, self._world.outbox.left_s, was_lost=was_cut)
        if cut != was_cut:
            log.warning("contact_changed", cut_off=cut, calls=len(self._runner.state.calls))
            metrics.CUT_OFF.inc(int(cut))
            self._runner.apply(state.ContactChanged(cut))

    async def watch_engine(self) -> None:
        """Notice when the engine goes and when it is back, for ever."""
        while True:
            await asyncio.sleep(_ENGINE_CHECK_S)
            try:
                await self._world.engine.ping()
                if not self._runner.state.able:
                    await self._engine_back()
            except engine.EngineError as error:
                self._engine_changed(able=False, why=error.message)

    async def _engine_back(self) -> None:
        """Start anew with an engine that was away: what it kept running may be gone."""
        self._info = await self._world.engine.info()
        self._world.images.forget()
        await self._world.holders.clear()
        await self._world.holders.prepare()
        self._engine_changed(able=True, why="")

    def _engine_changed(self, *, able: bool, why: str) -> None:
        if able == self._runner.state.able:
            return
        log.warning("engine_changed", able=able, why=why)
        self._runner.apply(state.EngineChanged(able))

    async def watch_images(self) -> None:
        """Know the engine's images, by its events and each half minute, for ever."""
        while True:
            try:
                async with asyncio.timeout(_IMAGES_S):
                    await self._follow_images()
            except TimeoutError:
                continue
            except engine.EngineError as error:
                log.warning("images_unknown", error=error.message)
            await asyncio.sleep(_ENGINE_CHECK_S)

    async def _follow_images(self) -> None:
        async with aclosing(self._world.engine.image_changes()) as changes:
            async for _ in changes:
                self._world.images.forget()
                names = await self._world.engine.image_names()
                self._image_names = heartbeat.route_names(names)
                self._runner.changed.set()
                await self._look_at_images()

    async def watch_tags(self) -> None:
        """See to it that sandboxes of an image go when its name means another, for ever."""
        while True:
            await asyncio.sleep(_TAGS_S)
            await self._look_at_images()

    async def _look_at_images(self) -> None:
        for name in self._runner.state.pool.images():
            try:
                image = await self._world.images.ensure(name)
            except (engine.EngineError, PullFailed) as error:
                log.warning("image_unknown", image=name, error=error.message)
            else:
                self._runner.apply(state.ImageMoved(name, image.digest))

    async def watch_wanted(self) -> None:
        """Know which sandboxes are to be kept ready, for ever."""
        known: dict[bytes, bytes] = {}
        while True:
            try:
                raw: Any = await self._world.redis.hgetall(keys.WANTED)
            except (RedisError, OSError) as error:
                log.warning("wanted_unknown", error=str(error))
            else:
                if raw != known:
                    known = raw
                    self._runner.apply(state.ReadinessWanted(_wanted(raw)))
            await asyncio.sleep(_WANTED_S)

    async def sweep(self) -> None:
        """Remove what nobody owns, for ever: what the dead left running uses what others get."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self._sweep()

    async def _sweep(self) -> None:
        await asyncio.to_thread(self._sweep_folders)
        try:
            raw: Any = await self._world.redis.hgetall(keys.RUNNERS)
            found = await self._world.engine.labelled(self._settings.platform_name)
            now_s = clock.monotonic_s()
            self._beats = janitor.watched(self._beats, _heartbeats(raw), now_s)
            living = janitor.alive(self._beats, now_s)
            removed = janitor.leftovers(
                found,
                own_id=self._id,
                living=living,
                sandboxes=self._runner.state.pool.ids(),
                namespaces=self._world.holders.known(),
                now_s=clock.wall_ms() / 1000,
            )
            for container_id in removed:
                log.warning("leftover_removed", container=container_id)
                await self._world.engine.remove(container_id)
                metrics.LEFTOVERS.inc()
        except (RedisError, OSError) as error:
            self._beats.clear()  # others could not be heard either
            log.warning("sweep_failed", error=str(error))
        except engine.EngineError as error:
            log.warning("sweep_failed", error=str(error))

    def _sweep_folders(self) -> None:
        """Remove the folders of runners that were killed; touch this one's own."""
        try:
            os.utime(self._folders / janitor.folder_name(self._id))
            found = [entry for entry in os.scandir(self._folders) if entry.is_dir()]
            touched_s = {entry.name: entry.stat().st_mtime for entry in found}
        except OSError as error:
            log.warning("folders_unswept", error=str(error))
            return
        now_s = clock.monotonic_s()
        self._touched = janitor.watched(self._touched, touched_s, now_s)
        for name in janitor.stale_folders(self._touched, now_s):
            log.warning("leftover_removed", folder=name)
            shutil.rmtree(self._folders / name, ignore_errors=True)


def _wanted(raw: dict[bytes, bytes]) -> tuple[Kind, ...]:
    """Return the kinds of sandboxes in the hash of wanted ones; what cannot be read is not."""
    kinds: list[Kind] = []
    for value in raw.values():
        try:
            kinds.append(state.wanted_kind(messages.decode(value, messages.Wanted)))
        except Undecodable:
            UNDECODABLE.labels(keys.WANTED).inc()
    return tuple(kinds)


def _heartbeats(raw: dict[bytes, bytes]) -> dict[str, int]:
    """Return when each runner beat last, by its own clock; what cannot be read is nobody's."""
    beats: dict[str, int] = {}
    for value in raw.values():
        try:
            beat = messages.decode(value, messages.Heartbeat)
        except Undecodable:
            UNDECODABLE.labels(keys.RUNNERS).inc()
        else:
            beats[beat.runner_id] = beat.sent_ms
    return beats
