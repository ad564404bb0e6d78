"""Do functions' networks come when they are needed, last, and go, on the real engine?"""

import asyncio
from collections.abc import Callable

from services.runner import namespaces, runs
from services.runner.holders import Holders
from services.runner.namespaces import Namespace
from shared import tasks
from tests.conftest import eventually
from tests.integration.runner.bench import NETWORK, Bench, Box
from tests.integration.runner.functions import shell


def nobody() -> None:
    """Be told that a network is gone."""


def holders(bench: Bench, spares: int = 0, idle_max: int = 8, idle_max_s: float = 60) -> Holders:
    pool = namespaces.Pool(spares, idle_max, idle_max_s)
    return Holders(bench.engine, pool, bench.owner, NETWORK)


async def becomes(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""

    async def holds() -> bool:
        return condition()

    await eventually(holds)


async def only_known_ones(bench: Bench, made: Holders) -> None:
    """Wait until the engine has no other containers than those that keep namespaces."""

    async def so() -> bool:
        found = await bench.engine.labelled(bench.owner.platform)
        return {container.container_id for container in found} == made.known()

    await eventually(so)


async def kill(bench: Bench, namespace: Namespace) -> None:
    await bench.docker.containers.container(namespace.container_id).kill()


async def test_an_app_whose_sandboxes_come_all_at_once_gets_one(bench: Bench) -> None:
    made = holders(bench)
    lent = await asyncio.gather(*(made.acquire("a", nobody, alone=False) for _ in range(8)))
    assert {n.container_id for n in lent} == made.known()
    assert len(made.known()) == 1
    other = await made.acquire("b", nobody, alone=False)
    assert len({*lent, other}) == 2
    for namespace in [*lent, other]:
        await made.give_back(namespace, nobody, clean=True)
    await made.close()
    assert await bench.engine.labelled(bench.owner.platform) == []


async def test_one_whose_maker_was_cancelled_serves_the_others(bench: Bench) -> None:
    made = holders(bench)
    first = asyncio.create_task(made.acquire("a", nobody, alone=False))
    second = asyncio.create_task(made.acquire("a", nobody, alone=False))
    await becomes(lambda: bool(made._making))
    await tasks.end(first)
    namespace = await second
    assert made.known() == {namespace.container_id}
    await made.give_back(namespace, nobody, clean=True)
    await made.close()


async def test_spares_are_made_and_unused_ones_removed(bench: Bench) -> None:
    made = holders(bench, spares=1, idle_max_s=0)
    tending = asyncio.create_task(made.tend())
    await becomes(lambda: len(made.known()) == 1)
    (spare,) = made.known()
    namespace = await made.acquire("a", nobody, alone=False)
    assert namespace.container_id == spare
    await becomes(lambda: len(made.known()) == 2)
    await made.give_back(namespace, nobody, clean=True)
    await becomes(lambda: spare not in made.known())
    await only_known_ones(bench, made)
    await tasks.end(tending)
    await made.close()
    assert await bench.engine.labelled(bench.owner.platform) == []


async def test_whoever_is_in_a_network_whose_holder_ends_is_told_and_the_next_gets_another(
    bench: Bench,
) -> None:
    made = holders(bench)
    told: list[str] = []
    here, there = (lambda: told.append("here")), (lambda: told.append("there"))
    dead = await made.acquire("a", here, alone=False)
    await made.acquire("b", there, alone=False)
    await kill(bench, dead)
    await becomes(lambda: told == ["here"])
    fresh = await made.acquire("a", here, alone=False)
    assert fresh != dead
    await made.give_back(dead, here, clean=True)
    assert fresh.container_id in made.known()
    await only_known_ones(bench, made)


async def test_a_spare_whose_holder_ends_is_given_to_nobody(bench: Bench) -> None:
    made = holders(bench, spares=1)
    tending = asyncio.create_task(made.tend())
    await becomes(lambda: len(made.known()) == 1)
    (spare,) = made.known()
    await kill(bench, Namespace(spare))
    await becomes(lambda: spare not in made.known() and len(made.known()) == 1)
    await tasks.end(tending)
    await made.close()


async def test_a_call_whose_network_goes_fails_for_that(bench: Bench) -> None:
    """Loudly: not the function is to blame. An idle sandbox is not used again."""
    image = await shell(bench.docker, "sleep 600")
    busy, idle = await bench.open(image), await bench.open(image)
    elsewhere = await bench.open(image, app="other")
    caller, other_caller = busy.begin(), elsewhere.begin()
    assert busy.sandbox.namespace == idle.sandbox.namespace
    assert busy.sandbox.namespace is not None
    await kill(bench, busy.sandbox.namespace)
    result = await caller.result()
    assert result.ending == runs.EngineFailed("the sandbox lost its network")
    assert not caller.reusable
    await idle.becomes_useless()
    assert not other_caller.over
    assert (await bench.run("echo fine")).body == b"fine\n"


async def test_a_network_that_goes_under_a_start_is_replaced(bench: Bench) -> None:
    image = await shell(bench.docker, "echo fine")
    assert (await bench.run_image(image)).body == b"fine\n"
    opening = asyncio.create_task(bench.open(image))
    for container_id in bench.holders.known():
        await kill(bench, Namespace(container_id))
    box = await opening
    # If it was ready before the word had come, it says that it is of no use.
    await becomes(lambda: box.useless.is_set() or _lives(bench, box))


def _lives(bench: Bench, box: Box) -> bool:
    namespace = box.sandbox.namespace
    return namespace is not None and bench.holders.known() == {namespace.container_id}
