"""How is the container engine spoken to? The only module that knows aiodocker.

It takes configurations from `containers` and gives plain answers. What the engine refuses or
fails is raised as an `EngineError`.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiodocker
import aiohttp

from services.runner import containers, pulls
from services.runner.credentials import Credential
from shared.errors import MillraceError

#: Longest wait for an answer that does not wait for anything itself, in seconds.
TIMEOUT_S = 60.0
PING_TIMEOUT_S = 3.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MIB = 1024 * 1024
#: aiodocker's own status for a connection that could not be made or was lost.
_NO_CONNECTION = 900
_NOT_FOUND, _CONFLICT = 404, 409
#: A network that somebody else began to make is in the engine's list within so long, in seconds.
_OTHERS_SEEN_S = 1.0
#: Answers to a start that are the image's fault: its user or its folder. (Its command is started
#: by our own init, which tells by itself if it cannot.)
_IMAGE_FAULT_WORDS = re.compile(
    "unable to find (user|group)|no matching entries in (passwd|group) file|chdir to cwd"
)


#: Answers to a start that say that the holder of its namespace has ended: before, or just now.
_NAMESPACE_GONE_WORDS = re.compile("cannot join network|/proc/[0-9]+/ns/net")


class EngineError(MillraceError):
    """The container engine failed."""

    code = "unavailable"


class EngineAway(EngineError):
    """The container engine does not answer."""


class NotFound(EngineError):
    """The container engine does not have it."""


class ImageRefused(EngineError):
    """The container engine cannot start anything from this image."""

    code = "image_invalid"


class PullTroubled(EngineError):
    """The engine could not pull an image."""

    def __init__(self, message: str, trouble: pulls.Trouble) -> None:
        """`message` is for the caller; `trouble` says whose fault it is, and if to try again."""
        super().__init__(message)
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is and has."""

    engine_id: str
    memory_mb: int
    cpus: int
    arch: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image on the engine's disk."""

    digest: str
    #: Entry point and command.
    command: tuple[str, ...]
    #: Whether it came from a registry; one built here has nothing to be compared with.
    from_registry: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A container with our labels."""

    container_id: str
    runner_id: str
    #: "" if it is no sandbox.
    sandbox_id: str
    created_s: int


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what the engine says, or its silence, as one of ours."""
    try:
        yield
    except aiodocker.DockerError as error:
        if error.status == _NO_CONNECTION:
            raise EngineAway(f"The container engine does not answer: {error.message}") from error
        kind = NotFound if error.status == _NOT_FOUND else EngineError
        raise kind(error.message) from error
    except (aiohttp.ClientError, OSError) as error:
        told = str(error) or type(error).__name__
        raise EngineAway(f"The container engine does not answer: {told}") from error


