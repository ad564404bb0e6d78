"""Which version is this? The one number in pyproject.toml, for all services and the client."""

import tomllib
from pathlib import Path

VERSION: str = tomllib.loads(
    (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
)["project"]["version"]
