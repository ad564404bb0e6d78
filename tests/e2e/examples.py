"""Where do the images of the examples come from? Built from their folders, as `fn build` does."""

import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from tests.e2e import images
from tests.e2e.platforms import ROOT

EXAMPLES = ROOT / "examples"
BASE = "millrace/python:local"


@cache
def build(name: str) -> str:
    """Build the image of an example; return its name."""
    with TemporaryDirectory() as made:
        folder = Path(made) / name
        shutil.copytree(EXAMPLES / name, folder)
        (folder / "Dockerfile").write_text(dockerfile(folder))
        return images.build_folder(f"millrace/e2e-example-{name}:local", folder)


def dockerfile(folder: Path) -> str:
    """Return what makes an image of a folder; gets the wheels it needs."""
    entrypoint = shlex.split(YAML(typ="safe").load(folder / "func.yaml")["entrypoint"])
    lines = [f"FROM {BASE}", "WORKDIR /function", "COPY . ./"]
    if (folder / "requirements.txt").exists():
        get = ("download", "-q", "--only-binary=:all:", "--python-version", "3.11")
        where = ("--dest", "wheels", "-r", "requirements.txt")
        subprocess.run([sys.executable, "-m", "pip", *get, *where], cwd=folder, check=True)
        install = "/opt/venv/bin/pip install --no-index --find-links wheels -r requirements.txt"
        lines += [
            f"RUN python3 -m venv /opt/venv && {install}",
            "ENV PATH=/opt/venv/bin:$PATH",
        ]
    words = ", ".join(f'"{word}"' for word in entrypoint)
    return "\n".join([*lines, "USER 65534:65534", f"ENTRYPOINT [{words}]\n"])


def run(image: str, stdin: bytes, **env: str) -> str:
    """Return how the image answers a call without a platform: exit code, output, errors."""
    options = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
    done = subprocess.run(
        ["docker", "run", "--rm", "-i", *options, image],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return f"{done.returncode} {done.stdout.decode()}{done.stderr.decode()}".strip()
