"""What do the services say to each other? Every wire message, defined once.

Encoded as msgpack arrays: a new field goes to the end and has a default, so that replicas of two
versions understand each other during a rolling restart. Times ending in `_ms` are epoch
milliseconds; durations say their unit.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from shared.errors import Undecodable

Mode = Literal["sync", "async"]
Format = Literal["default", "http", "json", "http-stream"]
#: `sandbox`: calls of a route follow each other in one container; `call`: each gets a fresh one.
Isolation = Literal["sandbox", "network", "call"]
#: A number of cpus: what is no number, or none that can be added up, is not decoded.
Cpus = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Wire(msgspec.Struct, frozen=True, array_like=True):
    """The base of all messages: immutable, typed, an array on the wire."""


class Callback(Wire, frozen=True):
    """Part of `CallHead` and `Record`: where the outcome of an async call is to be sent."""

    url: str
    #: What its body will be; "" if neither the route nor the function has said so.
    content_type: str = ""


class Tries(Wire, frozen=True):
    """Part of `CallHead`: how often an async call is run; see `retrying`."""

    #: Attempts that may fail by the platform's fault, in all.
    max_attempts: int = 3
    #: Attempts that may follow those that failed by the function's own fault.
    retries: int = 0
    #: Seconds before the second attempt; the wait grows from there.
    retry_delay_s: int = 1
    #: How many attempts before this one failed by the function's own fault.
    own_failures: int = 0


class CallHead(Wire, frozen=True):
    """api -> scheduler -> runner: what deciding about a call needs."""

    call_id: str
    mode: Mode
    app: str
    path: str
    image: str
    memory_mb: int
    cpus: Cpus
    accepted_ms: int
    #: Up to when it may wait for capacity; 0: as long as it takes (async).
    wait_until_ms: int
    #: When the caller must have an answer; 0: whenever (async).
    deadline_ms: int
    #: The api replica that waits for the reply; "" if none does.
    reply_to: str
    #: Run time the route allows, in milliseconds.
    timeout_ms: int
    #: 1 for the first attempt; a failure may make the next one.
    attempt: int = 1
    format: Format = "default"
    isolation: Isolation = "sandbox"
    #: Most sandboxes that a runner may have for the route at one time; 0: as many as fit.
    max_concurrency: int = 0
    #: Fingerprint of what a sandbox of the route is made of: only calls with the same one share it.
    sandbox_key: str = ""
    #: Version of the app's catalog at which the route was read: a later one has a larger one.
    revision: int = 0
    #: Which claim (`keys.claim`) keeps the answer of a sync call; "" if none does.
    once: str = ""
    #: Who is told when an async call has ended.
    callback: Callback | None = None
    #: None: a sync call, which is run once; or an async one for which the defaults hold.
    tries: Tries | None = None
    #: Whether it counts in `keys.inflight`: who ends it takes it out there.
    counted: bool = False


class Parcel(Wire, frozen=True):
    """api -> runner: what running a call needs, beyond its head."""

    #: What the function's process gets for this call: METHOD, ROUTE, CALL_ID, HEADER_*, ...
    call_env: dict[str, str]
    #: What it gets for every call of the route: the app's and the route's config.
    config_env: dict[str, str]
    payload: bytes
    method: str = "POST"
    #: Seconds an idle sandbox is kept.
    idle_timeout_s: int = 30
    #: scheme://host/path?query as the caller wrote it.
    url: str = ""
    #: The request's headers as they came; only for formats that pass them on (`json`,
    #: `http-stream`): the others get them as variables.
    headers: tuple[tuple[str, str], ...] = ()


class Wanted(Wire, frozen=True):
    """api -> runner: keep sandboxes ready for a route, also before its first call."""

    app: str
    path: str
    image: str
    memory_mb: int
    cpus: Cpus
    format: Format
    isolation: Isolation
    max_concurrency: int
    sandbox_key: str
    revision: int
    config_env: dict[str, str]
    idle_timeout_s: int
    #: How many each runner keeps.
    min_sandboxes: int


class Assignment(Wire, frozen=True):
    """scheduler -> runner: the part of an entry that the scheduler adds."""

    #: Which scheduler's reign assigned it; a runner refuses older ones than it has seen.
    epoch: int
    assigned_ms: int
    #: The grant in whose place the call came, past the scheduler; "": the scheduler gave it.
    grant: str = ""


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


class StreamHead(Wire, frozen=True, tag="head"):
    """runner -> api: the function has begun to answer, and goes on in `StreamChunk`s."""

    call_id: str
    #: The runner that awaits `More` when it has sent enough.
    runner_id: str
    status: int
    headers: tuple[tuple[str, str], ...]


class StreamChunk(Wire, frozen=True, tag="chunk"):
    """runner -> api: the next bytes of an answer that has begun."""

    call_id: str
    data: bytes


class More(Wire, frozen=True):
    """api -> runner: the caller has taken so many bytes of a streamed answer, in all."""

    call_id: str
    taken_bytes: int


class Reply(Wire, frozen=True, tag="reply"):
    """runner or scheduler -> api: the outcome of a sync call, for who waits.

    After a `StreamHead` it ends the stream: `Answered` (its body is empty) if the answer is
    whole, `Failed` if it broke off.
    """

    call_id: str
    outcome: Outcome
    #: Milliseconds from the runner taking the call to its process running.
    start_ms: float = 0.0
    #: Milliseconds the process ran.
    run_ms: float = 0.0


ReplyPart = StreamHead | StreamChunk | Reply


Status = Literal["queued", "running", "success", "error", "cancelled"]
ENDED: tuple[Status, ...] = ("success", "error", "cancelled")


class Attempt(Wire, frozen=True):
    """Part of `Record`: a run of an async call that failed, and was followed by another."""

    #: 1 for the first.
    number: int
    #: A word of `errors.CODES`.
    code: str
    message: str
    finished_ms: int
    started_ms: int | None = None
    exit_code: int | None = None
    runner_id: str = ""
    #: As `Record.log`.
    log: bytes = b""


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
    callback: Callback | None = None
    #: The dead letter that this call is made of; "" if it is not.
    redrive_of: str = ""
    #: Attempts before this one, as far as this record knows of them.
    failures: tuple[Attempt, ...] = ()


class SandboxCount(Wire, frozen=True):
    """Part of `Heartbeat`: a runner's sandboxes of one route."""

    app: str
    path: str
    sandbox_key: str
    #: Ready and unused; running a call; on their way.
    idle: int
    busy: int
    starting: int


