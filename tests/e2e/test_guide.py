"""Does the guide's way lead to a platform: each part by `docker run`, with variables alone?"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images, readme
from tests.e2e.platforms import ROOT, free_port

GUIDE = ROOT / "docs" / "guide.zh-CN.md"


@pytest.fixture
def name(_engine: None) -> Iterator[str]:
    """What stands for `function` in the names of the guide's containers; all of them go after."""
    made = f"guide-{secrets.token_hex(4)}"
    yield made
    for containers in (f"name=^/{made}", f"label=millrace.platform={made}"):
        remove("rm", "-fv", *images.docker("ps", "-aq", "--filter", containers).split())
    for kind in ("network", "volume"):
        remove(kind, "rm", *images.docker(kind, "ls", "-q", "--filter", f"name={made}").split())


def remove(*arguments: str) -> None:
    """Remove what the last words of a docker command name, if they name anything."""
    if arguments[-1] not in {"-fv", "rm"}:
        images.docker(*arguments)


async def test_each_part_by_docker_run(name: str, tmp_path: Path) -> None:
    port = free_port()
    here = {
        "function": name,
        "127.0.0.1:5000": f"127.0.0.1:{free_port()}",
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "8080:8080": f"{port}:8080",
    }
    await readme.follow(readme.steps(GUIDE), tmp_path, os.environ, here)


def test_the_curl_commands_are_those_of_the_examples() -> None:
    guide = GUIDE.read_text()
    for example in ("etcd_v3", "twitter"):
        for step in readme.steps(ROOT / "examples" / example / "README.md"):
            for command in readme.commands(step.commands, "curl -X POST"):
                assert command in guide or '"username"' in command
