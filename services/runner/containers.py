"""What is the engine told to make? Pure: the configurations of containers and of their network.

Limits are what the engine can enforce: memory without swap, CPUs, processes, capabilities, open
files. Disk: a quota on the writable layer needs a storage driver with quotas (overlay2 on xfs with
`pquota`, btrfs, zfs) and is asked for with `RUNNER_DISK_MB`; elsewhere only the size of each file
is limited, and a call's layer is gone with its container.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.runner.framing import fdk
from services.runner.namespaces import Namespace
from services.runner.pool import Kind

PLATFORM_LABEL = "millrace.platform"
RUNNER_LABEL = "millrace.runner"
SANDBOX_LABEL = "millrace.sandbox"
APP_LABEL, PATH_LABEL = "millrace.app", "millrace.path"
#: Where a sandbox has our init and the socket to its runner.
FOLDER = "/.millrace"

_MIB = 1024 * 1024
_SHM_BYTES = 16 * _MIB
#: Less than this an engine refuses, or cannot start a process in.
_LEAST_MEMORY_MB = 6
_KEEPER_MEMORY_MB = 16
#: When the machine is out of memory, functions go before the platform's own processes.
_OOM_SCORE = 500
#: The folder in which a function of format `http-stream` makes its socket.
_LISTENER_FOLDER = fdk.LISTENER.rpartition("/")[0]
_LISTENER_OPTIONS = "rw,noexec,nosuid,nodev,mode=1777,size=64k"
_ICC = "com.docker.network.bridge.enable_icc"

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What every function's container has in common."""

    pids: int
    files: int
    file_max_mb: int
    #: 0: no quota.
    disk_mb: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose containers these are."""

    platform: str
    runner_id: str

    def labels(self) -> dict[str, str]:
        """Return the labels by which leftovers are found."""
        return {PLATFORM_LABEL: self.platform, RUNNER_LABEL: self.runner_id}


def sandbox(
    sandbox_id: str,
    kind: Kind,
    command: Sequence[str],
    namespace: Namespace,
    bind: str,
    *,
    limits: Limits,
    owner: Owner,
) -> Config:
    """Return the container of a sandbox: our init, which is to start `command`, the image's own.

    User, folder and variables are the image's. `bind` brings the folder with the init.
    """
    fsize = limits.file_max_mb * _MIB
    labels = {SANDBOX_LABEL: sandbox_id, APP_LABEL: kind.app, PATH_LABEL: kind.path}
    return {
        "Image": kind.image,
        "Entrypoint": [f"{FOLDER}/init", f"{FOLDER}/socket"],
        "Cmd": list(command),
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {**owner.labels(), **labels},
        "HostConfig": {
            **_confined(max(kind.memory_mb, _LEAST_MEMORY_MB), limits.pids),
            "NetworkMode": f"container:{namespace.container_id}",
            "Binds": [*namespace.binds, bind],
            "NanoCpus": round(kind.cpus * 1e9),
            "ShmSize": _SHM_BYTES,
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": limits.files, "Hard": limits.files},
                {"Name": "fsize", "Soft": fsize, "Hard": fsize},
            ],
            **({"Tmpfs": {_LISTENER_FOLDER: _LISTENER_OPTIONS}} if kind.listens else {}),
            **({"StorageOpt": {"size": f"{limits.disk_mb}M"}} if limits.disk_mb else {}),
        },
    }


def keeper(image: str, network_id: str, owner: Owner) -> Config:
    """Return the container that keeps one network namespace and does nothing else."""
    return {
        "Image": image,
        "Hostname": "function",
        "Labels": owner.labels(),
        "HostConfig": {
            **_confined(_KEEPER_MEMORY_MB, pids=8),
            "NetworkMode": network_id,
            "ReadonlyRootfs": True,
        },
    }


def _confined(memory_mb: int, pids: int) -> Config:
    return {
        "Memory": memory_mb * _MIB,
        "MemorySwap": memory_mb * _MIB,
        "PidsLimit": pids,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": {"Type": "none"},
        "OomScoreAdj": _OOM_SCORE,
        "AutoRemove": False,
    }


def network(name: str, platform: str) -> Config:
    """Return the bridge network of functions: its containers do not reach each other.

    What is on other bridges (the platform's MySQL and Redis) the engine keeps apart by itself.
    """
    return {
        "Name": name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Options": {_ICC: "false"},
        "Labels": {PLATFORM_LABEL: platform},
    }


def isolates(network: dict[str, Any]) -> bool:
    """Say whether an existing network is one on which containers do not reach each other."""
    return bool(network["Driver"] == "bridge" and network["Options"].get(_ICC) == "false")
