"""Can a function get at the first process of its sandbox, and at what that is told? It cannot."""

import json
from typing import Any

import pytest

from services.runner import runs
from tests.integration.runner.bench import Bench, Box
from tests.integration.runner.functions import PYTHON, build, program

NO = {
    "Operation not permitted",
    "Permission denied",
    "Connection refused",
    "No such file or directory",
    "Read-only file system",
    "Device or resource busy",
    "Bad file descriptor",
    "Text file busy",
}


async def seen(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await box.answer())
    return found


@pytest.mark.parametrize("user", ["0", "1234"])
async def test_a_function_reaches_nothing_of_its_first_process(bench: Bench, user: str) -> None:
    """As the same user, as which that runs as well: also as root, who has no privilege here."""
    image = await program(bench.docker, "probe", f"USER {user}")
    async with bench.opened(image) as box:
        for _ in range(2):
            found = await seen(box)
            assert found["user"] == int(user)
            reached = {name for name, told in found["tries"].items() if told not in NO}
            # Root can see how many files it has open, by their numbers, and nothing more.
            assert reached == ({"list files"} if user == "0" else set())
            assert found["files"] == ["0", "1", "2"]
            assert found["processes"] == 2
        assert not box.useless.is_set()


@pytest.mark.parametrize("how", ["http", "json", "http-stream"])
async def test_a_function_that_lives_on_has_its_own_files_only(bench: Bench, how: str) -> None:
    tell = (
        "import os; names = sorted(os.listdir('/proc/self/fd'), key=int); "
        "links = [os.path.realpath('/proc/self/fd/' + name) for name in names[:-1]]; "
        "channel.answer(repr((len(links), links[:3])).encode())"
    )
    image = await program(bench.docker, "puppet")
    async with bench.opened(image, format=how) as box:
        for _ in range(2):
            payload = json.dumps({"steps": [["run", tell]]}).encode()
            count, links = eval(await box.answer(payload))  # noqa: S307 (the puppet's own)
            # Of the puppet's own making: its listener and its connection.
            assert count == (5 if how == "http-stream" else 3)
            assert all("pipe:" in link for link in links)


async def test_the_connection_of_a_call_is_to_the_runner_alone(bench: Bench) -> None:
    """Another process of the sandbox cannot connect to what the runner listens at."""
    image = await program(bench.docker, "probe")
    async with bench.opened(image) as one, bench.opened(image) as other:
        assert (await seen(one))["tries"]["connect"] in NO
        assert (await seen(other))["tries"]["connect"] in NO
        assert sorted(path.name for path in bench.places.here.iterdir()) == ["1", "2", "init"]


@pytest.mark.parametrize("user", ["0", "1234"])
async def test_a_function_that_restricts_the_next_calls_is_their_last(
    bench: Bench, user: str
) -> None:
    """Any process may lower the limits of another of its user, and children inherit them."""
    do = "import os, resource, sys; resource.prlimit(1, resource.RLIMIT_NOFILE, (9, 9))"
    image = await build(
        bench.docker,
        "restricts",
        f"USER {user}",
        f'ENTRYPOINT ["python3", "-c", "{do}; print(1)"]',
        base=PYTHON,
    )
    async with bench.opened(image) as box:
        caller = await box.call()
        result = await caller.result()
        assert (result.ending, result.body) == (runs.Exited(0), b"1\n")
        assert not caller.reusable
