"""What is a route, what is an app? Pure data, as MySQL keeps it and calls use it."""

from dataclasses import dataclass, field

from shared.messages import Format, Isolation, Mode

#: Config of an app: None if it was made without any.
AppConfig = dict[str, str] | None


@dataclass(frozen=True, slots=True)
class App:
    """A named group of routes with shared config."""

    name: str
    config: AppConfig = None
    #: How many of its calls may be accepted and not ended; 0: as many as come.
    max_inflight: int = 0
    #: Calls accepted a second, 0: as many as come; and how many of them at once, 0: a second's.
    rate: float = 0.0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A path of an app, bound to an image: what one call of it needs and may use.

    `headers` are the response's. `timeout` and `idle_timeout` are seconds, `memory` is MB, as in
    the public API, whose names these are.
    """

    app: str
    path: str
    image: str
    memory: int = 128
    cpus: float = 1.0
    headers: dict[str, list[str]] = field(default_factory=dict)
    type: Mode = "sync"
    format: Format = "default"
    max_concurrency: int = 1
    timeout: int = 30
    idle_timeout: int = 30
    config: dict[str, str] = field(default_factory=dict)
    jwt_key: str = ""
    isolation: Isolation = "sandbox"
    min_sandboxes: int = 0
    #: What `image` was before, newest first: where a rollback goes.
    previous_images: tuple[str, ...] = ()
    #: Of async calls, see `shared.retrying`; `retry_delay` is seconds.
    max_attempts: int = 3
    retries: int = 0
    retry_delay: int = 1
