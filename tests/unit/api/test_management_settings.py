"""Are bad settings all named at once, and is the version one and the same?"""

import subprocess
import sys
import tomllib
from pathlib import Path

from services.api.handlers import meta

ROOT = Path(__file__).parents[3]


def test_bad_settings_end_the_start_with_one_line() -> None:
    environ = {"PORT": "http", "DB_URL": "postgres://x", "LOG_LEVEL": "loud", "MQ_URL": ""}
    done = subprocess.run(
        [sys.executable, "-m", "services.api"],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for name in ("PORT='http'", "DB_URL='postgres://x'", "LOG_LEVEL='loud'"):
        assert name in done.stderr


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == meta.VERSION
