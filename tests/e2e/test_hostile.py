"""Do functions that misbehave, or many at once, harm nobody else?"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.e2e.client import Client
from tests.e2e.test_conformance_copy import CAT

Image = Callable[[str], str]

FORK_BOMB = "bomb() { bomb | bomb & bomb; }; bomb"
TEN_GIB = "exec awk 'BEGIN { while (i++ < 160) a[i] = sprintf(\"%67108864d\", i) }'"


@asynccontextmanager
async def others_go_on(client: Client, path: str) -> AsyncIterator[None]:
    """Hold that calls of another route are answered, one after the other, all the while."""
    done = asyncio.Event()

    async def call_on() -> int:
        answered = 0
        while not done.is_set() or not answered:
            body = b"still here %d" % answered
            answer = await client.post(path, data=body)
            assert (answer.status, answer.body) == (200, body)
            answered += 1
        return answered

    calling = asyncio.create_task(call_on())
    try:
        yield
    finally:
        done.set()
        assert await calling >= 1


@pytest.mark.parametrize(
    ("script", "fields", "codes"),
    [
        # A shell that can fork no more exits; how far it gets before is up to luck.
        pytest.param(FORK_BOMB, {"timeout": 5}, ["exit", "out_of_memory", "timeout"], id="forks"),
        pytest.param(TEN_GIB, {"timeout": 20}, ["out_of_memory"], id="10 GiB"),
        pytest.param("exec cat /dev/zero", {"timeout": 20}, ["too_large"], id="endless stdout"),
        pytest.param("exec sleep 100000", {"timeout": 3}, ["timeout"], id="endless sleep"),
        pytest.param("while :; do :; done", {"timeout": 3}, ["timeout"], id="endless loop"),
    ],
)
async def test_each_ends_in_its_error_while_others_go_on(
    client: Client,
    app: str,
    function_image: Image,
    *,
    script: str,
    fields: dict[str, int],
    codes: Sequence[str],
) -> None:
    good = await client.deploy(f"{app}-2", "/good", function_image(CAT))
    bad = await client.deploy(app, "/bad", function_image(script), **fields)
    async with others_go_on(client, good):
        answer = await client.post(bad)
    assert answer.code in codes
    assert answer.status == (504 if answer.code == "timeout" else 500)
    assert answer.json()["error"]["fault"] == "function"


async def test_a_mebibyte_comes_back_unchanged(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT))
    body = os.urandom(1024 * 1024)
    answer = await client.post(path, data=body)
    assert answer.status == 200
    assert answer.body == body


async def test_fifty_at_once_each_get_their_own(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image(CAT))
    bodies = [os.urandom(64) + b"%d" % n for n in range(50)]
    answers = await asyncio.gather(*(client.post(path, data=body) for body in bodies))
    assert [a.status for a in answers] == [200] * 50
    assert [a.body for a in answers] == bodies
    assert len({a.call_id for a in answers}) == 50


async def test_stderr_without_end_is_cut_visibly(
    client: Client, app: str, function_image: Image
) -> None:
    script = "head -c 20000000 /dev/zero | tr '\\0' x >&2; echo answered"
    path = await client.deploy(app, "/x", function_image(script))
    answer = await client.post(path)
    assert (answer.status, answer.text) == (200, "answered\n")
    await client.ended(answer.call_id)
    log = await client.get(f"/v1/calls/{answer.call_id}/log")
    assert 1000 < len(log.body) < 2_000_000
    assert log.text.strip().strip("x") != "", "the cut cannot be seen"


async def test_a_function_that_ignores_sigterm_is_ended(
    client: Client, app: str, function_image: Image
) -> None:
    script = "trap '' TERM INT HUP; while :; do sleep 1; done"
    path = await client.deploy(app, "/x", function_image(script), timeout=1)
    async with asyncio.timeout(15):
        assert (await client.post(path)).code == "timeout"


async def test_one_that_never_reads_its_stdin_answers(
    client: Client, app: str, function_image: Image
) -> None:
    path = await client.deploy(app, "/x", function_image("echo done"))
    answer = await client.post(path, data=os.urandom(4 * 1024 * 1024))
    assert (answer.status, answer.text) == (200, "done\n")


async def test_what_it_leaves_behind_is_ended(
    client: Client, app: str, function_image: Image
) -> None:
    """A child that outlives its call and holds stdout open must not hold up the answer."""
    path = await client.deploy(app, "/x", function_image("sleep 1000 & echo done"), timeout=60)
    async with asyncio.timeout(20):
        answer = await client.post(path)
    assert (answer.status, answer.text) == (200, "done\n")
