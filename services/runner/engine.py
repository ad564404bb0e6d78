"""How is the container engine spoken to? The only module that knows aiodocker.

It takes configurations from `containers` and gives plain answers. What the engine refuses or
fails is raised as an `EngineError`.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiodocker
import aiohttp
from aiodocker.stream import Stream
from aiodocker.types import JSONObject
from yarl import URL

from services.runner import containers
from services.runner.credentials import Credential
from shared import clock
from shared.errors import MillraceError

STDOUT, STDERR = 1, 2
#: Longest wait for an answer that does not wait for anything itself, in seconds.
TIMEOUT_S = 60.0
PING_TIMEOUT_S = 3.0
_WRITE_BYTES = 64 * 1024
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MIB = 1024 * 1024
#: aiodocker's own status for a connection that could not be made or was lost.
_NO_CONNECTION = 900
_NOT_FOUND, _CONFLICT = 404, 409
_FINAL_PULL_STATUSES = frozenset({400, 401, 403, _NOT_FOUND})
_FINAL_PULL_WORDS = re.compile("unauthorized|denied|not found|manifest unknown|invalid reference")
#: Answers of 500 to a start that are nevertheless the image's fault.
_IMAGE_FAULT_WORDS = re.compile(
    "unable to find (user|group)|no matching entries in (passwd|group) file"
    "|executable file not found|no such file or directory|permission denied|exec format error"
)


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


class PullRefused(EngineError):
    """The registry does not give the image, and will not if asked again."""

    code = "image_pull"


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
    #: Whether it came from a registry; one built here has nothing to be compared with.
    from_registry: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A container with our labels."""

    container_id: str
    runner_id: str
    #: "" if it is none of a call.
    call_id: str
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

    async def close(self) -> None:
        """Close all connections."""
        await self._docker.close()

    async def ping(self) -> None:
        """Raise `EngineAway` unless the engine answers soon."""
        with _translated():
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._docker.version()

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
        return Image(raw["Id"], bool(raw.get("RepoDigests")))

    async def image_names(self) -> list[str]:
        """Return the names images on disk have, with tag."""
        with _translated():
            images = await self._docker.images.list()
        names = {name for image in images for name in image.get("RepoTags") or ()}
        return sorted(names - {"<none>:<none>"})

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
        """Pull an image; `PullRefused` if trying again is of no use, else `EngineError`."""
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
                if error.status in _FINAL_PULL_STATUSES or _FINAL_PULL_WORDS.search(error.message):
                    raise PullRefused(error.message) from error
                raise

    async def load(self, image: bytes) -> None:
        """Load an image from a tar as `docker save` makes it."""
        with _translated():
            await self._docker.images.import_image(image)

    # Networks.

    async def ensure_network(self, config: containers.Config) -> str:
        """Return the id of the network with that name; makes it if it is missing.

        Replicas may do this at the same time, and the engine's check for duplicates can let two
        pass: all take the oldest. Raises `EngineError` if what is there does not isolate.
        """
        for _ in range(3):
            with _translated():
                all_networks = await self._docker.networks.list()
            found = [n for n in all_networks if n["Name"] == config["Name"]]
            if found:
                network = min(found, key=lambda n: (n["Created"], n["Id"]))
                if not containers.isolates(network):
                    raise EngineError(
                        f"The network {config['Name']} lets containers reach each other;"
                        " remove it, or name another one in RUNNER_NETWORK."
                    )
                return str(network["Id"])
            await self._make_network(config)
        raise EngineError(f"The network {config['Name']} cannot be made.")

    async def _make_network(self, config: containers.Config) -> None:
        with _translated():
            try:
                await self._docker.networks.create(config)
            except aiodocker.DockerError as error:
                if error.status != _CONFLICT:
                    raise

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
        """Start a container; `ImageRefused` if its process cannot be executed.

        `NotFound` if the namespace it is to join is not there or not alive.
        """
        with _translated():
            try:
                await self._docker.containers.container(container_id).start()
            except aiodocker.DockerError as error:
                if error.status == 400 or _IMAGE_FAULT_WORDS.search(error.message):  # noqa: PLR2004
                    raise ImageRefused(error.message) from error
                if "cannot join network" in error.message:
                    raise NotFound(error.message) from error
                raise

    async def kill(self, container_id: str) -> None:
        """Kill all processes of a container; it may have ended already."""
        with _translated():
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._docker.containers.container(container_id).kill()
            except aiodocker.DockerError as error:
                if error.status not in {_NOT_FOUND, _CONFLICT}:
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

    async def was_oom_killed(self, container_id: str) -> bool:
        """Say whether the kernel killed something in a container for want of memory.

        The container's state says so only if the engine heard of it before the exit; its events
        tell it in any order.
        """
        with _translated():
            raw = await self._docker.containers.container(container_id).show()
            if raw["State"]["OOMKilled"]:
                return True
            asked = {
                "since": "1",  # whatever the engine still remembers
                "until": f"{clock.epoch_ms() / 1000:.3f}",
                "filters": json.dumps({"container": [container_id], "event": ["oom"]}),
            }
            async with self._docker._query("events", params=asked) as told:  # noqa: SLF001
                return bool((await told.read()).strip())

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

    async def peak_memory(self, container_id: str) -> int | None:
        """Return the most memory a container has used, in bytes; None if the engine cannot say.

        Under cgroup v2 the engine knows only what is used now.
        """
        with _translated():
            raw = await self._json(
                f"containers/{container_id}/stats", "GET", {"stream": "0", "one-shot": "1"}
            )
        memory = raw.get("memory_stats") or {}
        peak = memory.get("max_usage") or memory.get("usage")
        return int(peak) if peak else None

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
                call_id=container["Labels"].get(containers.CALL_LABEL, ""),
                created_s=container["Created"],
            )
            for container in listed
        ]

    @asynccontextmanager
    async def attached(self, container_id: str) -> AsyncIterator["Attachment"]:
        """Give the streams of a container that is not started yet."""
        attachment = Attachment(self._docker, container_id)
        try:
            with _translated():
                await attachment.open()
            yield attachment
        finally:
            await attachment.close()

    async def _json(self, path: str, method: str, params: JSONObject) -> Any:  # noqa: ANN401
        """Ask what aiodocker has no method for."""
        return await self._docker._query_json(path, method, params=params)  # noqa: SLF001


