"""Where do the tests' functions come from? Images built on the fly, one per behaviour.

An image's tag says what it was made of, so that it is made once.
"""

import asyncio
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import aiodocker

BUSYBOX = os.environ.get("BUSYBOX_IMAGE", "millrace/busybox:local")
PYTHON = os.environ.get("PYTHON_IMAGE", "millrace/python:local")
DEBIAN = os.environ.get("DEBIAN_IMAGE", "millrace/debian:local")
PROGRAMS = Path(__file__).parent / "programs"


async def build(
    docker: aiodocker.Docker,
    name: str,
    *instructions: str,
    base: str = BUSYBOX,
    files: Mapping[str, bytes] | None = None,
    get: Callable[[Path], None] | None = None,
) -> str:
    """Make an image of a Dockerfile's instructions and the files they copy; return its tag.

    What else they copy, `get` puts into a folder, `got`; the instructions say what that is.
    """
    text = "\n".join([f"FROM {base}", *instructions]).encode()
    contents = {"Dockerfile": text, **(files or {})}
    made_of = b"\0".join(part for item in contents.items() for part in (item[0].encode(), item[1]))
    tag = f"millrace-test/{name}:{hashlib.sha256(made_of).hexdigest()[:16]}"
    if not await there(docker, tag):
        context = await asyncio.to_thread(_context, contents, get)
        await docker.images.build(fileobj=context, encoding="identity", tag=tag)
        assert await there(docker, tag), f"{tag} cannot be built"
    return tag


async def there(docker: aiodocker.Docker, tag: str) -> bool:
    """Return whether the engine has an image."""
    try:
        await docker.images.inspect(tag)
    except aiodocker.DockerError:
        return False
    return True


def _context(contents: Mapping[str, bytes], get: Callable[[Path], None] | None) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
        if get is not None:
            with tempfile.TemporaryDirectory() as folder:
                get(Path(folder))
                tar.add(folder, "got")
    made.seek(0)
    return made


async def shell(docker: aiodocker.Docker, script: str) -> str:
    """Make an image whose command is a shell script."""
    return await build(docker, "sh", "ENTRYPOINT " + json.dumps(["/bin/sh", "-c", script]))


async def program(docker: aiodocker.Docker, name: str, *instructions: str) -> str:
    """Make an image whose command is one of the Python programs here."""
    source = (PROGRAMS / f"{name}.py").read_bytes()
    return await build(
        docker,
        name,
        f"COPY {name}.py /",
        *instructions,
        f'ENTRYPOINT ["python3", "/{name}.py"]',
        base=PYTHON,
        files={f"{name}.py": source},
    )


async def static(docker: aiodocker.Docker, name: str, *instructions: str) -> bytes:
    """Return one of the C programs here, made into a static one by the engine."""
    source = (PROGRAMS / f"{name}.c").read_bytes()
    built = await build(
        docker,
        f"{name}-built",
        "RUN apt-get update -q && apt-get install -q -y --no-install-recommends gcc libc6-dev",
        f"COPY {name}.c /",
        f"RUN gcc -static -Os -s -Wall -Wextra -Werror -o /{name} /{name}.c",
        *instructions,
        base=DEBIAN,
        files={f"{name}.c": source},
    )
    container = await docker.containers.create({"Image": built, "Cmd": ["true"]})
    try:
        with await container.get_archive(f"/{name}") as tar:
            found = tar.extractfile(name)
            assert found is not None
            return found.read()
    finally:
        await container.delete()
