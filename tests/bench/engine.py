"""What does the container engine know that the benchmark must? Asked by the engine's command."""

import asyncio
from pathlib import Path

from shared import clock
from tests.e2e import images

PROJECT = "millrace"
POLL_S = 0.2
TESTS = Path(__file__).parents[1]
#: Where services and tests are in their images.
WORKDIR = "/srv/millrace"


async def docker(*arguments: str) -> str:
    """Return what a docker command prints; raises `RuntimeError` with its error."""
    return await asyncio.to_thread(images.docker, *arguments)


async def addresses(service: str) -> list[str]:
    """Return the addresses of a service's containers on the platform's own network.

    Raises `RuntimeError` if this engine has none.
    """
    where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return (await docker("inspect", "--format", where, *await _containers(service))).split()


async def beside(service: str, *command: str) -> str:
    """Return what a command prints in a new container of a service's image, with these tests.

    Raises `RuntimeError` if it fails, or if this engine has no container of the service.
    """
    container, *_ = await _containers(service)
    image = (await docker("inspect", "--format", "{{.Image}}", container)).strip()
    mounted = ("--volume", f"{TESTS}:{WORKDIR}/tests:ro", "--workdir", WORKDIR)
    alone = ("--rm", "--network", "none", "--user", "0", "--env", "PYTHONDONTWRITEBYTECODE=1")
    return await docker("run", *alone, *mounted, image, *command)


async def _containers(service: str) -> list[str]:
    """Return the ids of a service's containers; raises `RuntimeError` if there is none."""
    labels = {"project": PROJECT, "service": service}
    filters = [f"--filter=label=com.docker.compose.{key}={labels[key]}" for key in labels]
    containers = (await docker("ps", "--quiet", *filters)).split()
    if not containers:
        raise RuntimeError(f"this engine has no container of {service}")
    return containers


async def emptied(image: str, timeout_s: float) -> bool:
    """Wait until an image has no container; return whether that came true in time."""
    until = clock.monotonic_s() + timeout_s
    while await docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}"):
        if clock.monotonic_s() > until:
            return False
        await asyncio.sleep(POLL_S)
    return True
