"""Is nothing left of what sandboxes do, or fail to do? No container, folder, file or task."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiodocker
import pytest

from services.runner import containers, hot, runs, sandbox
from services.runner.engine import Engine, EngineAway
from tests.integration.runner.bench import DOCKER_HOST, Bench, bench_of
from tests.integration.runner.functions import build, program, shell

FORMATS = ["default", "http", "json", "http-stream"]


def open_files() -> Counter[str]:
    """Return what kinds of files this process has open, and how many of each."""
    links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return Counter(str(link.readlink()).partition(":")[0] for link in links if link.is_symlink())


@asynccontextmanager
async def whole_bench(places: sandbox.Places, kind: type[Engine] = Engine) -> AsyncIterator[Bench]:
    """Give a bench with connections to the engine of its own, which end with it."""
    container_engine = kind(DOCKER_HOST)
    async with (
        aiodocker.Docker(DOCKER_HOST) as docker,
        bench_of(docker, container_engine, places) as made,
    ):
        yield made
    await container_engine.close()
    # Connections are closed in the turns of the loop that follow.
    await asyncio.sleep(0)


@asynccontextmanager
async def nothing_left(places: sandbox.Places, kind: type[Engine] = Engine) -> AsyncIterator[Bench]:
    """Give a bench; check that there are as many files and tasks afterwards as before."""
    async with whole_bench(places) as first:
        await first.run("true")
    files, tasks = open_files(), len(asyncio.all_tasks())
    async with whole_bench(places, kind) as bench:
        yield bench
    assert len(asyncio.all_tasks()) == tasks
    assert open_files() == files


def does(*steps: tuple[str, object]) -> bytes:
    return json.dumps({"steps": steps}).encode()


@pytest.mark.parametrize("how", FORMATS)
async def test_calls_of_all_ends(places: sandbox.Places, how: str) -> None:
    harms = [
        does(("exit", 3)),
        does(("kill", 9)),
        does(("memory", 0)),
        does(("write", "bm9uc2Vuc2UK")),
        does(("begin", "a/b"), ("chunks", (9000, 1024))),
        does(("answer", "one"), ("exit", 0)),
        does(("fork", 60), ("answer", "one")),
        b"x" * 3_000_000,
    ]
    async with nothing_left(places) as bench:
        if how == "default":
            image = await shell(bench.docker, "head -c 100; setsid sleep 60 & sleep $S; exit 3")
        else:
            image = await program(bench.docker, "puppet")
        for harm in harms:
            box = await bench.open(image, format=how, memory_mb=48)
            await box.answer(b"fine", env={"S": "0"}) if how != "default" else None
            await box.call(harm, streams=False, env={"S": "0"})
            await bench.remove(box)
        stopped = await bench.open(image, format=how)
        caller = stopped.begin(does(("sleep", 60)), env={"S": "60"})
        stopped.sandbox.stop()
        assert (await caller.result()).ending == runs.Stopped()
        for _ in range(5):
            await bench.open(image, format=how)


@pytest.mark.parametrize("how", FORMATS)
async def test_sandboxes_that_end_by_themselves(places: sandbox.Places, how: str) -> None:
    """Busy or idle, and not removed before the runner ends."""
    async with nothing_left(places) as bench:
        image = await program(bench.docker, "puppet")
        if how == "default":
            image = await shell(bench.docker, "sleep 60")
        busy, idle = await bench.open(image, format=how), await bench.open(image, format=how)
        caller = busy.begin(does(("sleep", 60)))
        for box in (busy, idle):
            await bench.docker.containers.container(box.sandbox.container_id).kill()
        assert isinstance((await caller.result()).ending, runs.EngineFailed)
        await idle.becomes_useless()


async def test_sandboxes_that_cannot_be_opened(
    places: sandbox.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "LISTEN_S", 0.5)
    async with nothing_left(places) as bench:
        puppet = await program(bench.docker, "puppet")
        slow = {"PUPPET_START": json.dumps([("sleep", 60)])}
        ends = {"PUPPET_START": json.dumps([("exit", 3)])}
        user = await build(bench.docker, "bad", "USER nobodyknows", 'ENTRYPOINT ["/bin/sh"]')
        for image, config in (
            (puppet, slow),
            (puppet, ends),
            (puppet, {"HUGE": "x" * 200_000}),
            (puppet, {"HUGE": "x" * 2_000_000}),
            (user, {}),
            ("registry.invalid/nobody/nothing:1", {}),
            ("no such name", {}),
        ):
            with pytest.raises(sandbox.Unopened):
                await bench.open(image, format="http-stream", config_env=config)
            assert os.listdir(places.here) == ["init"]
            assert await bench.containers() == []


class ForgetfulEngine(Engine):
    """An engine that starts sandboxes, but is gone before it says so."""

    def __init__(self, docker_host: str) -> None:
        super().__init__(docker_host)
        self._sandboxes: set[str] = set()

    async def create(self, config: containers.Config) -> str:
        container_id = await super().create(config)
        if containers.SANDBOX_LABEL in config["Labels"]:
            self._sandboxes.add(container_id)
        return container_id

    async def start(self, container_id: str) -> None:
        await super().start(container_id)
        if container_id in self._sandboxes:
            await asyncio.sleep(0.2)
            raise EngineAway


async def test_a_sandbox_that_has_come_although_the_engine_failed(places: sandbox.Places) -> None:
    async with nothing_left(places, ForgetfulEngine) as bench:
        with pytest.raises(sandbox.Unopened) as caught:
            await bench.open(await shell(bench.docker, "true"))
        assert isinstance(caught.value.ending, runs.EngineFailed)


@pytest.mark.parametrize("how", ["default", "http-stream"])
async def test_openings_that_are_given_up(places: sandbox.Places, how: str) -> None:
    """At whatever point they are."""
    async with nothing_left(places) as bench:
        image = await program(bench.docker, "puppet")
        for step in range(12):
            opening = asyncio.create_task(bench.open(image, format=how))
            await asyncio.wait({opening}, timeout=step * 0.02)
            opening.cancel()
            await asyncio.wait({opening})
