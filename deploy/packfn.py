"""Which bytes are the file `fn`? The client and the packages it imports, in one that Python runs.

python3 deploy/packfn.py WHEELS TARGET: the same wheels and sources make the same bytes. What stands
at TARGET is replaced at once, and only if it differs.
"""

import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHEBANG = b"#!/usr/bin/env python3\n"
#: Read by whatever Python there is, so that one too old says so.
MAIN = b"""\
import sys

if sys.version_info < (3, 9):
    sys.exit(
        "fn: Python 3.9 or later is needed; this is %d.%d (%s)\\n"
        "    Install a newer one, or start fn with it: python3.11 %s"
        % (sys.version_info[0], sys.version_info[1], sys.executable, sys.argv[0])
    )

from fn.cli import main

main()
"""
#: What `rich` wants for Markdown and source code, which `fn` shows none of: half of all bytes.
UNUSED = ("pygments", "markdown_it", "mdurl", "markdown_it_py")
#: The earliest time a ZIP archive can tell; each file has it.
NO_TIME = (1980, 1, 1, 0, 0, 0)
READABLE = 0o644 << 16


def main() -> None:
    """Write the file."""
    wheels, target = Path(sys.argv[1]), Path(sys.argv[2])
    packages = dict(_packages(wheels))
    members = {"__main__.py": MAIN, **_namespaces(packages), **packages, **dict(_client())}
    fresh = target.with_name(target.name + ".new")
    target.parent.mkdir(parents=True, exist_ok=True)
    with fresh.open("wb") as stream:
        stream.write(SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(members):
                archive.writestr(_info(name), members[name])
    fresh.chmod(0o755)
    if target.exists() and target.read_bytes() == fresh.read_bytes():
        fresh.unlink()
    else:
        fresh.replace(target)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, NO_TIME)
    info.external_attr = READABLE
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _packages(wheels: Path) -> Iterator[tuple[str, bytes]]:
    for wheel in sorted(wheels.glob("*.whl")):
        if not wheel.name.endswith("-none-any.whl"):
            sys.exit(f"{wheel.name} is not pure Python")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if _is_wanted(name):
                    yield name, archive.read(name)


def _namespaces(packages: dict[str, bytes]) -> dict[str, bytes]:
    """Return an `__init__.py` for each folder of modules: in an archive, Python looks for one."""
    modules = [Path(name) for name in packages if name.endswith(".py")]
    folders = {parent for module in modules for parent in module.parents if parent.name}
    return {f"{folder.as_posix()}/__init__.py": b"" for folder in folders}


def _is_wanted(name: str) -> bool:
    """Tell whether a member of a wheel is imported, or says under which licence it stands."""
    package = re.split(r"[/-]", name)[0]
    if package in UNUSED or name.endswith("/"):
        return False
    if ".dist-info/" in name:
        return "licen" in name.lower()
    return not name.endswith((".pyi", "py.typed"))


def _client() -> Iterator[tuple[str, bytes]]:
    for file in sorted((ROOT / "fn").rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".lock":
            yield file.relative_to(ROOT).as_posix(), file.read_bytes()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        sys.exit("pyproject.toml names no version")
    yield "fn/VERSION", found[1].encode()


if __name__ == "__main__":
    main()
