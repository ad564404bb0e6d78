"""Which Redis keys are there, who writes them and who reads them?

All carry one hash tag: calls move between streams atomically, so those streams must live in one
slot. Beyond what one Redis can do, the unit of growth is a cell with a Redis of its own.
"""

TAG = "{millrace}"

#: Stream. api and runners' reclaimed calls -> scheduler. An entry is one waiting call.
CALLS_SYNC = f"{TAG}:calls:sync"
CALLS_ASYNC = f"{TAG}:calls:async"
#: Stream. runners and api -> scheduler: `messages.Event` in field `m`.
EVENTS = f"{TAG}:events"
#: Stream, group `RECORDERS`. api, scheduler, runners -> api: `messages.Record` in field `m`; of a
#: call that is to be kept as a dead letter also its `messages.CallHead` in `h` and, unless it has a
#: key of its own, its `messages.Parcel` in `p`.
FINISHED = f"{TAG}:finished"
RECORDERS = "recorders"
#: Stream. Anyone -> operators: entries that nobody could decode, set aside with their origin.
ASIDE = f"{TAG}:aside"
#: Hash, runner id -> its last `messages.Heartbeat`. runners -> scheduler, api.
RUNNERS = f"{TAG}:runners"
#: Hash, id or name of runners -> since when they are to be empty, in epoch ms. api -> runners.
DRAINS = f"{TAG}:drains"
#: Hash, app and path (a newline between) -> `messages.Wanted`: routes whose sandboxes are kept
#: ready. api -> runners.
WANTED = f"{TAG}:wanted"
#: String with expiry: the id of the active scheduler; and the number of the latest reign.
LEASE = f"{TAG}:lease"
EPOCH = f"{TAG}:epoch"
#: Hash, for each kind of sandbox that has a grant: how many calls may go to a runner past the
#: scheduler now, to which one, by which grant, as which `messages.Assignment`. scheduler -> api,
#: runners.
GRANTS = f"{TAG}:grants"
#: Hash, app -> number that changes with each change of the app or its routes. api <-> api.
CATALOG_VERSIONS = f"{TAG}:catalog-versions"
#: Sorted set, call id by the epoch ms at which its reservation for an outside worker ends; and
#: hash, call id -> the reserved entry. api <-> api.
TASKS_DUE = f"{TAG}:tasks:due"
TASKS_RESERVED = f"{TAG}:tasks:reserved"
#: The same of async calls whose next attempt is to wait until that time. scheduler, runners -> api.
RETRIES_DUE = f"{TAG}:retries:due"
RETRIES = f"{TAG}:retries"
#: What is kept of calls with an `Idempotency-Key`: sorted set, `claim` by the epoch ms at which it
#: is forgotten; and the bytes that all claims take, about. api, runners, scheduler <-> api.
CLAIMS_DUE = f"{TAG}:claims:due"
CLAIMS_BYTES = f"{TAG}:claims:bytes"
#: Counter of calls that ended. runners, scheduler -> api (`/stats`).
COMPLETE = f"{TAG}:complete"


def calls(mode: str) -> str:
    """Stream of waiting calls of a mode, `sync` or `async`."""
    return f"{TAG}:calls:{mode}"


def runner(runner_id: str) -> str:
    """Stream, group `RUNNER_GROUP`. -> that runner, by the kind in field `k`.

    scheduler: `assign` a call, `cancel` one; api: `more` of a streamed answer is wanted.
    """
    return f"{TAG}:runner:{runner_id}"


RUNNER_GROUP = "runner"


def reply(api_id: str) -> str:
    """Stream with expiry. runners, scheduler -> that api replica: `messages.ReplyPart` in `m`."""
    return f"{TAG}:reply:{api_id}"


def late(api_id: str) -> str:
    """Stream with expiry. runners, scheduler -> that replica: replies whose stream was not there.

    `scripts.end` knows this name, too.
    """
    return f"{reply(api_id)}:late"


def claim(digest: str) -> str:
    """Hash. api makes it with a call, whoever ends that writes the answer, api reads it.

    Fields: `f` fingerprint of the request, `c` call id, `m` mode, `s` state (`run`, `done`, `none`:
    no answer is kept), `u` epoch ms after which the call does not run any more, `e` epoch ms at
    which it is forgotten, `h` the route's headers, `a` the answer, `x` and `t` the bytes that an
    answer and all claims may take, `z` the bytes it counts for.
    """
    return f"{TAG}:claim:{digest}"


def inflight(app: str) -> str:
    """Sorted set. Calls under way of an app that may have only so many, by when they surely ended.

    api adds, whoever ends a call removes.
    """
    return f"{TAG}:inflight:{app}"


def pace(app: str) -> str:
    """String with expiry. api <-> api: when an app's rate is whole again, in epoch microseconds."""
    return f"{TAG}:pace:{app}"


def parcel(call_id: str) -> str:
    """String. api -> runner: a parcel too large for the stream entry."""
    return f"{TAG}:parcel:{call_id}"


def redriven(call_id: str) -> str:
    """String with expiry. api <-> api: the call of this id was made of a dead letter already."""
    return f"{TAG}:redriven:{call_id}"
