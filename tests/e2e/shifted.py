"""Run a service where the clock is wrong: `python -m tests.e2e.shifted services.api FILE`.

The file has by how many seconds the clock is ahead; it may be written anew at any time.
"""

import runpy
import sys
import time
from pathlib import Path


def shift(file: Path) -> None:
    """Make this process's wall clock wrong by what the file says."""
    real_ns = time.time_ns

    def wrong_ns() -> int:
        return real_ns() + int(file.read_text()) * 10**9

    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9


if __name__ == "__main__":
    module, shifted_by = sys.argv[1:]
    shift(Path(shifted_by))
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
