"""Where do pushed images go in the tests? The hub as compose.yaml has it, on a port of its own."""

import base64
import http.client
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testcontainers.core.container import DockerContainer

from tests.e2e import images
from tests.e2e.platforms import ROOT, free_port

USER, PASSWORD = "fn", "the password"
#: Of that password, as `make hub-password` makes it but with less work.
HTPASSWD = f"{USER}:$2b$04$dwDANbOXYJqjsxdIXu96LOGeoJRbtTUHhlFELPdm5vZNRae2wqIqm"
HUB = ROOT / "deploy" / "hub"


@dataclass
class Registry:
    """A running hub."""

    address: str
    container: DockerContainer
    docker_config: Path

    def push(self, image: str, name: str) -> str:
        """Push a local image under a name and forget it here; return the digest it has there."""
        images.docker("tag", image, name)
        images.docker("--config", str(self.docker_config), "push", "-q", name)
        named = "{{range .RepoDigests}}{{println .}}{{end}}"
        digests = images.docker("image", "inspect", "-f", named, name).split()
        repository = name.rpartition(":")[0]
        images.docker("rmi", "--force", name)
        return next(d.partition("@")[2] for d in digests if d.startswith(f"{repository}@"))

    def push_from_elsewhere(self, image: str, name: str) -> None:
        """Push a local image under a name that means another one here, and goes on doing so."""
        self.push(image, name.replace("localhost", "127.0.0.1", 1))

    def pin(self, image: str, name: str) -> str:
        """Push a local image and forget it wholly; return its name with its digest."""
        pinned = f"{name}@{self.push(image, name)}"
        images.docker("rmi", "--force", image)
        return pinned

    def manifests_asked(self, repository: str) -> int:
        """Return how often a manifest of a repository was sent."""
        lines = self.container.get_logs()[1].decode().splitlines()
        sent = [json.loads(line) for line in lines if '"response completed"' in line]
        uri = f"/v2/{repository}/manifests/"
        return sum(
            1
            for line in sent
            if line["http.request.uri"].startswith(uri)
            and line["http.request.method"] == "GET"
            and line["http.response.status"] == 200
        )

    def prune(self, routes: Any) -> str:
        """Do to its data what `make hub-gc` does, for these routes; return what was said of it."""
        name = self.container.get_wrapped_container().id
        said = images.docker(
            *("run", "--rm", "-i", "--network", "none", "--user", "root", "--volumes-from", name),
            *("millrace/python:local", "python3", "/etc/millrace/prune.py", "/var/lib/registry"),
            stdin=json.dumps(routes).encode(),
        )
        configuration = "/etc/docker/registry/config.yml"
        images.docker("exec", name, "registry", "garbage-collect", configuration)
        # It remembers what it had.
        images.docker("restart", name)
        wait_for_registry(f"localhost:{self.container.get_exposed_port(5000)}")
        return said


@contextmanager
def running(folder: Path, *, htpasswd: str = "") -> Iterator[Registry]:
    """Run the hub while inside; `folder` is for what belongs to it."""
    shutil.copytree(HUB, folder / "hub", ignore=shutil.ignore_patterns("htpasswd", "__pycache__"))
    if htpasswd:
        (folder / "hub" / "htpasswd").write_text(htpasswd)
    port = free_port()
    address = f"localhost:{port}"
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    auths = {f"{host}:{port}": {"auth": auth} for host in ("localhost", "127.0.0.1")}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    container = (
        DockerContainer("millrace/hub:local")
        .with_kwargs(entrypoint=["sh", "/etc/millrace/start"])
        .with_bind_ports(5000, port)
        .with_volume_mapping(folder / "hub", "/etc/millrace")
        .with_env("REGISTRY_STORAGE_DELETE_ENABLED", "true")
        .with_env("REGISTRY_LOG_FORMATTER", "json")
    )
    with container:
        wait_for_registry(address)
        yield Registry(address, container, folder)


def wait_for_registry(address: str) -> None:
    """Wait until a registry answers, be it by asking who we are."""
    for _ in range(300):
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status in {http.client.OK, http.client.UNAUTHORIZED}:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    pytest.fail("the registry does not answer")
