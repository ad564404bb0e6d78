"""Does a platform keep its promises through a short time of chaos? The long one is `make chaos`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.platforms import ROOT

MINUTES, LONGEST_S = "1.5", 420


@pytest.mark.usefixtures("_engine")
def test_a_short_chaos_breaks_no_promise(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(2))
    told = tmp_path / "progress"
    with told.open("wb") as progress:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.chaos"),
                *("--minutes", MINUTES, "--seed", f"{seed}", "--hosts", "0"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=progress,
            timeout=LONGEST_S,
            check=False,
        )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout.decode()}\n{told.read_text()[-4000:]}"
