"""Do bytes of one call ever reach another? Thousands of calls that can be told apart."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator

import pytest

from services.runner import runs
from tests.integration.runner.bench import Bench, Box, Caller
from tests.integration.runner.functions import program, shell

KIB, MIB = 1024, 1024 * 1024
#: Around the sizes at which pipes, sockets and our reads are full.
EDGES = (0, 1, 2, 4095, 4096, 4097, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1)
FORMATS = ["default", "http", "json", "http-stream"]
CALLS = 2000


def payloads(chosen: random.Random, count: int) -> list[bytes]:
    """Return inputs that differ, of all sizes; one in a hundred is of 1 MiB."""
    made = []
    for number in range(count):
        size = MIB if number % 100 == 50 else chosen.choice((*EDGES, chosen.randrange(300)))
        marked = b"<%d>" % number
        rest = chosen.randbytes(max(0, size - len(marked)))
        made.append((marked + rest)[:size] if size < len(marked) else marked + rest)
    return made


async def opened(bench: Bench, how: str) -> Box:
    if how == "default":
        image = await shell(bench.docker, "echo $CALL >&2; cat")
    else:
        image = await program(bench.docker, "puppet")
    return await bench.open(image, format=how, memory_mb=64)


@pytest.mark.parametrize("how", FORMATS)
async def test_thousands_of_calls_over_one_sandbox(bench: Bench, how: str) -> None:
    seed = int.from_bytes(os.urandom(4))
    chosen = random.Random(seed)
    box = await opened(bench, how)
    for number, payload in enumerate(payloads(chosen, CALLS)):
        caller = await box.call(payload, env={"CALL": f"{number}"}, streams=chosen.random() < 0.5)
        result = await caller.result()
        answer = caller.body or result.body
        assert answer == payload, f"call {number}, seed {seed}: {len(answer)} bytes"
        assert caller.reusable
        if how == "default":
            assert result.log == b"%d\n" % number
    assert not box.useless.is_set()


#: What a process may do instead of answering; by a connection, it may also not come back to it.
HARMS = [
    [["exit", 3]],
    [["kill", 9]],
    [["write", "SFRUUC8xLjEgMjAwIE9LDQpDb250ZW50LUxlbmd0aDogOTk5DQoNCmhhbGY="], ["exit", 0]],
    [["write", "bm9uc2Vuc2UK"]],
    [["answer", "one"], ["answer", "two"]],
    [["answer", "one"], ["sleep", 0.002], ["answer", "two"]],
    [["answer", "one"], ["exit", 0]],
    [["log", "why"], ["sleep", 60]],
]
STANDARD_HARMS = [*HARMS, [["answer", "one"], ["close", 1], ["sleep", 60]]]


def harm(chosen: random.Random, how: str) -> bytes:
    """Return an input that makes the puppet misbehave, after half an answer perhaps."""
    steps = chosen.choice(HARMS if how == "http-stream" else STANDARD_HARMS)
    return json.dumps({"steps": steps}).encode()


async def boxes(bench: Bench, how: str) -> AsyncIterator[Box]:
    """Yield a sandbox for each call: the last one, as long as it may be used."""
    image = await program(bench.docker, "puppet")
    box: Box | None = None
    while True:
        if box is None or box.useless.is_set():
            if box is not None:
                await bench.remove(box)
            box = await bench.open(image, format=how, config_env={"PUPPET_NAMES": "1"})
        yield box
        if not box.spoiled:
            continue
        await bench.remove(box)
        box = None


@pytest.mark.parametrize("how", ["http", "json", "http-stream"])
async def test_calls_among_others_that_break_everything(bench: Bench, how: str) -> None:
    """As the runner's state has it: what is spoiled is removed, what was refused is run again."""
    seed = int.from_bytes(os.urandom(4))
    chosen = random.Random(seed)
    wanted = iter(payloads(chosen, 120))
    pending: bytes | None = next(wanted)
    async for box in boxes(bench, how):
        if pending is None:
            break
        harmful = chosen.random() < 0.15
        caller = box.begin(harm(chosen, how) if harmful else pending)
        if harmful:
            await harmed(box, caller)
        else:
            result = await caller.result()
            fine = isinstance(result.ending, runs.Answered) and result.body == pending
            assert fine or caller.was_refused or others_fault(how, result), f"{seed}: {result}"
            if fine:
                pending = next(wanted, None)
        box.spoiled = not caller.reusable


def others_fault(how: str, result: runs.Result) -> bool:
    """Say whether a call may have ended so for what an earlier one did; never with its bytes.

    Nobody can tell whether a process that ended had read of its connection; and one that answered
    many calls well is not waited for, so that an answer to an earlier one may come too late.
    """
    if how == "http-stream":
        return isinstance(result.ending, runs.BadAnswer | runs.Exited)
    return isinstance(result.ending, runs.BadAnswer) and "to another call" in result.ending.why


async def harmed(box: Box, caller: Caller) -> None:
    """Wait for the end of a call that may have none; then it is stopped, as by its timeout."""
    try:
        async with asyncio.timeout(0.3):
            await caller.result()
    except TimeoutError:
        box.sandbox.stop()
        assert caller.over


@pytest.mark.parametrize("how", FORMATS)
async def test_sandboxes_beside_each_other(bench: Bench, how: str) -> None:
    several = await asyncio.gather(*(opened(bench, how) for _ in range(4)))

    async def many(name: int, box: Box) -> None:
        for number in range(100):
            payload = b"%d %d " % (name, number) * (number % 7 * 1000)
            assert await box.answer(payload) == payload

    await asyncio.gather(*(many(name, box) for name, box in enumerate(several)))