def names_of(images: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what images on disk are called, as the engine lists them; the newest image first."""
    newest_first = sorted(images, key=lambda image: -(image.get("Created") or 0))
    kinds = ("RepoTags", "RepoDigests")
    names = [name for image in newest_first for kind in kinds for name in image.get(kind) or ()]
    return [name for name in dict.fromkeys(names) if not name.startswith("<none>")]


class Engine:
    """A connection to one container engine; close it with `async with`."""

    def __init__(self, docker_host: str) -> None:
        """`docker_host` is an address as `DOCKER_HOST` has it. To be made inside a running loop."""
        self._docker = aiodocker.Docker(
            url=docker_host, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
        )
        self._making: set[asyncio.Task[aiodocker.containers.DockerContainer]] = set()
        # Each running call keeps two connections; a limit would keep the kills from being sent.
        self._docker.connector._limit = 0  # noqa: SLF001
        #: Uses no connection twice.
        self._newly = aiodocker.Docker(url=docker_host)
        self._newly.connector._force_close = True  # noqa: SLF001

    async def close(self) -> None:
        """Close all connections."""
        await self._docker.close()
        await self._newly.close()

    async def ping(self) -> None:
        """Raise `EngineAway` unless the engine answers soon, to somebody whom it did not know.

        One that is stopped takes no new connections from that moment on, and goes on answering on
        those it has, although soon it can start nothing any more.
        """
        with _translated():
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._newly.version()

    async def info(self) -> EngineInfo:
        """Return what the engine has."""
        with _translated():
            raw = await self._docker.system.info()
        arch = _ARCHITECTURES.get(raw["Architecture"], raw["Architecture"])
        return EngineInfo(raw["ID"], raw["MemTotal"] // _MIB, raw["NCPU"], arch)

    # Images.

    async def image(self, name: str) -> Image:
        """Return an image on disk; `NotFound` if it is not there."""
        with _translated():
            raw = await self._docker.images.inspect(name)
        config = raw.get("Config") or {}
        command = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
        return Image(raw["Id"], command, bool(raw.get("RepoDigests")))

    async def image_names(self) -> list[str]:
        """Return the names images on disk have, with a tag and with a digest; the newest first."""
        with _translated():
            return names_of(await self._docker.images.list())

    async def image_changes(self) -> AsyncGenerator[None]:
        """Yield once when listening, and then whenever an image is pulled, tagged or deleted."""
        events = self._docker.events
        subscriber = events.subscribe(create_task=False)  # type: ignore[no-untyped-call]
        listening = asyncio.create_task(
            events.run(filters=json.dumps({"type": ["image"]})), name="image-events"
        )
        try:
            yield
            while await subscriber.get() is not None:
                yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def pull(self, name: str, credential: Credential | None) -> None:
        """Pull an image; raises `PullTroubled`, or `EngineAway`."""
        # A name without a registry or user is the hub's "library"; it keeps its short name here.
        full = name if "/" in name else f"library/{name}"
        auth: dict[str, str] | None = None
        if credential:
            auth = {"username": credential.username, "password": credential.password}
            if credential.identity_token:
                auth = {"identitytoken": credential.identity_token}
        with _translated():
            try:
                await self._docker.images.pull(full, auth=auth)
            except aiodocker.DockerError as error:
                if error.status == _NO_CONNECTION:
                    raise
                found = pulls.trouble(error.status, error.message)
                said = pulls.told(found, name, credential, error.message)
                raise PullTroubled(said, found) from error

    async def load(self, image: bytes) -> None:
        """Load an image from a tar as `docker save` makes it."""
        with _translated():
            await self._docker.images.import_image(image)

    # Networks.

    async def ensure_network(self, config: containers.Config) -> str:
        """Return the id of the network with that name; makes it if it is missing.

        Replicas may do this at the same time, and the engine's check for duplicates can let two
        pass, and then joins no container to either: all take the oldest and remove the others.
        Raises `EngineError` if what is there does not isolate.
        """
        for _ in range(3):
            with _translated():
                all_networks = await self._docker.networks.list()
            found = [n for n in all_networks if n["Name"] == config["Name"]]
            if found:
                network, *others = sorted(found, key=lambda n: (n["Created"], n["Id"]))
                if not containers.isolates(network):
                    raise EngineError(
                        f"The network {config['Name']} lets containers reach each other;"
                        " remove it, or name another one in RUNNER_NETWORK."
                    )
                for other in others:
                    await self._remove_network(str(other["Id"]))
                return str(network["Id"])
            await self._make_network(config)
            # One that was begun before this one may be seen only now.
            await asyncio.sleep(_OTHERS_SEEN_S)
        raise EngineError(f"The network {config['Name']} cannot be made.")

    async def _make_network(self, config: containers.Config) -> None:
        with _translated():
            try:
                await self._docker.networks.create(config)
            except aiodocker.DockerError as error:
                if error.status != _CONFLICT:
                    raise

    async def _remove_network(self, network_id: str) -> None:
        """Remove a network, unless somebody else has, or uses it."""
        with _translated(), suppress(aiodocker.DockerError):
            await (await self._docker.networks.get(network_id)).delete()

    async def volume_folder(self, name: str) -> str:
        """Return where a volume is on the engine's machine."""
        with _translated():
            raw = await self._docker._query_json(f"volumes/{name}")  # noqa: SLF001 (untyped there)
        return str(raw["Mountpoint"])

    # Containers.

    async def create(self, config: containers.Config) -> str:
        """Make a container; returns its id. `NotFound` if its image is not there.

        `ImageRefused` if the image is to blame. The engine makes it also for a caller who is
        cancelled meanwhile and will never know its id: see `settled`.
        """
        making = asyncio.create_task(self._docker.containers.create(config))
        self._making.add(making)
        making.add_done_callback(self._made)
        with _translated():
            try:
                container = await asyncio.shield(making)
            except aiodocker.DockerError as error:
                if error.status == 400:  # noqa: PLR2004 (HTTP's "bad request")
                    raise ImageRefused(error.message) from error
                raise
        return str(container.id)

    def _made(self, making: "asyncio.Task[aiodocker.containers.DockerContainer]") -> None:
        self._making.discard(making)
        if not making.cancelled():
            making.exception()  # has been told to who waited, if anyone still did

    async def settled(self) -> None:
        """Wait until the engine makes no container any more that was asked for here."""
        while self._making:
            await asyncio.wait(self._making)

    async def start(self, container_id: str) -> None:
        """Start a container; `ImageRefused` if its image asks for what cannot be.

        `NotFound` if the namespace it is to join is not there or not alive.
        """
        with _translated():
            try:
                await self._docker.containers.container(container_id).start()
            except aiodocker.DockerError as error:
                if _IMAGE_FAULT_WORDS.search(error.message):
                    raise ImageRefused(error.message) from error
                if _NAMESPACE_GONE_WORDS.search(error.message):
                    raise NotFound(error.message) from error
                raise

    async def remove(self, container_id: str) -> None:
        """Kill and remove a container with its volumes; it may be gone already."""
        with _translated():
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._docker.containers.container(container_id).delete(force=True, v=True)
            except aiodocker.DockerError as error:
                if error.status != _NOT_FOUND and "already in progress" not in error.message:
                    raise

    async def ended(self, container_id: str) -> None:
        """Return when a container has ended or is not there any more, however long that takes."""
        with _translated():
            try:
                await self._docker.containers.container(container_id).wait()
            except aiodocker.DockerError as error:
                if error.status != _NOT_FOUND:
                    raise

    async def namespace_binds(self, container_id: str) -> tuple[str, ...]:
        """Return read-only binds of the files that come with a container's network namespace."""
        with _translated():
            raw = await self._docker.containers.container(container_id).show()
        paths = {
            "/etc/hosts": raw["HostsPath"],
            "/etc/hostname": raw["HostnamePath"],
            "/etc/resolv.conf": raw["ResolvConfPath"],
        }
        return tuple(f"{source}:{target}:ro" for target, source in paths.items() if source)

    async def labelled(self, platform: str) -> list[Found]:
        """Return all containers, running or not, that carry the label of a platform."""
        label = f"{containers.PLATFORM_LABEL}={platform}"
        with _translated():
            listed = await self._docker.containers.list(
                all=True, filters=json.dumps({"label": [label]})
            )
        return [
            Found(
                container_id=str(container.id),
                runner_id=container["Labels"].get(containers.RUNNER_LABEL, ""),
                sandbox_id=container["Labels"].get(containers.SANDBOX_LABEL, ""),
                created_s=container["Created"],
            )
            for container in listed
        ]
