"""How does a call move between streams? Atomic steps in Redis, each one Lua script.

A call's entry is its ownership token: it is in one stream at a time and whoever deletes it owns
it. Each script here says what it needs and returns; the callers decide. What a call needs is a
`Step`, many of which go as one; the rest are plain EVALs.
"""

import hashlib
from collections.abc import Iterator, Mapping
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
local id
if #parcel > tonumber(inline_max) then
  redis.call('SET', apart, parcel)
  if ttl_ms ~= '0' then redis.call('PEXPIRE', apart, ttl_ms) end
  id = redis.call('XADD', calls, '*', 'h', head)
else
  id = redis.call('XADD', calls, '*', 'h', head, 'p', parcel)
end
waiting = waiting + 1
return id
"""
_WAITING = """
local waiting, versions = redis.call('XLEN', calls), {}
"""

_ENQUEUE = Script(
    shared=("catalog calls finished", "queue_max inline_max"),
    own=("apart", "app version head parcel record ttl_ms"),
    first=_WAITING,
    each=_REFUSED + _ADDED,
)

#: The same for an app with limits. How fast it is called is one number, the time at which its
#: tokens are all there again (the generic cell rate algorithm): with 10 calls a second and a burst
#: of 3, that may be 0.3 s away at most, and each call moves it by 0.1 s.
_ENQUEUE_LIMITED = Script(
    shared=("catalog calls finished", "queue_max inline_max"),
    own=(
        "apart inflight pace",
        "app version head parcel record ttl_ms call_id until_ms max_inflight period_us burst_us",
    ),
    first=_WAITING
    + """
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
""",
    each=_REFUSED
    + """
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
    + _ADDED,
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
    microseconds until there is a token. `catalog_version` is the version of the app's catalog that
    the route was read at; `parcel_ttl_ms` 0 keeps a separate parcel until the call ends (async).
    """
    own = (
        head.app,
        catalog_version,
        messages.encode(head),
        messages.encode(parcel),
        messages.encode(record) if record else b"",
        parcel_ttl_ms,
    )
    names = (keys.CATALOG_VERSIONS, keys.calls(head.mode), keys.FINISHED)
    shared = (names, (queue_max, PARCEL_INLINE_MAX_BYTES))
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


_END_EACH = """
if freed ~= '' then redis.call('XADD', events, '*', 'm', freed) end
if entry_id ~= '' and redis.call('XDEL', stream, entry_id) == 0 then return 0 end
if reply ~= '' then redis.call('XADD', reply_to, 'NOMKSTREAM', '*', 'm', reply) end
local kept = reply == '' or not crowded
if kept then redis.call('XADD', finished, '*', 'm', record) end
parcels[#parcels + 1] = parcel
"""
_END_FIRST = f"""
local parcels, crowded = {{}}, redis.call('XLEN', finished) >= {RECORDS_MAX}
"""
_END_LAST = """
if #parcels > 0 then
  redis.call('UNLINK', unpack(parcels))
  redis.call('INCRBY', complete, #parcels)
end
"""

_END = Script(
    shared=("stream finished events complete", ""),
    own=("reply_to parcel", "entry_id reply record freed"),
    frees=True,
    first=_END_FIRST,
    each=_END_EACH + "return kept and 1 or 2",
    last=_END_LAST,
)

_END_COUNTED = Script(
    shared=("stream finished events complete", ""),
    own=("reply_to parcel inflight", "entry_id reply record freed call_id"),
    frees=True,
    first=_END_FIRST,
    each=_END_EACH + "redis.call('ZREM', inflight, call_id)\nreturn kept and 1 or 2",
    last=_END_LAST,
)


def end(
    stream: str,
    entry_id: bytes,
    record: messages.Record,
    reply: messages.Reply | None,
    reply_to: str,
    *,
    freed: messages.ExecutionFinished | None = None,
    counted: bool = False,
) -> Step:
    """Whoever owns a call's entry: end the call, with its reply (if one waits) and its record.

    `counted`: as its head says.
    `freed` is told to the scheduler in the same step, whoever owns the entry. Returns 1; or
    `UNRECORDED`, if so many records wait that this one, of a sync call, was dropped; or 0, with
    nothing else done, if the entry was no longer there: somebody else owns it. A reply stream
    that has expired is not made again: its api replica is gone.
    """
    sent = messages.encode(reply) if reply and reply_to else b""
    told = messages.encode(freed) if freed else b""
    shared = ((stream, keys.FINISHED, keys.EVENTS, keys.COMPLETE), ())
    own_keys: tuple[str, ...] = (keys.reply(reply_to), keys.parcel(record.call_id))
    own = (entry_id, sent, messages.encode(record), told)
    if not counted:
        return Step(_END, shared, (own_keys, own))
    own_keys = (*own_keys, keys.inflight(record.app))
    return Step(_END_COUNTED, shared, (own_keys, (*own, record.call_id)))


_MOVE_BACK = (
    _FREES
    + """
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[1])
local entry = {'h', ARGV[2]}
local parts = found[1][2]
for i = 1, #parts, 2 do
  if parts[i] == 'p' then entry[3], entry[4] = 'p', parts[i + 1] end
end
redis.call('XADD', KEYS[2], '*', unpack(entry))
return 1
"""
)


def move_back(runner_id: str, entry_id: bytes, head: messages.CallHead) -> Command:
    """scheduler or draining runner: put a call from a runner's stream back among the waiting.

    `head` replaces the old one (its attempt may have grown). Returns 1, or 0 if it was gone.
    """
    names = (keys.runner(runner_id), keys.calls(head.mode))
    return ("EVAL", _MOVE_BACK, len(names), *names, entry_id, messages.encode(head))


def reply_part(reply_to: str, part: messages.StreamHead | messages.StreamChunk) -> Command:
    """runner: send a part of a streamed answer; a stream that has expired is not made again."""
    return ("XADD", keys.reply(reply_to), "NOMKSTREAM", "*", "m", messages.encode(part))


def more(runner_id: str, more: messages.More) -> Command:
    """api: let a runner go on with a streamed answer."""
    raw = messages.encode(more)
    return ("XADD", keys.runner(runner_id), "NOMKSTREAM", "*", "k", "more", "m", raw)


_KEEP_REPLY_STREAM = """
local made = 0
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XADD', KEYS[1], '*', 'm', '')
  redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
  made = 1
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return made
"""


def keep_reply_stream(api_id: str, ttl_ms: int) -> Command:
    """api: make its reply stream, or keep it for another `ttl_ms`. Returns 1 if it was not there.

    Replies go only into a stream that exists, so those of a dead replica go nowhere.
    """
    return ("EVAL", _KEEP_REPLY_STREAM, 1, keys.reply(api_id), ttl_ms)


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


_RETURN_DUE_TASKS = (
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
    return ("EVAL", _RETURN_DUE_TASKS, len(names), *names, now_ms, at_most)


_END_TASK = (
    _FREES
    + """
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ':p')
redis.call('XADD', KEYS[3], '*', 'm', ARGV[2])
redis.call('UNLINK', KEYS[4])
redis.call('INCR', KEYS[5])
redis.call('ZREM', KEYS[6], ARGV[1])
return 1
"""
)


def end_task(record: messages.Record) -> Command:
    """api: end a reserved call, as its outside worker says. Returns 1; 0 if it is not reserved."""
    call_id = record.call_id
    names = (
        keys.TASKS_RESERVED,
        keys.TASKS_DUE,
        keys.FINISHED,
        keys.parcel(call_id),
        keys.COMPLETE,
        keys.inflight(record.app),
    )
    return ("EVAL", _END_TASK, len(names), *names, call_id, messages.encode(record))


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
    return ("EVAL", _MOVE_BACK_UNREAD, len(names), *names, entry_id, messages.encode(head))


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
if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], ARGV[3], ARGV[1]) end
return 1
"""
)


def tell(event: messages.Event) -> Command:
    """runner: tell the scheduler something; a heartbeat is also kept for whoever looks.

    Works in a Redis out of memory too: runners that fell silent would be thought lost.
    """
    beating = event.runner_id if isinstance(event, messages.Heartbeat) else ""
    raw = messages.encode(event)
    return ("EVAL", _TELL, 2, keys.EVENTS, keys.RUNNERS, raw, _EVENTS_MAX, beating)


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