class Attachment(Stream):
    """The streams and the exit code of one container.

    To be opened before the container is started, so that nothing is missed however soon it ends.
    """

    def __init__(self, docker: aiodocker.Docker, container_id: str) -> None:
        """Use `Engine.attached`."""
        super().__init__(docker, self._target, _NO_TIMEOUT)
        self._container_id = container_id
        self._exit: aiohttp.ClientResponse | None = None

    async def _target(self) -> tuple[URL, bytes | None, bool]:
        """Say where to attach. (aiodocker would inspect the container first, for its terminal.)"""
        streams = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
        url = URL(f"containers/{self._container_id}/attach").with_query(streams)
        return url, None, False

    async def open(self) -> None:
        """Attach, and ask for the exit code: the engine answers that when there is one."""
        await asyncio.gather(self._init(), self._watch_exit())

    async def _watch_exit(self) -> None:
        # The response's head comes at once: from then on the engine watches.
        self._exit = await self.docker._do_query(  # noqa: SLF001 (aiodocker waits for the end)
            f"containers/{self._container_id}/wait",
            "POST",
            params={"condition": "next-exit"},
            timeout=_NO_TIMEOUT,
        )

    async def feed(self, payload: bytes) -> None:
        """Write to stdin and close it; the process need not read it."""
        try:
            for at in range(0, len(payload), _WRITE_BYTES):
                await self.write_in(payload[at : at + _WRITE_BYTES])
            assert self._resp is not None  # noqa: S101 (opened)
            connection = self._resp.connection
            if connection is not None and connection.transport is not None:
                connection.transport.write_eof()
        except (OSError, aiohttp.ClientError, RuntimeError, AssertionError):
            # The process has ended or closed its stdin, which is its own business. (aiodocker
            # and uvloop say so in these ways, once the engine has closed the connection.)
            return

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next piece of output, `STDOUT` or `STDERR` and its bytes; None at its end."""
        with _translated():
            return await self.read_out()

    async def exit_code(self) -> int:
        """Return the exit code, once there is one. `EngineAway` if the engine goes before."""
        assert self._exit is not None  # noqa: S101 (opened)
        with _translated():
            raw = await self._exit.json()
        return int(raw["StatusCode"])

    async def close(self) -> None:
        """Close the connections; the container goes on."""
        if self._exit is not None:
            self._exit.close()
        try:
            await super().close()
        except (OSError, RuntimeError, AssertionError):
            # Already closed from the other side.
            return
