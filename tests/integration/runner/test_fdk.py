"""Do functions that were written with the Fn Project's kits run, unchanged, with the real kits?"""

import asyncio
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from services.runner import runs
from shared import ids
from tests.integration.runner.bench import Bench, Box
from tests.integration.runner.functions import DEBIAN, PYTHON, build

PYTHON_KIT, NODE_KIT = "fdk==0.1.128", "@fnproject/fdk@0.0.76"
KITS = Path(__file__).parent / "kits"
MIB = 1024 * 1024
HEADERS = (("Accept", "text/plain"), ("X-Two", "a"), ("X-Two", "b"), ("Content-Type", "a/b"))


async def python_image(docker: aiodocker.Docker) -> str:
    """Make the image that a function of the Python kit has; the kit comes from the package index.

    Its wheels are got here, because a container may not know a proxy's certificate.
    """

    def get(folder: Path) -> None:
        options = ("--only-binary=:all:", "--python-version", "3.11", "--dest", str(folder))
        run(sys.executable, "-m", "pip", "download", "-q", *options, PYTHON_KIT)

    return await build(
        docker,
        "fdk-python",
        f"# {PYTHON_KIT}",
        "RUN python3 -m venv /python",
        "COPY got /wheels",
        f"RUN /python/bin/pip install -q --no-index --find-links /wheels {PYTHON_KIT}",
        "WORKDIR /function",
        "COPY func.py .",
        'ENTRYPOINT ["/python/bin/fdk", "/function/func.py", "handler"]',
        base=PYTHON,
        files={"func.py": (KITS / "func.py").read_bytes()},
        get=get,
    )


async def node_image(docker: aiodocker.Docker) -> str:
    """Make the image that a function of the Node kit has; the kit comes from the registry."""

    def get(folder: Path) -> None:
        options = ("--prefix", str(folder), "--omit=dev", "--ignore-scripts", "--no-audit")
        run("npm", "install", "--silent", "--no-fund", *options, NODE_KIT)

    return await build(
        docker,
        "fdk-node",
        f"# {NODE_KIT}",
        "RUN apt-get update -q && apt-get install -q -y --no-install-recommends nodejs",
        "WORKDIR /function",
        "COPY got/node_modules node_modules",
        "COPY func.js .",
        'ENTRYPOINT ["node", "func.js"]',
        base=DEBIAN,
        files={"func.js": (KITS / "func.js").read_bytes()},
        get=get,
    )


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


MAKERS = {"python": python_image, "node": node_image}
KIT = pytest.mark.parametrize("kit", MAKERS)


async def opened(bench: Bench, kit: str, **config: str) -> Box:
    image = await MAKERS[kit](bench.docker)
    return await bench.open(image, format="http-stream", memory_mb=256, config_env=config)


def do(what: str, **more: Any) -> bytes:
    return json.dumps({"do": what, **more}).encode()


@KIT
async def test_hello(bench: Bench, kit: str) -> None:
    box = await opened(bench, kit)
    caller = await box.call(do("hello", name="World"))
    result = await caller.result()
    assert isinstance(result.ending, runs.Answered)
    assert (result.ending.status, json.loads(result.body)) == (200, {"message": "Hello World"})
    assert dict(result.ending.headers)["Content-Type"] == "application/json"
    assert b"Hello World function" in result.log
    assert caller.reusable


@KIT
async def test_what_a_function_is_told_and_what_it_tells(bench: Bench, kit: str) -> None:
    box = await opened(bench, kit, GREETING="hi")
    call_id = ids.new_call_id()
    caller = await box.call(
        do("context"), call_id=call_id, method="PUT", url="http://host/r/app/p?q=1", headers=HEADERS
    )
    result = await caller.result()
    assert isinstance(result.ending, runs.Answered)
    told = dict(result.ending.headers)
    assert result.ending.status == 201
    assert {name.lower(): value for name, value in told.items()}["x-made-by"] == kit
    seen = json.loads(result.body)
    assert (seen["app"], seen["function"], seen["call_id"]) == ("app", "p", call_id)
    assert (seen["method"], seen["url"]) == ("PUT", "http://host/r/app/p?q=1")
    assert seen["config"] == "hi"
    assert datetime.fromisoformat(seen["deadline"]).tzinfo is not None
    got = {name.lower(): value for name, value in seen["headers"].items()}
    assert got["accept"] in ("text/plain", ["text/plain"])
    assert "b" in got["x-two"]


@KIT
async def test_payloads_come_back_unchanged(bench: Bench, kit: str) -> None:
    box = await opened(bench, kit)
    for size in (1, 100, 65_535, 65_536, 65_537, MIB):
        payload = bytes(range(256)) * (size // 256 + 1)
        assert await box.answer(payload[:size]) == payload[:size]


@KIT
async def test_several_hundred_different_calls(bench: Bench, kit: str) -> None:
    box = await opened(bench, kit)
    for number in range(300):
        assert await box.answer(b"call %d" % number) == b"call %d" % number
    assert not box.useless.is_set()


@KIT
async def test_a_log_belongs_to_its_call(bench: Bench, kit: str) -> None:
    box = await opened(bench, kit)
    for number in range(10):
        caller = await box.call(do("log", text=f"line {number}"))
        lines = (await caller.result()).log.splitlines()
        assert [line for line in lines if line.startswith(b"line")] == [b"line %d" % number]


@KIT
async def test_a_function_that_raises(bench: Bench, kit: str) -> None:
    box = await opened(bench, kit)
    caller = await box.call(do("raise"))
    result = await caller.result()
    assert result.ending == runs.SaysFailed(timed_out=False)
    assert b"the function's own error" in result.log
    assert caller.reusable
    assert await box.answer(b"next") == b"next"


@KIT
async def test_a_function_that_exits(bench: Bench, kit: str) -> None:
    box = await opened(bench, kit)
    assert await box.answer(b"before") == b"before"
    caller = await box.call(do("exit"))
    assert (await caller.result()).ending == runs.Exited(3)
    assert not caller.reusable


async def test_a_streamed_answer(bench: Bench) -> None:
    """Of the Node kit: the one for Python has none."""
    box = await opened(bench, "node")
    caller = box.begin(do("stream", count=5, pause_ms=100), streams=True)
    await caller.received(len(b"data: 0\n\n"))
    assert not caller.over
    result = await caller.result()
    assert caller.body == b"".join(b"data: %d\n\n" % n for n in range(5))
    assert dict(caller.headers)["Content-Type"] == "text/event-stream"
    assert isinstance(result.ending, runs.Answered)
    assert caller.reusable
    assert await box.answer(b"next") == b"next"


@KIT
async def test_as_another_user(bench: Bench, kit: str) -> None:
    """As the kits' own base images have it."""
    image = await MAKERS[kit](bench.docker)
    own = await build(bench.docker, f"fdk-{kit}-user", "USER 1000:1000", base=image)
    async with bench.opened(own, format="http-stream", memory_mb=256) as box:
        assert await box.answer(b"hello") == b"hello"


async def test_both_at_once(bench: Bench) -> None:
    python, node = await asyncio.gather(opened(bench, "python"), opened(bench, "node"))
    for number in range(20):
        payload = b"call %d" % number
        answers = await asyncio.gather(python.answer(payload), node.answer(payload))
        assert list(answers) == [payload] * 2
