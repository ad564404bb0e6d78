"""Which settings does the runner have, and what do they mean?"""

import dataclasses

import marshmallow as ma

from services.runner import credentials
from shared import urls
from shared.settings import at_least, log_level, setting


def _credentials(text: str) -> None:
    if text:
        credentials.parse_docker_auth(text)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The runner's settings; field `port` is the variable `PORT`, and so on."""

    port: int = setting(8082, "Where /healthz, /readyz and /metrics are served.", check=at_least(0))
    mq_url: str = setting(
        "redis://127.0.0.1:6379",
        "Redis, which carries the calls; also as unix:///path/of/redis.sock, or by its "
        "[sentinels](operating.md#a-redis-that-fails-over).",
        check=urls.check_redis,
    )
    log_level: str = log_level()
    runner_name: str = setting(
        "",
        "What operators call the runner, in lists and to drain it; empty: its host's name.",
        check=ma.validate.Regexp(
            r"([a-zA-Z0-9][a-zA-Z0-9_.-]{0,63})?\Z", error="must be a word of at most 64 characters"
        ),
    )
    runner_lost_s: float = setting(
        5.0,
        "As the scheduler's: cut off from Redis for four fifths of it, calls are stopped here.",
        unit="s",
        check=at_least(2),
    )
    platform_name: str = setting(
        "millrace",
        "Label of this platform's containers; platforms on one engine need their own.",
        check=ma.validate.Regexp(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z", error="must be a word"),
    )
    docker_host: str = setting(
        "unix:///var/run/docker.sock",
        "Address of the container engine's API.",
        check=ma.validate.Regexp(
            r"(unix:///|tcp://|https?://).", error="must be unix:///path or tcp://host:port"
        ),
    )
    docker_auth: str = setting(
        "",
        'Registry credentials, a JSON list of {"name", "username", "password"}.',
        check=_credentials,
        secret=True,
    )
    docker_config: str = setting(
        "~/.docker", "Folder of the config.json whose credentials are used without DOCKER_AUTH."
    )
    runner_folder: str = setting(
        "/run/millrace",
        "Folder in which sandboxes find the runner: shared with the engine's machine.",
    )
    runner_volume: str = setting(
        "",
        "The engine's volume that is mounted at RUNNER_FOLDER, if the runner is in a container; "
        "empty: the folder has the same name on the engine's machine.",
    )
    runner_init: str = setting(
        "/usr/local/lib/millrace/init", "The program that is the first process of sandboxes."
    )
    runner_network: str = setting(
        "millrace-functions", "Bridge network of functions; made if it is missing."
    )
    runner_memory_mb: int = setting(
        0, "Memory offered to functions; 0: the engine's less 10 % (1 GiB at least).",
        unit="MB", check=at_least(0),
    )  # fmt: skip
    runner_cpu_overcommit: float = setting(
        8.0, "CPUs offered to functions for each of the engine's.", check=at_least(0.1)
    )
    runner_starts: int = setting(
        0,
        "Sandboxes started at one time, a quarter for async calls; 0: two for each CPU.",
        check=at_least(0),
    )
    runner_pids: int = setting(
        256, "Processes and threads a function may have at one time.", check=at_least(8)
    )
    runner_files: int = setting(
        16_384, "Files a function's process may have open.", check=at_least(64)
    )
    runner_file_max_mb: int = setting(
        1_024, "Largest file a function may write.", unit="MB", check=at_least(1)
    )
    runner_disk_mb: int = setting(
        0, "Size of a function's writable layer, where the storage driver has quotas; 0: no quota.",
        unit="MB", check=at_least(0),
    )  # fmt: skip
    response_max_bytes: int = setting(
        8 * 1024 * 1024, "Longest answer of a function.", unit="bytes", check=at_least(1)
    )
    response_stream_max_bytes: int = setting(
        1024 * 1024 * 1024, "Longest answer that a function streams.", unit="bytes",
        check=at_least(1),
    )  # fmt: skip
    result_max_bytes: int = setting(
        1024 * 1024, "How much of an async call's answer is kept.", unit="bytes", check=at_least(0)
    )
    log_max_bytes: int = setting(
        64 * 1024, "How much of a call's stderr is kept.", unit="bytes", check=at_least(0)
    )
    held_max_bytes: int = setting(
        256 * 1024 * 1024,
        "Answers held while Redis is away; of later ones only the record is kept.",
        unit="bytes", check=at_least(0),
    )  # fmt: skip
    image_check_s: float = setting(
        300.0, "How often a tag in use is looked up in its registry again; 0: never.",
        unit="s", check=at_least(0),
    )  # fmt: skip
    image_pull_tries: int = setting(3, "Tries to pull an image.", check=at_least(1))
    image_pull_timeout_s: float = setting(
        300.0, "Longest time for pulling an image, all tries together.", unit="s", check=at_least(1)
    )
    namespace_spares: int = setting(
        2, "Network namespaces kept ready for apps that have none.", check=at_least(0)
    )
    namespace_idle_max: int = setting(
        16,
        "Network namespaces in which no sandbox is that are kept for their apps.",
        check=at_least(0),
    )
    namespace_idle_s: float = setting(
        120.0, "How long an unused network namespace is kept.", unit="s", check=at_least(1)
    )
    drain_grace_s: float = setting(
        60.0, "How long running calls may go on after SIGTERM.", unit="s", check=at_least(0)
    )
