"""How is a runner put together? Reads settings, connects, builds, runs until it is told to stop."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvloop

from services.runner import (
    containers,
    credentials,
    engine,
    heartbeat,
    holders,
    images,
    janitor,
    namespaces,
    sandbox,
)
from services.runner.output import Bounds
from services.runner.service import Runner
from services.runner.settings import Settings
from services.runner.upkeep import Upkeep
from services.runner.world import World
from shared import ids, logs, service, settings, streams
from shared.errors import BadSettings, MillraceError

log = structlog.get_logger()


def read_credentials(configured: Settings) -> list[credentials.Credential]:
    """Return the registry credentials: `DOCKER_AUTH`'s, else those of Docker's own file."""
    if configured.docker_auth:
        return credentials.parse_docker_auth(configured.docker_auth)
    path = Path(configured.docker_config).expanduser() / "config.json"
    try:
        return credentials.parse_docker_config(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        log.warning("docker_config_unreadable", path=str(path), error=str(error))
        return []


async def first_info(container_engine: engine.Engine, stop: asyncio.Event) -> engine.EngineInfo:
    """Return what the engine is, as soon as it answers; raises `EngineAway` if `stop` is set."""
    backoff = streams.Backoff()
    while True:
        try:
            return await container_engine.info()
        except engine.EngineAway as error:
            if stop.is_set():
                raise
            log.warning("engine_away", error=error.message)
            await backoff.wait()


@asynccontextmanager
async def places(
    configured: Settings, runner_id: str, container_engine: engine.Engine
) -> AsyncIterator[sandbox.Places]:
    """Give this runner's own folder, with the init in it, and remove it at the end."""
    name = janitor.folder_name(runner_id)
    here = Path(configured.runner_folder) / name
    outside = Path(configured.runner_folder)
    if configured.runner_volume:
        outside = Path(await container_engine.volume_folder(configured.runner_volume))
    try:
        here.mkdir(mode=0o700, parents=True)
        shutil.copyfile(configured.runner_init, here / "init")
        (here / "init").chmod(0o755)
    except OSError as error:
        raise BadSettings(f"bad settings: RUNNER_FOLDER, RUNNER_INIT: {error}") from error
    try:
        yield sandbox.Places(here, outside / name)
    finally:
        shutil.rmtree(here, ignore_errors=True)


@asynccontextmanager
async def world(
    configured: Settings,
    known: list[credentials.Credential],
    owner: containers.Owner,
    container_engine: engine.Engine,
    *,
    starts: int,
    where: sandbox.Places,
) -> AsyncIterator[World]:
    """Build all the runner acts on, and clear it away at the end."""
    known_images = images.Images(
        container_engine,
        known,
        tries=configured.image_pull_tries,
        timeout_s=configured.image_pull_timeout_s,
        check_s=configured.image_check_s,
    )
    pool = namespaces.Pool(
        configured.namespace_spares, configured.namespace_idle_max, configured.namespace_idle_s
    )
    network_holders = holders.Holders(container_engine, pool, owner, configured.runner_network)
    sandboxes = sandbox.Sandboxes(
        container_engine,
        known_images,
        network_holders,
        owner=owner,
        limits=limits(configured),
        bounds=bounds(configured),
        places=where,
        starts=starts,
    )
    redis = streams.connect(configured.mq_url)
    try:
        async with streams.Outbox(redis) as outbox:
            yield World(redis, outbox, container_engine, known_images, network_holders, sandboxes)
    finally:
        await known_images.close()
        await network_holders.close()
        await remove_own(container_engine, owner)
        await redis.aclose()


def limits(configured: Settings) -> containers.Limits:
    """Return what every function's container has in common."""
    return containers.Limits(
        configured.runner_pids,
        configured.runner_files,
        configured.runner_file_max_mb,
        configured.runner_disk_mb,
    )


def bounds(configured: Settings) -> Bounds:
    """Return how much of a function's output is taken."""
    return Bounds(
        configured.response_max_bytes,
        configured.log_max_bytes,
        configured.response_stream_max_bytes,
    )


async def remove_own(container_engine: engine.Engine, owner: containers.Owner) -> None:
    """Remove what is left of this runner: a step that was cancelled may just have made it."""
    await container_engine.settled()
    try:
        for found in await container_engine.labelled(owner.platform):
            if found.runner_id == owner.runner_id:
                await container_engine.remove(found.container_id)
    except engine.EngineError as error:
        # The next runner's sweep finds them.
        log.warning("removal_failed", error=error.message)


async def run(configured: Settings, known: list[credentials.Credential]) -> None:
    """Be a runner until SIGTERM, then drain."""
    runner_id = ids.new_process_id("runner", configured.runner_name)
    structlog.contextvars.bind_contextvars(runner_id=runner_id)
    owner = containers.Owner(configured.platform_name, runner_id)
    async with service.stop_signals() as stop, connected_engine(configured) as container_engine:
        info = await first_info(container_engine, stop)
        async with (
            places(configured, runner_id, container_engine) as where,
            world(
                configured,
                known,
                owner,
                container_engine,
                starts=configured.runner_starts or 2 * info.cpus,
                where=where,
            ) as acted_on,
        ):
            memory_mb = heartbeat.offered_memory_mb(info.memory_mb, configured.runner_memory_mb)
            runner = Runner(runner_id, configured, acted_on, memory_mb)
            upkeep = Upkeep(runner_id, configured, acted_on, info, runner)
            async with service.operating_server(configured.port, runner.missing):
                await live(runner, upkeep, acted_on, configured.drain_grace_s, stop)


@asynccontextmanager
async def connected_engine(configured: Settings) -> AsyncIterator[engine.Engine]:
    """Give a connection to the engine, and close it at the end."""
    container_engine = engine.Engine(configured.docker_host)
    try:
        yield container_engine
    finally:
        await container_engine.close()


async def live(
    runner: Runner, upkeep: Upkeep, acted_on: World, drain_grace_s: float, stop: asyncio.Event
) -> None:
    """Take calls until told to stop; then drain and leave."""
    await upkeep.arrive()
    await acted_on.holders.prepare()
    async with service.supervised(
        read=runner.read(),
        tick=runner.tick(),
        beat=upkeep.beat(),
        contact=upkeep.watch_contact(),
        engine=upkeep.watch_engine(),
        images=upkeep.watch_images(),
        tags=upkeep.watch_tags(),
        wanted=upkeep.watch_wanted(),
        sweep=upkeep.sweep(),
        namespaces=acted_on.holders.tend(),
    ):
        service.rest_garbage_collector()
        log.info("ready")
        await stop.wait()
        await runner.drain(drain_grace_s)
    await runner.farewell()
    log.info("stopped")


def main() -> None:
    """Run from the environment; exit 2 with one line if it is wrong."""
    try:
        configured = settings.read(Settings, os.environ)
        known = read_credentials(configured)
    except BadSettings as error:
        sys.stderr.write(f"{error.message}\n")
        sys.exit(2)
    logs.configure("runner", configured.log_level)
    try:
        uvloop.run(run(configured, known))
    except MillraceError as error:
        log.critical("failed", error=error.message)
        sys.exit(2 if isinstance(error, BadSettings) else 1)


if __name__ == "__main__":
    main()
