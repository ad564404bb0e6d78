"""What do commands make of what the engine says? A script stands for its client."""

import json
from pathlib import Path
from typing import Protocol

import pytest

from fn.errors import Exit
from tests.integration.fn.conftest import Run


class Says(Protocol):
    def __call__(self, script: str) -> None: ...


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Puts a script in the place of `docker`, and a function into the folder."""
    (tmp_path / "func.yaml").write_text("name: h:5000/greet\nbuild: [echo made it]\n")
    (tmp_path / "Dockerfile").write_text("FROM a\nRUN b\n")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")

    def says(script: str) -> None:
        (bin_ / "docker").write_text(f"#!/bin/sh\n{script}\n")
        (bin_ / "docker").chmod(0o755)

    return says


def test_an_engine_that_is_down_was_the_functions_failure(run: Run, docker: Says) -> None:
    docker(
        "echo 'docker: Cannot connect to the Docker daemon at x. Is the docker daemon running?' >&2"
        "; echo \"Run 'docker run --help' for more information\" >&2; exit 125"
    )
    Path("func.yaml").unlink()
    ended = run("run", "some/image")
    assert (ended.code, ended.out) == (Exit.UNREACHABLE, "")
    assert ended.complaint == "the container engine does not answer"


def test_an_image_that_is_nowhere_was_the_functions_failure(run: Run, docker: Says) -> None:
    docker("echo 'docker: Error response from daemon: manifest unknown.' >&2; exit 125")
    Path("func.yaml").unlink()
    ended = run("run", "some/image")
    assert ended.complaint == "some/image: Error response from daemon: manifest unknown."


def test_a_function_may_end_as_the_engine_does(run: Run, docker: Says) -> None:
    docker("echo its own complaint >&2; exit 125")
    Path("func.yaml").unlink()
    ended = run("run", "some/image")
    assert (ended.code, ended.err) == (
        Exit.FAILED,
        "its own complaint\nfn: the function failed: exit code 125\n",
    )


def test_what_a_build_says_was_among_its_results(run: Run, docker: Says) -> None:
    docker("echo 'Step 1/2 : FROM a'; echo '#7 [2/2] RUN b'; echo more")
    ended = run("build", "-o", "json")
    assert json.loads(ended.out) == {"image": "h:5000/greet:0.0.1"}
    assert ended.err.splitlines() == [
        "made it",
        "building h:5000/greet:0.0.1",
        "  step: FROM a",
        "  step: RUN b",
    ]
    ended = run("build", "-v", "-o", "json")
    assert json.loads(ended.out) == {"image": "h:5000/greet:0.0.1"}
    assert "more" in ended.err.splitlines()


def test_a_base_image_came_without_a_word(run: Run, docker: Says) -> None:
    Path("Dockerfile").unlink()
    Path("func.py").write_text("")
    docker('case "$1" in image) exit 1 ;; pull) echo "0123456789ab: Pull complete" ;; esac; exit 0')
    Path("func.yaml").write_text("name: me/greet\nruntime: python\n")
    ended = run("build", HUB="hub:5000")
    assert (ended.code, ended.err.splitlines()) == (
        0,
        [
            "getting the base image hub:5000/runtime/python:3.11",
            "  0123456789ab: Pull complete",
            "building hub:5000/me/greet:0.0.1",
        ],
    )
