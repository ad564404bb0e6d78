"""What does the container engine know that the benchmark must? Asked by the engine's command."""

import asyncio

from shared import clock
from tests.e2e import images

PROJECT = "millrace"
POLL_S = 0.2


async def docker(*arguments: str) -> str:
    """Return what a docker command prints; raises `RuntimeError` with its error."""
    return await asyncio.to_thread(images.docker, *arguments)


async def addresses(service: str) -> list[str]:
    """Return the addresses of a service's containers on the platform's own network.

    Raises `RuntimeError` if this engine has none.
    """
    labels = {"project": PROJECT, "service": service}
    filters = [f"--filter=label=com.docker.compose.{key}={labels[key]}" for key in labels]
    containers = (await docker("ps", "--quiet", *filters)).split()
    if not containers:
        raise RuntimeError(f"this engine has no container of {service}")
    where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return (await docker("inspect", "--format", where, *containers)).split()


async def emptied(image: str, timeout_s: float) -> bool:
    """Wait until an image has no container; return whether that came true in time."""
    until = clock.monotonic_s() + timeout_s
    while await docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}"):
        if clock.monotonic_s() > until:
            return False
        await asyncio.sleep(POLL_S)
    return True
