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
#: Stream, group `RECORDERS`. api, scheduler, runners -> api: `messages.Record` in field `m`.
FINISHED = f"{TAG}:finished"
RECORDERS = "recorders"
#: Stream. Anyone -> operators: entries that nobody could decode, set aside with their origin.
ASIDE = f"{TAG}:aside"
#: Hash, runner id -> its last `messages.Heartbeat`. runners -> scheduler, api.
RUNNERS = f"{TAG}:runners"
#: Hash, app and path (a newline between) -> `messages.Wanted`: routes whose sandboxes are kept
#: ready. api -> runners.
WANTED = f"{TAG}:wanted"
#: String with expiry: the id of the active scheduler; and the count of its reigns.
LEASE = f"{TAG}:lease"
EPOCH = f"{TAG}:epoch"
#: Hash, app -> number that changes with each change of the app or its routes. api <-> api.
CATALOG_VERSIONS = f"{TAG}:catalog-versions"
#: Sorted set, call id by the epoch ms at which its reservation for an outside worker ends; and
#: hash, call id -> the reserved entry. api <-> api.
TASKS_DUE = f"{TAG}:tasks:due"
TASKS_RESERVED = f"{TAG}:tasks:reserved"
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