class Heartbeat(Wire, frozen=True, tag="heartbeat"):
    """runner -> scheduler, each second: I live, and this is what I offer."""

    runner_id: str
    #: Which container engine; replicas with the same one share its capacity.
    engine_id: str
    sent_ms: int
    #: What the engine offers to functions in all, whoever uses it.
    memory_mb: int
    cpus: Cpus
    arch: str
    #: False while the engine does not answer.
    able: bool = True
    draining: bool = False
    #: Images on the engine's disk, by the names routes may use.
    #: Names of images on disk, as `imagenames.on_disk` cuts them.
    images: tuple[str, ...] = ()
    #: Calls this runner holds now.
    running: int = 0
    #: Its sandboxes by route; of very many routes, those used last.
    sandboxes: tuple[SandboxCount, ...] = ()
    #: Memory of sandboxes that are idle, in MB: they give way to calls.
    idle_memory_mb: int = 0
    #: What operators call it; unlike its id, it stays over restarts, and several may have one.
    name: str = ""


class ExecutionFinished(Wire, frozen=True, tag="finished"):
    """runner -> scheduler: the call's sandbox is idle or gone; its capacity is free."""

    runner_id: str
    call_id: str
    #: The grant in whose place it came, if it is not open to the next call any more.
    grant: str = ""


class PlaceKept(Wire, frozen=True, tag="kept"):
    """runner -> scheduler: a call that came by a grant has ended, its sandbox is being removed.

    Its place is held under the call's own id from now on, until `ExecutionFinished`.
    """

    runner_id: str
    call_id: str
    grant: str


class RunnerGone(Wire, frozen=True, tag="gone"):
    """runner -> scheduler: I have drained and leave; whatever my stream still holds is yours."""

    runner_id: str
    #: Nothing of what the stream holds was started, whether or not it was read.
    unstarted: bool = False


class CancelCall(Wire, frozen=True, tag="cancel"):
    """api -> scheduler: the caller has left."""

    call_id: str
    #: Where the call went by a grant; "": to the scheduler, or nobody knows.
    runner_id: str = ""


Event = Heartbeat | ExecutionFinished | PlaceKept | RunnerGone | CancelCall

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
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # the latter of its texts
        raise Undecodable(f"not a {kind}: {error}") from error
