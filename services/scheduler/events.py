"""What happens to the scheduler's state, and what does the state want done?

Events are facts; what runners and the api report are the wire's own messages, the rest is here.
Commands are imperatives that the shell performs.
"""

from typing import NamedTuple

import msgspec

from services.scheduler import ledger
from services.scheduler.ledger import Group, Size
from services.scheduler.placement import Reason
from shared import messages


class Now(NamedTuple):
    """The time of an event: monotonic seconds for durations, epoch milliseconds for the wire."""

    s: float
    ms: int


class Waiting(msgspec.Struct, frozen=True):
    """A waiting call by reference: its entry in Redis, its head, and what follows from them."""

    entry_id: bytes
    head: messages.CallHead
    size: Size
    #: Grows with the entry's place in its stream.
    order: int
    #: Calls it can share sandboxes with; None if it needs one to itself.
    group: Group | None = None


def waiting(entry_id: bytes, head: messages.CallHead) -> Waiting:
    """Return the reference to a waiting call.

    An entry id is `<milliseconds>-<counter>`; as one number it sorts as the stream does.
    """
    ms, _, counter = entry_id.partition(b"-")
    order = (int(ms) << 32) + int(counter)
    size = ledger.need(head)
    return Waiting(entry_id, head, size, order, ledger.group(head, size))


class Held(msgspec.Struct, frozen=True):
    """An outstanding assignment, as found in a runner's stream."""

    runner_id: str
    head: messages.CallHead


class _Fact(msgspec.Struct, frozen=True):
    pass


class Rebuilt(_Fact, frozen=True):
    """A reign begins: these runners are known, and this is what they hold."""

    heartbeats: tuple[messages.Heartbeat, ...]
    held: tuple[Held, ...]
    #: Calls whose callers left while no scheduler may have listened.
    left: tuple[str, ...] = ()


class CallsArrived(_Fact, frozen=True):
    """These calls were read, in the order of their stream."""

    calls: tuple[Waiting, ...]


class AsyncScanned(_Fact, frozen=True):
    """An answer to `ScanAsync`: the app's calls in one part of the stream."""

    app: str
    calls: tuple[Waiting, ...]
    #: Where to go on; None at the stream's end.
    next_id: bytes | None


class AssignFailed(_Fact, frozen=True):
    """An assignment was not performed.

    `gone`: somebody else took the call. `lost`: the runner's stream is not there; the call waits
    where it was.
    """

    call: Waiting
    runner_id: str
    why: bytes


class RunnerReclaimed(_Fact, frozen=True):
    """A lost or leaving runner's stream is empty and deleted."""

    runner_id: str


class RunnerAudited(_Fact, frozen=True):
    """Of the calls that were asked about, these are not in the runner's stream."""

    runner_id: str
    missing: frozenset[str]
    #: Grant -> how many calls in the stream came by it.
    granted: dict[str, int] = {}


class GrantRecalled(_Fact, frozen=True):
    """An answer to `RecallGrant`: so many places were free."""

    grant_id: str
    free: int


class Tick(_Fact, frozen=True):
    """Time has passed. `caught_up`: all that was written to us until about now is read."""

    caught_up: bool


Event = (
    messages.Event
    | Rebuilt
    | CallsArrived
    | AsyncScanned
    | AssignFailed
    | RunnerReclaimed
    | RunnerAudited
    | GrantRecalled
    | Tick
)


class _Command(msgspec.Struct, frozen=True):
    pass


class AssignCall(_Command, frozen=True):
    """Move a waiting call to a runner's stream."""

    call: Waiting
    runner_id: str


class RefuseCall(_Command, frozen=True):
    """End a waiting call with an error; `code` is a name in `errors.CODES`."""

    call: Waiting
    code: str
    message: str


class CancelWaiting(_Command, frozen=True):
    """End a waiting call whose caller has left."""

    call: Waiting


class TellLost(_Command, frozen=True):
    """Tell a sync call's caller that the call is in Redis no more, and nobody will answer it."""

    head: messages.CallHead


class ForwardCancel(_Command, frozen=True):
    """Tell a runner that the caller of one of its calls has left."""

    runner_id: str
    call_id: str


class ReclaimRunner(_Command, frozen=True):
    """Take back what a lost or leaving runner's stream holds; then delete it."""

    runner_id: str
    #: As the runner said when it left.
    unstarted: bool = False


class AuditRunner(_Command, frozen=True):
    """See which of these calls are still in a runner's stream."""

    runner_id: str
    call_ids: tuple[str, ...]


class GrantPlace(_Command, frozen=True):
    """Let one more call of a kind of sandbox go to a runner past us."""

    grant_id: str
    kind: str
    runner_id: str


class RecallGrant(_Command, frozen=True):
    """Take back what is free of a grant; `GrantRecalled` is to follow.

    `close`: what is in use then is told when it comes back, and not left to the next call.
    """

    grant_id: str
    kind: str
    close: bool


class ScanAsync(_Command, frozen=True):
    """Read an app's async calls from an entry on that was passed over before."""

    app: str
    from_id: bytes


class ReportWait(_Command, frozen=True):
    """Log why a call has been waiting for so long."""

    call: Waiting
    reason: Reason
    message: str


Command = (
    AssignCall
    | RefuseCall
    | CancelWaiting
    | TellLost
    | ForwardCancel
    | ReclaimRunner
    | AuditRunner
    | GrantPlace
    | RecallGrant
    | ScanAsync
    | ReportWait
)
