"""What do the services say to each other? Every wire message, defined once.

Encoded as msgpack arrays: a new field goes to the end and has a default, so that replicas of two
versions understand each other during a rolling restart. Times ending in `_ms` are epoch
milliseconds; durations say their unit.
"""

from typing import Any, Literal, TypeVar

import msgspec

from shared.errors import Undecodable

Mode = Literal["sync", "async"]
Format = Literal["default", "http", "json", "http-stream"]


class Wire(msgspec.Struct, frozen=True, array_like=True):
    """The base of all messages: immutable, typed, an array on the wire."""


class CallHead(Wire, frozen=True):
    """api -> scheduler -> runner: what deciding about a call needs."""

    call_id: str
    mode: Mode
    app: str
    path: str
    image: str
    memory_mb: int
    cpus: float
    accepted_ms: int
    #: Up to when it may wait for capacity; 0: as long as it takes (async).
    wait_until_ms: int
    #: When the caller must have an answer; 0: whenever (async).
    deadline_ms: int
    #: The api replica that waits for the reply; "" if none does.
    reply_to: str
    #: Run time the route allows, in milliseconds.
    timeout_ms: int
    #: 1 for the first attempt; a lost runner makes the next one.
    attempt: int = 1


class Parcel(Wire, frozen=True):
    """api -> runner: what running a call needs, beyond its head."""

    format: Format
    #: What the function's process gets for this call: METHOD, ROUTE, CALL_ID, HEADER_*, ...
    call_env: dict[str, str]
    #: What it gets for every call of the route: the app's and the route's config.
    config_env: dict[str, str]
    payload: bytes
    method: str = "POST"
    #: Seconds an idle hot sandbox is kept.
    idle_timeout_s: int = 30
    max_concurrency: int = 1


class Assignment(Wire, frozen=True):
    """scheduler -> runner: the part of an entry that the scheduler adds."""

    #: Which scheduler's reign assigned it; a runner refuses older ones than it has seen.
    epoch: int
    assigned_ms: int


class Cancel(Wire, frozen=True):
    """scheduler -> runner: the caller has left; stop the function."""

    call_id: str


class Answered(Wire, frozen=True, tag="answered"):
    """The function answered: part of `Reply`."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Failed(Wire, frozen=True, tag="failed"):
    """The call failed: part of `Reply`. `code` is a key of `errors.CODES`."""

    code: str
    message: str
    exit_code: int | None = None


Outcome = Answered | Failed


class Reply(Wire, frozen=True):
    """runner or scheduler -> api: the outcome of a sync call, for who waits."""

    call_id: str
    outcome: Outcome
    #: Milliseconds from the runner taking the call to its process running.
    start_ms: float = 0.0
    #: Milliseconds the process ran.
    run_ms: float = 0.0


Status = Literal["queued", "running", "success", "error", "cancelled"]
ENDED: tuple[Status, ...] = ("success", "error", "cancelled")


class Record(Wire, frozen=True):
    """api, scheduler or runner -> api (recorder): what is known of a call by now.

    Several records of one call merge: a later stage (queued, running, ended) wins over an earlier
    one, and the first end wins over any other.
    """

    call_id: str
    status: Status
    mode: Mode
    app: str
    path: str
    image: str
    queued_ms: int
    started_ms: int | None = None
    finished_ms: int | None = None
    #: A word of `errors.CODES`; "" unless it failed.
    code: str = ""
    message: str = ""
    exit_code: int | None = None
    #: "sha256:..." of the image that ran.
    digest: str = ""
    runner_id: str = ""
    attempt: int = 1
    peak_memory_bytes: int | None = None
    #: The function's stderr, capped by the runner; the cut is visible in the text.
    log: bytes = b""
    #: An async call's stdout, up to the kept size; None if not kept.
    result: bytes | None = None
    result_truncated: bool = False


class Heartbeat(Wire, frozen=True, tag="heartbeat"):
    """runner -> scheduler, each second: I live, and this is what I offer."""

    runner_id: str
    #: Which container engine; replicas with the same one share its capacity.
    engine_id: str
    sent_ms: int
    #: What the engine offers to functions in all, whoever uses it.
    memory_mb: int
    cpus: float
    arch: str
    #: False while the engine does not answer.
    able: bool = True
    draining: bool = False
    #: Images on the engine's disk, by the names routes may use.
    images: tuple[str, ...] = ()
    #: Calls this runner holds now.
    running: int = 0


class ExecutionFinished(Wire, frozen=True, tag="finished"):
    """runner -> scheduler: the call's container is gone; its capacity is free."""

    runner_id: str
    call_id: str


class RunnerGone(Wire, frozen=True, tag="gone"):
    """runner -> scheduler: I have drained and leave; whatever my stream still holds is yours."""

    runner_id: str


class CancelCall(Wire, frozen=True, tag="cancel"):
    """api -> scheduler: the caller has left."""

    call_id: str


Event = Heartbeat | ExecutionFinished | RunnerGone | CancelCall

M = TypeVar("M")
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode(message: Wire) -> bytes:
    """Return the message as it goes over the wire."""
    return _encoder.encode(message)


def decode(raw: bytes | None, kind: type[M]) -> M:
    """Return the message in `raw`, of the given type (or union of types).

    Raises `Undecodable` if there is none or it is another one.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(raw or b"")  # type: ignore[no-any-return]
    except msgspec.MsgspecError as error:
        raise Undecodable(f"not a {kind}: {error}") from error
