"""Do floods and restarts end well? Short; the long ones are programs (docs/chaos.md)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.platforms import ROOT

LONGEST_S = 300


def _ran(program: str, *options: str, told: Path) -> subprocess.CompletedProcess[bytes]:
    with told.open("wb") as progress:
        return subprocess.run(
            [sys.executable, "-m", program, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=progress,
            timeout=LONGEST_S,
            check=False,
        )


@pytest.mark.usefixtures("_engine")
def test_a_short_flood_is_borne(tmp_path: Path) -> None:
    """All are answered or told when to come again, and the memory stays; times are not judged."""
    told = tmp_path / "progress"
    done = _ran("tests.chaos.overload", "--minutes", "0.25", "--no-times", told=told)
    assert done.returncode == 0, done.stdout.decode() + told.read_text()[-4000:]


@pytest.mark.usefixtures("_engine")
def test_no_call_fails_while_all_replicas_are_restarted(tmp_path: Path) -> None:
    told = tmp_path / "progress"
    done = _ran("tests.chaos.rolling", "--rate", "50", told=told)
    assert done.returncode == 0, done.stdout.decode() + told.read_text()[-4000:]
