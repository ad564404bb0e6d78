"""How does a call move between streams? Atomic steps in Redis, each one Lua script.

A call's entry is its ownership token: it is in one stream at a time and whoever deletes it owns
it. Each script here says what it needs and returns; the callers decide. What a call needs is a
`Step`, many of which go as one; the rest are plain EVALs.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from shared import keys, messages

#: Above this a parcel travels beside its entry, under a key of its own, so that the scheduler
#: never reads large bodies.
PARCEL_INLINE_MAX_BYTES = 32 * 1024

Part = str | bytes | int

STALE, FULL, BUSY, EARLY = b"stale", b"full", b"busy", b"early "
#: How long a call counts as under way beyond its deadline, or (async) its acceptance, if nothing
#: ever says that it has ended.
_SYNC_COUNTED_MS, _ASYNC_COUNTED_MS = 60_000, 48 * 60 * 60 * 1000
#: A script that begins so also works when Redis is out of memory: it takes away more than it
#: adds, and without it a full Redis could never be emptied.
_FREES = "#!lua flags=allow-oom"

GONE, LOST, FENCED = b"gone", b"lost", b"fenced"

#: One that fails does not take its neighbours along: its answer is its error.
_BATCH = """{flags}
{shared}
{first}
local function one({own})
{each}
end
local answers = {{}}
for i = 1, (#KEYS - {shared_keys}) / {own_keys} do
  local key, argument = {shared_keys} + (i - 1) * {own_keys}, {shared_rest} + (i - 1) * {own_rest}
  local done, answer = pcall(one, {own_values})
  if not done and type(answer) ~= 'table' then answer = redis.error_reply(answer) end
  answers[i] = answer
end
{last}
if #answers == 1 then return answers[1] end
return answers
"""


class Script:
    """A kind of step, as a Lua script that performs one or many of them in one go.

    Each is as atomic as if it were alone, and has an answer of its own: a single one's is that of
    the script, those of many are a list. What is the same for all steps of a batch goes once.
    """

    def __init__(
        self,
        *,
        shared: tuple[str, str],
        own: tuple[str, str],
        each: str,
        first: str = "",
        last: str = "",
        frees: bool = False,
    ) -> None:
        """Make a script of Lua; `each` performs one step, and returns its answer, not nil.

        `shared` and `own` name the variables: keys, then other arguments. `first` and `last` are
        performed once for all. `frees`: also when Redis is out of memory.
        """
        shared_keys, shared_rest, own_keys, own_rest = (names.split() for names in (*shared, *own))
        self.text = _BATCH.format(
            flags=_FREES if frees else "",
            shared=_locals(shared_keys, shared_rest),
            own=", ".join(own_keys + own_rest),
            own_values=", ".join(
                [*_items("KEYS", "key + ", own_keys), *_items("ARGV", "argument + ", own_rest)]
            ),
            shared_keys=len(shared_keys),
            own_keys=len(own_keys),
            shared_rest=len(shared_rest),
            own_rest=len(own_rest),
            first=first.strip(),
            each=each.strip(),
            last=last.strip(),
        ).lstrip()
        #: By which Redis knows the text.
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


def _locals(names: list[str], rest: list[str]) -> str:
    """Return Lua that gives names to the first keys and other arguments."""
    values = [*_items("KEYS", "", names), *_items("ARGV", "", rest)]
    return f"local {', '.join(names + rest)} = {', '.join(values)}" if values else ""


def _items(table: str, start: str, names: list[str]) -> list[str]:
    return [f"{table}[{start}{i + 1}]" for i in range(len(names))]


class Step(msgspec.Struct, frozen=True):
    """One run of a `Script`. Steps of one script with the same `shared` parts can go as one.

    Seen as a sequence it is a command that performs it alone.
    """

    script: Script
    #: Keys, then other arguments, in the order of the script's variables.
    shared: tuple[tuple[Part, ...], tuple[Part, ...]]
    own: tuple[tuple[Part, ...], tuple[Part, ...]]

    def __iter__(self) -> Iterator[Part]:
        return iter(("EVAL", self.script.text, *parts([self])))


def parts(steps: list[Step]) -> list[Part]:
    """Return what follows a script's text or sha in a command that performs these steps.

    All have the same script and the same shared parts.
    """
    shared_keys, shared_rest = steps[0].shared
    names = [*shared_keys]
    rest = [*shared_rest]
    for step in steps:
        own_keys, own_rest = step.own
        names += own_keys
        rest += own_rest
    return [len(names), *names, *rest]


Command = tuple[Part, ...] | Step


def name(command: Command) -> str:
    """Return what to call a command in a log."""
    return "step" if isinstance(command, Step) else str(command[0])


_REFUSED = """
if not versions[app] then versions[app] = redis.call('HGET', catalog, app) or '0' end
if versions[app] ~= version then return 'stale' end
if waiting >= tonumber(queue_max) then return 'full' end
"""
_ADDED = """
if record ~= '' then redis.call('XADD', finished, '*', 'm', record) end
local entry = {'h', head}
if #parcel > tonumber(inline_max) then
  redis.call('SET', apart, parcel)
  if ttl_ms ~= '0' then redis.call('PEXPIRE', apart, ttl_ms) end
else
  entry[3], entry[4] = 'p', parcel
end
if kind ~= '' then
  local grant = granted_to(kind)
  if grant.free > grant.taken then
    local id = redis.call(
      'XADD', runner .. grant.to, 'NOMKSTREAM', '*', 'k', 'assign', 'a', grant.as, unpack(entry))
    if id then
      grant.taken = grant.taken + 1
      return {id, grant.to}
    end
  end
end
waiting = waiting + 1
return redis.call('XADD', calls, '*', unpack(entry))
"""
_ENQUEUE_FIRST = """
local waiting, versions, granted = redis.call('XLEN', calls), {}, {}
local function granted_to(kind)
  local grant = granted[kind]
  if not grant then
    local free, to, as = unpack(
      redis.call('HMGET', grants, kind .. ':free', kind .. ':to', kind .. ':as'))
    grant = {free = tonumber(free or '0'), to = to, as = as, taken = 0}
    granted[kind] = grant
  end
  return grant
end
"""
_ENQUEUE_LAST = """
for kind, grant in pairs(granted) do
  if grant.taken > 0 then redis.call('HINCRBY', grants, kind .. ':free', -grant.taken) end
end
"""

#: What each call has of its own.
_OWN = "app version kind head parcel record ttl_ms"

_ENQUEUE = Script(
    shared=("catalog calls finished grants", "queue_max inline_max runner"),
    own=("apart", _OWN),
    first=_ENQUEUE_FIRST,
    each=_REFUSED + _ADDED,
    last=_ENQUEUE_LAST,
)

_NOW = """
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
"""
_LIMITED = """
if max_inflight ~= '0' then
  redis.call('ZREMRANGEBYSCORE', inflight, '-inf', string.format('%.0f', now_us / 1000))
  if redis.call('ZCARD', inflight) >= tonumber(max_inflight) then return 'busy' end
end
if period_us ~= '0' then
  local full_us = tonumber(redis.call('GET', pace) or '0')
  -- Not further away than the burst: what was used up at a lower rate does not count at a higher.
  full_us = math.max(math.min(full_us, now_us + burst_us), now_us) + period_us
  local early_us = full_us - now_us - burst_us
  if early_us > 0 then return 'early ' .. string.format('%.0f', early_us) end
  local kept_ms = math.ceil((full_us - now_us) / 1000)
  redis.call('SET', pace, string.format('%.0f', full_us), 'PX', string.format('%.0f', kept_ms))
end
if max_inflight ~= '0' then
  redis.call('ZADD', inflight, until_ms, call_id)
  redis.call('PEXPIRE', inflight, 345600000)
end
"""

#: The same for an app with limits. How fast it is called is one number, the time at which its
#: tokens are all there again (the generic cell rate algorithm): with 10 calls a second and a burst
#: of 3, that may be 0.3 s away at most, and each call moves it by 0.1 s.
_ENQUEUE_LIMITED = Script(
    shared=("catalog calls finished grants", "queue_max inline_max runner"),
    own=(
        "apart inflight pace",
        f"{_OWN} call_id until_ms max_inflight period_us burst_us",
    ),
    first=_ENQUEUE_FIRST + _NOW,
    each=_REFUSED + _LIMITED + _ADDED,
    last=_ENQUEUE_LAST,
)


class Limits(NamedTuple):
    """What an app may have of calls; 0: as many as come."""

    #: Calls accepted and not ended.
    max_inflight: int
    #: Microseconds between two calls at its rate, and those that its whole burst is worth.
    period_us: int
    burst_us: int


def enqueue(
    head: messages.CallHead,
    parcel: messages.Parcel,
    *,
    catalog_version: str,
    queue_max: int,
    record: messages.Record | None,
    parcel_ttl_ms: int,
    limits: Limits | None = None,
) -> Step:
    """api: accept a call. Returns the entry id, or a refusal, with nothing done.

    Refusals: `STALE`, `FULL`, `BUSY` (as many under way as `limits` allow), `EARLY` and the
    microseconds until there is a token. A sync call of a kind that has a grant with a free place
    goes to that runner at once: the answer is a list then, of the entry id and the runner's.
    `catalog_version` is the version of the app's catalog that the route was read at;
    `parcel_ttl_ms` 0 keeps a separate parcel until the call ends (async).
    """
    own = (
        head.app,
        catalog_version,
        head.sandbox_key if head.mode == "sync" else "",
        messages.encode(head),
        messages.encode(parcel),
        messages.encode(record) if record else b"",
        parcel_ttl_ms,
    )
    names = (keys.CATALOG_VERSIONS, keys.calls(head.mode), keys.FINISHED, keys.GRANTS)
    shared = (names, (queue_max, PARCEL_INLINE_MAX_BYTES, keys.runner("")))
    apart = keys.parcel(head.call_id)
    if limits is None:
        return Step(_ENQUEUE, shared, ((apart,), own))
    own_keys = (apart, keys.inflight(head.app), keys.pace(head.app))
    counted = (head.call_id, _counts_until_ms(head), *limits)
    return Step(_ENQUEUE_LIMITED, shared, (own_keys, (*own, *counted)))


def _counts_until_ms(head: messages.CallHead) -> int:
    """Return from when on a call does not count as under way, should nobody tell of its end."""
    if head.deadline_ms:
        return head.deadline_ms + _SYNC_COUNTED_MS
    return head.accepted_ms + head.timeout_ms + _ASYNC_COUNTED_MS


CLAIMS_FULL = b"claims full"
#: What a claim takes in Redis, about, beyond the answer that it keeps.
CLAIM_BYTES = 1024

#: Forgets a claim. With `claim`, `due`, `bytes` and `digest`.
_FORGET_CLAIM = """
local function forget()
  redis.call('DECRBY', bytes, redis.call('HGET', claim, 'z') or '0')
  redis.call('DEL', claim)
  redis.call('ZREM', due, digest)
end
"""

_ENQUEUE_ONCE = (
    """
local catalog, calls, finished, apart, claim, due, bytes, inflight, pace = unpack(KEYS)
local app, version, head, parcel, record, ttl_ms, queue_max, inline_max, digest, now_ms, total_max,
  call_id, until_ms, max_inflight, period_us, burst_us = unpack(ARGV)
"""
    + _NOW
    + _FORGET_CLAIM
    + """
local held = redis.call('HMGET', claim, 'f', 'c', 'm', 's', 'u', 'h', 'a', 'e')
if held[1] and tonumber(held[8]) > tonumber(now_ms) then return held end
if (redis.call('HGET', catalog, app) or '0') ~= version then return 'stale' end
if redis.call('XLEN', calls) >= tonumber(queue_max) then return 'full' end
if held[1] then forget() end
if tonumber(redis.call('GET', bytes) or '0') >= tonumber(total_max) then return 'claims full' end
"""
    + _LIMITED
    + """
local fields = {unpack(ARGV, 17)}
redis.call('HSET', claim, 't', total_max, unpack(fields))
local of = {}
for i = 1, #fields, 2 do of[fields[i]] = fields[i + 1] end
redis.call('ZADD', due, of.e, digest)
redis.call('INCRBY', bytes, of.z)
if record ~= '' then redis.call('XADD', finished, '*', 'm', record) end
if #parcel <= tonumber(inline_max) then
  return redis.call('XADD', calls, '*', 'h', head, 'p', parcel)
end
redis.call('SET', apart, parcel)
if ttl_ms ~= '0' then redis.call('PEXPIRE', apart, ttl_ms) end
return redis.call('XADD', calls, '*', 'h', head)
"""
)


class Claim(msgspec.Struct, frozen=True):
    """What is to be kept of a call with an `Idempotency-Key`: see `keys.claim`."""

    digest: str
    fingerprint: str
    expires_ms: int
    #: When the call does not run any more.
    until_ms: int
    route_headers: bytes
    answer_max_bytes: int
    #: What all claims may take, about.
    total_max_bytes: int


def enqueue_once(enqueuing: Step, head: messages.CallHead, claim: Claim, now_ms: int) -> Command:
    """api: accept a call, as `enqueue` does, and claim its key; or say what has claimed it before.

    `enqueuing` is the step that `enqueue` returns; `head` replaces its head. Returns what that
    does, or `CLAIMS_FULL`, with nothing done; or, of an earlier claim, the fields f, c, m, s, u,
    h, a, e of `keys.claim`. It goes to the scheduler: it takes no place of a grant.
    """
    (names, bounds), ((apart, *_), own) = enqueuing.shared, enqueuing.own
    plain = len(_OWN.split())
    app, version, _, _, *input_and_record = own[:plain]
    limits = own[plain:] or (head.call_id, 0, 0, 0, 0)
    claimed = (keys.claim(claim.digest), keys.CLAIMS_DUE, keys.CLAIMS_BYTES)
    taken = (*names[:3], apart, *claimed, keys.inflight(head.app), keys.pace(head.app))
    # An async call has its answer with the 202.
    state = "run" if head.mode == "sync" else "done"
    fields: dict[str, Part] = {
        "f": claim.fingerprint,
        "c": head.call_id,
        "m": head.mode,
        "s": state,
        "u": claim.until_ms,
        "e": claim.expires_ms,
        "h": claim.route_headers,
        "x": claim.answer_max_bytes,
        "z": CLAIM_BYTES + len(claim.route_headers),
    }
    flat = [part for pair in fields.items() for part in pair]
    call = (app, version, messages.encode(head), *input_and_record)
    rest = (*call, *bounds[:2], claim.digest, now_ms, claim.total_max_bytes, *limits, *flat)
    return ("EVAL", _ENQUEUE_ONCE, len(taken), *taken, *rest)


def look_at_claim(digest: str) -> Command:
    """api: return a claim's fields, as `enqueue_once` does; the first is None if there is none."""
    return ("HMGET", keys.claim(digest), "f", "c", "m", "s", "u", "h", "a", "e")


_SWEEP_CLAIMS = (
    _FREES
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, digest in ipairs(due) do
  local claim = ARGV[3] .. digest
  redis.call('DECRBY', KEYS[2], redis.call('HGET', claim, 'z') or '0')
  redis.call('UNLINK', claim)
  redis.call('ZREM', KEYS[1], digest)
end
return #due
"""
)


def sweep_claims(now_ms: int, at_most: int) -> Command:
    """api: forget claims whose time is over. Returns how many there were."""
    names = (keys.CLAIMS_DUE, keys.CLAIMS_BYTES)
    return ("EVAL", _SWEEP_CLAIMS, len(names), *names, now_ms, at_most, keys.claim(""))


_ASSIGN = Script(
    shared=("source reigns", "epoch"),
    own=("runner", "entry_id assignment"),
    frees=True,
    first="""
local fenced = tonumber(redis.call('GET', reigns) or '0') > tonumber(epoch)
local moved, taken = {}, {}
""",
    each="""
if fenced then return 'fenced' end
local found = redis.call('XRANGE', source, entry_id, entry_id)[1]
if not found or taken[entry_id] then return 'gone' end
local id = redis.call(
  'XADD', runner, 'NOMKSTREAM', '*', 'k', 'assign', 'a', assignment, unpack(found[2]))
if not id then return 'lost' end
moved[#moved + 1], taken[entry_id] = entry_id, true
return id
""",
    last="""
if #moved > 0 then redis.call('XDEL', source, unpack(moved)) end
""",
)


def assign(source: str, entry_id: bytes, runner_id: str, assignment: messages.Assignment) -> Step:
    """scheduler: move a waiting call to a runner's stream.

    Returns the new entry id; `GONE` if somebody else took the call (an outside worker, or a
    cancel); `LOST` if the runner's stream is not there any more (the call stays where it was);
    `FENCED` if a later reign has begun, so that nothing of this one is performed after it.
    """
    shared = ((source, keys.EPOCH), (assignment.epoch,))
    own = ((keys.runner(runner_id),), (entry_id, messages.encode(assignment)))
    return Step(_ASSIGN, shared, own)


_FORWARD_CANCEL = Script(
    shared=("", ""),
    own=("runner", "cancel"),
    frees=True,
    each="""
return redis.call('XADD', runner, 'NOMKSTREAM', '*', 'k', 'cancel', 'm', cancel)
""",
)


def forward_cancel(runner_id: str, call_id: str) -> Step:
    """scheduler: tell a runner that a caller has left. A step, so that it follows its `assign`."""
    own = ((keys.runner(runner_id),), (messages.encode(messages.Cancel(call_id)),))
    return Step(_FORWARD_CANCEL, ((), ()), own)


_GRANT = Script(
    shared=("reigns", "epoch"),
    own=("grants", "kind grant runner assignment"),
    frees=True,
    first="""
local fenced = tonumber(redis.call('GET', reigns) or '0') > tonumber(epoch)
""",
    each="""
if fenced then return 'fenced' end
if redis.call('HGET', grants, kind .. ':id') ~= grant then
  redis.call('HSET', grants, kind .. ':id', grant, kind .. ':to', runner,
    kind .. ':as', assignment, kind .. ':free', 0)
end
return redis.call('HINCRBY', grants, kind .. ':free', 1)
""",
)


def grant(kind: str, runner_id: str, assignment: messages.Assignment) -> Step:
    """scheduler: let one more call of a kind of sandbox go to a runner past the scheduler.

    `assignment` bears the grant's id. Returns how many may now; or `FENCED`, with nothing done,
    if a later reign has begun.
    """
    own = (kind, assignment.grant, runner_id, messages.encode(assignment))
    return Step(_GRANT, ((keys.EPOCH,), (assignment.epoch,)), ((keys.GRANTS,), own))


_RECALL = Script(
    shared=("", ""),
    own=("grants", "kind grant close"),
    frees=True,
    each="""
if redis.call('HGET', grants, kind .. ':id') ~= grant then return -1 end
local free = tonumber(redis.call('HGET', grants, kind .. ':free'))
if close ~= '' then
  redis.call('HDEL', grants, kind .. ':id', kind .. ':to', kind .. ':as', kind .. ':free')
else
  redis.call('HSET', grants, kind .. ':free', 0)
end
return free
""",
)


def recall(kind: str, grant_id: str, *, close: bool) -> Step:
    """scheduler: take the free places of a grant back; returns how many, -1 if it is not there.

    `close`: the others do not become free for the next call, but are told to the scheduler.
    """
    own = (kind, grant_id, "close" if close else "")
    return Step(_RECALL, ((), ()), ((keys.GRANTS,), own))


_CANCEL = Script(
    shared=("", ""),
    own=("events", "cancel"),
    frees=True,
    each="""
return redis.call('XADD', events, '*', 'm', cancel)
""",
)


def cancel(call_id: str, runner_id: str) -> Step:
    """api: tell the scheduler that a caller has left. A step, so that it follows its `enqueue`."""
    own = ((keys.EVENTS,), (messages.encode(messages.CancelCall(call_id, runner_id)),))
    return Step(_CANCEL, ((), ()), own)


#: Records that wait in `finished` while MySQL is away: beyond, those of answered sync calls are
#: dropped, and what is known of calls that have not ended.
RECORDS_MAX = 100_000
UNRECORDED = 2

_NOTE = f"""
if redis.call('XLEN', KEYS[1]) >= {RECORDS_MAX} then return 0 end
redis.call('XADD', KEYS[1], '*', 'm', ARGV[1])
return 1
"""


def note(record: messages.Record) -> Command:
    """api, runner: record how far a call is that has not ended. Returns 1; 0 if too many wait."""
    return ("EVAL", _NOTE, 1, keys.FINISHED, messages.encode(record))


_PARK = """
local function park(reply_to, reply)
  local late = reply_to .. ':late'
  redis.call('XADD', late, '*', 'm', reply)
  if redis.call('XLEN', late) == 1 then redis.call('PEXPIRE', late, 60000) end
end
"""
_END_FIRST = (
    f"""
local parcels, ids, freed = {{}}, {{}}, {{}}
local crowded = redis.call('XLEN', finished) >= {RECORDS_MAX}
"""
    + _PARK
    + """
local function freed_again(kind, grant)
  if not ids[kind] then ids[kind] = redis.call('HGET', grants, kind .. ':id') or '' end
  if ids[kind] ~= grant then return false end
  freed[kind] = (freed[kind] or 0) + 1
  return true
end
"""
)
_END_EACH = """
if grant == '' and told ~= '' then redis.call('XADD', events, '*', 'm', told) end
local owned = entry_id == '' or redis.call('XDEL', stream, entry_id) == 1
if reply ~= '' and (owned or has_run == '1') then
  if not redis.call('XADD', reply_to, 'NOMKSTREAM', '*', 'm', reply) then park(reply_to, reply) end
end
if not owned then return 0 end
if grant ~= '' and not (kind ~= '' and freed_again(kind, grant)) then
  redis.call('XADD', events, '*', 'm', told)
end
local kept = reply == '' or not crowded
if kept then redis.call('XADD', finished, '*', 'm', record) end
parcels[#parcels + 1] = parcel
"""
_END_LAST = """
for kind, count in pairs(freed) do redis.call('HINCRBY', grants, kind .. ':free', count) end
if #parcels > 0 then
  redis.call('UNLINK', unpack(parcels))
  redis.call('INCRBY', complete, #parcels)
end
"""

_END = Script(
    shared=("stream finished events complete grants", "has_run"),
    own=("reply_to parcel", "entry_id reply record told kind grant"),
    frees=True,
    first=_END_FIRST,
    each=_END_EACH + "return kept and 1 or 2",
    last=_END_LAST,
)

_END_COUNTED = Script(
    shared=("stream finished events complete grants", "has_run"),
    own=("reply_to parcel inflight", "entry_id reply record told kind grant call_id"),
    frees=True,
    first=_END_FIRST,
    each=_END_EACH + "redis.call('ZREM', inflight, call_id)\nreturn kept and 1 or 2",
    last=_END_LAST,
)


class Place(NamedTuple):
    """The place of a grant that a call came in."""

    grant: str
    #: The kind of sandbox whose next call may have it; "" while the call's own is removed.
    kind: str


_END_ONCE = (
    _FREES
    + """
local stream, finished, events, complete, reply_to, parcel, claim, due, bytes, inflight =
  unpack(KEYS)
local entry_id, reply, record, freed, call_id, digest, kept, has_run = unpack(ARGV)
"""
    + _FORGET_CLAIM
    + _PARK
    + """
if freed ~= '' then redis.call('XADD', events, '*', 'm', freed) end
local owned = entry_id == '' or redis.call('XDEL', stream, entry_id) == 1
if reply ~= '' and (owned or has_run == '1') then
  if not redis.call('XADD', reply_to, 'NOMKSTREAM', '*', 'm', reply) then park(reply_to, reply) end
end
if not owned then return 0 end
redis.call('XADD', finished, '*', 'm', record)
redis.call('UNLINK', parcel)
redis.call('ZREM', inflight, call_id)
redis.call('INCR', complete)
local held = redis.call('HMGET', claim, 'c', 'x', 't')
if held[1] ~= call_id then return 1 end
if kept == '' then
  forget()
  return 1
end
local total = tonumber(redis.call('GET', bytes) or '0') + #reply
if reply ~= '' and #reply <= tonumber(held[2]) and total <= tonumber(held[3]) then
  redis.call('HSET', claim, 's', 'done', 'a', reply)
  redis.call('HINCRBY', claim, 'z', #reply)
  redis.call('INCRBY', bytes, #reply)
else
  redis.call('HSET', claim, 's', 'none')
end
return 1
"""
)


def end(
    stream: str,
    entry_id: bytes,
    record: messages.Record,
    reply: messages.Reply | None,
    reply_to: str,
    *,
    told: messages.ExecutionFinished | messages.PlaceKept | None = None,
    place: Place | None = None,
    once: str = "",
    counted: bool = False,
    has_run: bool = False,
) -> Command:
    """Whoever owns a call's entry: end the call, with its reply (if one waits) and its record.

    `told` is told to the scheduler in the same step, whoever owns the entry. If the call came by a
    grant, only by who owns it, and not if its place is free for the next call again. Returns 1; or
    `UNRECORDED`, if so many records wait that this one, of a sync call, was dropped; or 0, with
    nothing else done, if the entry was no longer there: somebody else owns it, or it is lost. Of a
    call that `has_run` the reply is sent even so: nobody else may have one. A reply stream that has
    expired is not made again, as its api replica is gone; should it only be lost, its replica finds
    what came meanwhile when it makes it anew (`keep_reply_stream`). `once` and `counted` are the
    head's: what its claim keeps is written in the same step (such a call comes by no grant), and it
    does not count as under way any more.
    """
    sent = messages.encode(reply) if reply and reply_to else b""
    said = messages.encode(told) if told else b""
    names = (stream, keys.FINISHED, keys.EVENTS, keys.COMPLETE)
    own_keys = (keys.reply(reply_to), keys.parcel(record.call_id))
    if once:
        claim = (keys.claim(once), keys.CLAIMS_DUE, keys.CLAIMS_BYTES)
        claimed = (*names, *own_keys, *claim, keys.inflight(record.app))
        kept = "" if _never_ran(record) else "keep"
        own = (entry_id, sent, messages.encode(record), said, record.call_id, once, kept)
        return ("EVAL", _END_ONCE, len(claimed), *claimed, *own, int(has_run))
    kind, grant = (place.kind, place.grant) if place else ("", "")
    rest = (entry_id, sent, messages.encode(record), said, kind, grant)
    shared = ((*names, keys.GRANTS), (int(has_run),))
    if not counted:
        return Step(_END, shared, (own_keys, rest))
    in_flight = (*own_keys, keys.inflight(record.app))
    return Step(_END_COUNTED, shared, (in_flight, (*rest, record.call_id)))


def _never_ran(record: messages.Record) -> bool:
    """Tell whether a call has ended before its function had begun, so that a retry may run it.

    Of a lost runner nobody knows; and what a defect has done, neither.
    """
    return (
        record.started_ms is None
        and record.status != "success"
        and record.code not in {"runner_lost", "internal"}
    )


_MOVE_BACK = (
    _FREES
    + """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then redis.call('XADD', KEYS[3], '*', 'm', ARGV[3]) end
local entry = {'h', ARGV[2]}
local parts = found[1][2]
for i = 1, #parts, 2 do
  if parts[i] == 'p' then entry[3], entry[4] = 'p', parts[i + 1] end
end
redis.call('XADD', KEYS[2], '*', unpack(entry))
return 1
"""
)


def move_back(
    runner_id: str,
    entry_id: bytes,
    head: messages.CallHead,
    freed: messages.ExecutionFinished | None = None,
) -> Command:
    """scheduler or draining runner: put a call from a runner's stream back among the waiting.

    `head` replaces the old one (its attempt may have grown). `freed` is told to the scheduler, who
    so reads it before the call. Returns 1; or 0, with nothing done, if it was gone.
    """
    names = (keys.runner(runner_id), keys.calls(head.mode), keys.EVENTS)
    told = messages.encode(freed) if freed else b""
    return ("EVAL", _MOVE_BACK, len(names), *names, entry_id, messages.encode(head), told)


_TRY_AGAIN = (
    _FREES
    + """
if ARGV[6] ~= '' then redis.call('XADD', KEYS[3], '*', 'm', ARGV[6]) end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
local parcel
local parts = found[1][2]
for i = 1, #parts, 2 do
  if parts[i] == 'p' then parcel = parts[i + 1] end
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[4])
if ARGV[5] == '0' then
  if parcel then redis.call('XADD', KEYS[4], '*', 'h', ARGV[3], 'p', parcel)
  else redis.call('XADD', KEYS[4], '*', 'h', ARGV[3]) end
  return 1
end
redis.call('HSET', KEYS[5], ARGV[2], ARGV[3])
if parcel then redis.call('HSET', KEYS[5], ARGV[2] .. ':p', parcel) end
redis.call('ZADD', KEYS[6], ARGV[5], ARGV[2])
return 1
"""
)


def try_again(
    stream: str,
    entry_id: bytes,
    head: messages.CallHead,
    record: messages.Record,
    *,
    due_ms: int = 0,
    freed: messages.ExecutionFinished | None = None,
) -> Command:
    """runner or scheduler: an attempt has failed; let the next one, `head`, wait.

    Until `due_ms` beside the streams, from where `return_due_retries` brings it back; 0: among the
    waiting at once. `freed` is told to the scheduler in the same step, whoever owns the entry, and
    so before it can read the call. Returns 1; or 0, with nothing else done, if the entry was gone.
    """
    names = (
        stream,
        keys.FINISHED,
        keys.EVENTS,
        keys.calls(head.mode),
        keys.RETRIES,
        keys.RETRIES_DUE,
    )
    told = messages.encode(freed) if freed else b""
    rest = (entry_id, head.call_id, messages.encode(head), messages.encode(record), due_ms, told)
    return ("EVAL", _TRY_AGAIN, len(names), *names, *rest)


_BURY = (
    _FREES
    + """
if ARGV[3] ~= '' then redis.call('XADD', KEYS[3], '*', 'm', ARGV[3]) end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
local entry = {'m', ARGV[2]}
local parts = found[1][2]
for i = 1, #parts, 2 do
  if parts[i] == 'h' or parts[i] == 'p' then
    entry[#entry + 1], entry[#entry + 2] = parts[i], parts[i + 1]
  end
end
redis.call('XADD', KEYS[2], '*', unpack(entry))
redis.call('INCR', KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[4])
return 1
"""
)


def bury(
    stream: str,
    entry_id: bytes,
    record: messages.Record,
    *,
    freed: messages.ExecutionFinished | None = None,
) -> Command:
    """Whoever owns an async call's entry: end the call for good, and keep it as a dead letter.

    Head and parcel go along with the record; a parcel under a key of its own stays there until the
    recorder has kept it. `freed`, and what is returned, as in `end`.
    """
    names = (stream, keys.FINISHED, keys.EVENTS, keys.COMPLETE, keys.inflight(record.app))
    told = messages.encode(freed) if freed else b""
    rest = (entry_id, messages.encode(record), told, record.call_id)
    return ("EVAL", _BURY, len(names), *names, *rest)


_REDRIVE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 'done' end
if (redis.call('HGET', KEYS[2], ARGV[1]) or '0') ~= ARGV[2] then return 'stale' end
if redis.call('XLEN', KEYS[3]) >= tonumber(ARGV[3]) then return 'full' end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[4])
redis.call('XADD', KEYS[4], '*', 'm', ARGV[5])
if #ARGV[7] > tonumber(ARGV[8]) then
  redis.call('SET', KEYS[5], ARGV[7])
  return redis.call('XADD', KEYS[3], '*', 'h', ARGV[6])
end
return redis.call('XADD', KEYS[3], '*', 'h', ARGV[6], 'p', ARGV[7])
"""

DONE = b"done"
#: How long it is known that a call was made of a dead letter, in milliseconds: until the letter
#: says so, be it after a long absence of MySQL; and from then on, for those who had read it before.
REDRIVEN_KEPT_MS, REDRIVEN_NOTED_KEPT_MS = 366 * 24 * 3600 * 1000, 24 * 3600 * 1000


def redrive(
    head: messages.CallHead,
    parcel: messages.Parcel,
    record: messages.Record,
    *,
    catalog_version: str,
    queue_max: int,
) -> Command:
    """api: accept the call that is made of a dead letter, once.

    Returns the entry id; `DONE`, if that has been done; or `STALE` or `FULL`, with nothing done.
    """
    names = (
        keys.redriven(head.call_id),
        keys.CATALOG_VERSIONS,
        keys.calls(head.mode),
        keys.FINISHED,
        keys.parcel(head.call_id),
    )
    limits = (queue_max, REDRIVEN_KEPT_MS)
    sent = (messages.encode(record), messages.encode(head), messages.encode(parcel))
    rest = (head.app, catalog_version, *limits, *sent, PARCEL_INLINE_MAX_BYTES)
    return ("EVAL", _REDRIVE, len(names), *names, *rest)


def redrive_noted(call_id: str) -> Command:
    """api: let go, after a while, of what is known of a call that a dead letter now names."""
    return ("PEXPIRE", keys.redriven(call_id), REDRIVEN_NOTED_KEPT_MS)


def reply_part(reply_to: str, part: messages.ReplyPart) -> Command:
    """runner: send a part of a streamed answer; a stream that has expired is not made again."""
    return ("XADD", keys.reply(reply_to), "NOMKSTREAM", "*", "m", messages.encode(part))


_REPLY_LOST = Script(
    shared=("", ""),
    own=("replies", "reply"),
    frees=True,
    each="""
return redis.call('XADD', replies, 'NOMKSTREAM', '*', 'm', reply)
""",
)


def reply_lost(reply_to: str, reply: messages.Reply) -> Step:
    """scheduler: answer a call whose entry is lost; also when Redis is out of memory."""
    return Step(_REPLY_LOST, ((), ()), ((keys.reply(reply_to),), (messages.encode(reply),)))


def more(runner_id: str, more: messages.More) -> Command:
    """api: let a runner go on with a streamed answer."""
    raw = messages.encode(more)
    return ("XADD", keys.runner(runner_id), "NOMKSTREAM", "*", "k", "more", "m", raw)


_KEEP_REPLY_STREAM = """
local made = 0
if redis.call('EXISTS', KEYS[1]) == 0 then
  if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1])
  else
    redis.call('XADD', KEYS[1], '*', 'm', '')
    redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
  end
  made = 1
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return made
"""


def keep_reply_stream(api_id: str, ttl_ms: int) -> Command:
    """api: make its reply stream, or keep it for another `ttl_ms`. Returns 1 if it was not there.

    Replies go only into a stream that exists, so those of a dead replica are gone soon. Those that
    came while it was not there are in it then.
    """
    names = (keys.reply(api_id), keys.late(api_id))
    return ("EVAL", _KEEP_REPLY_STREAM, len(names), *names, ttl_ms)


_RESERVE_TASK = (
    _FREES
    + """
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 16)) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local readable, head = pcall(cmsgpack.unpack, fields.h)
  if readable and type(head) == 'table' and type(head[1]) == 'string' then
    redis.call('XDEL', KEYS[1], entry[1])
    redis.call('HSET', KEYS[2], head[1], fields.h)
    if fields.p then redis.call('HSET', KEYS[2], head[1] .. ':p', fields.p) end
    redis.call('ZADD', KEYS[3], ARGV[1], head[1])
    return {fields.h, fields.p or false}
  end
end
return false
"""
)


def reserve_task(due_ms: int) -> Command:
    """api: move the call that has waited longest to the reserved ones, until `due_ms`.

    Returns its head and its parcel (None if that is under its own key); None if no call waits.
    An unreadable entry is passed over: the scheduler sets it aside.
    """
    names = (keys.CALLS_ASYNC, keys.TASKS_RESERVED, keys.TASKS_DUE)
    return ("EVAL", _RESERVE_TASK, len(names), *names, due_ms)


_RETURN_DUE = (
    _FREES
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do
  local head = redis.call('HGET', KEYS[2], id)
  local parcel = redis.call('HGET', KEYS[2], id .. ':p')
  redis.call('HDEL', KEYS[2], id, id .. ':p')
  redis.call('ZREM', KEYS[3], id)
  if head and parcel then redis.call('XADD', KEYS[1], '*', 'h', head, 'p', parcel)
  elseif head then redis.call('XADD', KEYS[1], '*', 'h', head) end
end
return #due
"""
)


def return_due_tasks(now_ms: int, at_most: int) -> Command:
    """api: put reserved calls whose time is over back among the waiting. Returns how many."""
    names = (keys.CALLS_ASYNC, keys.TASKS_RESERVED, keys.TASKS_DUE)
    return ("EVAL", _RETURN_DUE, len(names), *names, now_ms, at_most)


def return_due_retries(now_ms: int, at_most: int) -> Command:
    """api: put calls whose next attempt is due back among the waiting. Returns how many."""
    names = (keys.CALLS_ASYNC, keys.RETRIES, keys.RETRIES_DUE)
    return ("EVAL", _RETURN_DUE, len(names), *names, now_ms, at_most)


_END_TASK = (
    _FREES
    + """
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
local head = redis.call('HGET', KEYS[1], ARGV[1])
local parcel = redis.call('HGET', KEYS[1], ARGV[1] .. ':p')
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ':p')
if ARGV[4] ~= '' then
  redis.call('XADD', KEYS[3], '*', 'm', ARGV[2])
  redis.call('HSET', KEYS[6], ARGV[1], ARGV[4])
  if parcel then redis.call('HSET', KEYS[6], ARGV[1] .. ':p', parcel) end
  redis.call('ZADD', KEYS[7], ARGV[5], ARGV[1])
  return 1
end
local entry = {'m', ARGV[2]}
if ARGV[3] == '1' then
  entry[3], entry[4] = 'h', head
  if parcel then entry[5], entry[6] = 'p', parcel end
else
  redis.call('UNLINK', KEYS[4])
end
redis.call('XADD', KEYS[3], '*', unpack(entry))
redis.call('INCR', KEYS[5])
redis.call('ZREM', KEYS[8], ARGV[1])
return 1
"""
)


def end_task(
    record: messages.Record,
    *,
    dead: bool = False,
    again: messages.CallHead | None = None,
    due_ms: int = 0,
) -> Command:
    """api: end a reserved call, as its outside worker says. Returns 1; 0 if it is not reserved.

    `dead`: keep it as a dead letter, as `bury` does. `again`: it has not ended, let its next
    attempt wait until `due_ms`, as `try_again` does.
    """
    call_id = record.call_id
    names = (
        keys.TASKS_RESERVED,
        keys.TASKS_DUE,
        keys.FINISHED,
        keys.parcel(call_id),
        keys.COMPLETE,
        keys.RETRIES,
        keys.RETRIES_DUE,
        keys.inflight(record.app),
    )
    head = messages.encode(again) if again else b""
    rest = (call_id, messages.encode(record), int(dead), head, due_ms)
    return ("EVAL", _END_TASK, len(names), *names, *rest)


_ACKNOWLEDGE = (
    _FREES
    + """
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
return redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
"""
)


def acknowledge(
    stream: str, group: str, ids: Sequence[bytes], parcels: Sequence[str] = ()
) -> Command:
    """Take entries out of a stream, which its group has dealt with. Returns how many were there.

    `parcels` are keys that go with them. A script, because a Redis out of memory refuses whatever
    is in a transaction.
    """
    return ("EVAL", _ACKNOWLEDGE, 1 + len(parcels), stream, *parcels, group, *ids)


_DROP_DEAD_CONSUMERS = """
local dropped = 0
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local info = {}
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  if info.pending == 0 and info.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
    dropped = dropped + 1
  end
end
return dropped
"""


def drop_dead_consumers(stream: str, group: str, idle_ms: int) -> Command:
    """Forget consumers idle for longer than `idle_ms` who hold nothing. Returns how many.

    One step, because deleting a consumer that took an entry meanwhile would lose the entry.
    """
    return ("EVAL", _DROP_DEAD_CONSUMERS, 1, stream, group, idle_ms)


_MOVE_BACK_UNREAD = (
    _FREES
    + """
local function parts(id) return string.match(id, '^(%d+)-(%d+)$') end
local ms, counter = parts(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local of = {}
  for i = 1, #group, 2 do of[group[i]] = group[i + 1] end
  local read_ms, read_counter = parts(of['last-delivered-id'])
  local newer = tonumber(read_ms) - tonumber(ms)
  if newer == 0 then newer = tonumber(read_counter) - tonumber(counter) end
  if newer >= 0 then return 'read' end
end
"""
    + _MOVE_BACK.removeprefix(_FREES)
)

READ = b"read"


def move_back_unread(runner_id: str, entry_id: bytes, head: messages.CallHead) -> Command:
    """scheduler: put a call back among the waiting unless its runner may have started it.

    Returns 1; 0 if it was gone; `READ`, with nothing done, if it was delivered to the runner. One
    step, because a runner that was thought lost may read at any moment.
    """
    names = (keys.runner(runner_id), keys.calls(head.mode))
    return ("EVAL", _MOVE_BACK_UNREAD, len(names), *names, entry_id, messages.encode(head), b"")


_DROP_RUNNER = """
if redis.call('XLEN', KEYS[1]) > 0 then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""


def drop_runner(runner_id: str) -> Command:
    """scheduler: forget a runner whose stream is empty. Returns 1; or 0, if something is in it.

    Stream and hash entry go together: a runner's stream that holds calls always has a hash entry,
    by which a new reign finds it.
    """
    names = (keys.runner(runner_id), keys.RUNNERS)
    return ("EVAL", _DROP_RUNNER, len(names), *names, runner_id)


#: About how many events are kept: all runners' heartbeats of some minutes.
_EVENTS_MAX = 10_000

_TELL = (
    _FREES
    + """
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'm', ARGV[1])
if ARGV[3] == '' then return 1 end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
for i = 3, #ARGV do
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1 then return 1 end
end
return 0
"""
)


def tell(event: messages.Event) -> Command:
    """runner: tell the scheduler something; a heartbeat is also kept for whoever looks.

    Returns 1; to a heartbeat only if its runner is to drain, by its id or its name, else 0. Works
    in a Redis out of memory too: runners that fell silent would be thought lost.
    """
    called: tuple[str, ...] = ("",)
    if isinstance(event, messages.Heartbeat):
        called = (event.runner_id, event.name)
    names = (keys.EVENTS, keys.RUNNERS, keys.DRAINS)
    return ("EVAL", _TELL, len(names), *names, messages.encode(event), _EVENTS_MAX, *called)


_WANT = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '0') ~= ARGV[2] then return 'stale' end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return 1
"""


def want(app: str, catalog_version: str, changes: Mapping[bytes, bytes]) -> Command:
    """api: change an app's part of the routes whose sandboxes are kept ready.

    `changes` has `messages.Wanted` by field of `keys.WANTED`; an empty one is removed. Returns 1;
    or `STALE`, with nothing done, if the app's catalog has another version than `catalog_version`.
    """
    names = (keys.CATALOG_VERSIONS, keys.WANTED)
    flat = [part for pair in changes.items() for part in pair]
    return ("EVAL", _WANT, len(names), *names, app, catalog_version, *flat)
