"""How does a call move between streams? Atomic steps in Redis, each one Lua script.

A call's entry is its ownership token: it is in one stream at a time and whoever deletes it owns
it. Each script here says what it needs and returns; the callers decide. Sent with EVAL (Redis
caches the text), so that a restarted Redis needs no reloading.
"""

from collections.abc import Mapping

from shared import keys, messages

#: Above this a parcel travels beside its entry, under a key of its own, so that the scheduler
#: never reads large bodies.
PARCEL_INLINE_MAX_BYTES = 32 * 1024

Command = tuple[str | bytes | int, ...]

STALE, FULL = b"stale", b"full"
#: A script that begins so also works when Redis is out of memory: it takes away more than it
#: adds, and without it a full Redis could never be emptied.
_FREES = "#!lua flags=allow-oom"

GONE, LOST, FENCED = b"gone", b"lost", b"fenced"

_ENQUEUE = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '0') ~= ARGV[2] then return 'stale' end
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[3]) then return 'full' end
if ARGV[6] ~= '' then redis.call('XADD', KEYS[4], '*', 'm', ARGV[6]) end
if #ARGV[5] > tonumber(ARGV[7]) then
  redis.call('SET', KEYS[3], ARGV[5])
  if ARGV[8] ~= '0' then redis.call('PEXPIRE', KEYS[3], ARGV[8]) end
  return redis.call('XADD', KEYS[2], '*', 'h', ARGV[4])
end
return redis.call('XADD', KEYS[2], '*', 'h', ARGV[4], 'p', ARGV[5])
"""


def enqueue(
    head: messages.CallHead,
    parcel: messages.Parcel,
    *,
    catalog_version: str,
    queue_max: int,
    record: messages.Record | None,
    parcel_ttl_ms: int,
) -> Command:
    """api: accept a call. Returns the entry id, or `STALE`, or `FULL`, with nothing done.

    `catalog_version` is the version of the app's catalog that the route was read at;
    `parcel_ttl_ms` 0 keeps a separate parcel until the call ends (async).
    """
    arguments = (
        head.app,
        catalog_version,
        queue_max,
        messages.encode(head),
        messages.encode(parcel),
        messages.encode(record) if record else b"",
        PARCEL_INLINE_MAX_BYTES,
        parcel_ttl_ms,
    )
    names = (keys.CATALOG_VERSIONS, keys.calls(head.mode), keys.parcel(head.call_id), keys.FINISHED)
    return ("EVAL", _ENQUEUE, len(names), *names, *arguments)


_ASSIGN = (
    _FREES
    + """
if tonumber(redis.call('GET', KEYS[3]) or '0') > tonumber(ARGV[3]) then return 'fenced' end
if redis.call('EXISTS', KEYS[2]) == 0 then return 'lost' end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 'gone' end
redis.call('XDEL', KEYS[1], ARGV[1])
local entry = {'k', 'assign', 'a', ARGV[2]}
for _, part in ipairs(found[1][2]) do entry[#entry + 1] = part end
return redis.call('XADD', KEYS[2], '*', unpack(entry))
"""
)


def assign(
    source: str, entry_id: bytes, runner_id: str, assignment: messages.Assignment
) -> Command:
    """scheduler: move a waiting call to a runner's stream.

    Returns the new entry id; `GONE` if somebody else took the call (an outside worker, or a
    cancel); `LOST` if the runner's stream is not there any more (the call stays where it was);
    `FENCED` if a later reign has begun, so that nothing of this one is performed after it.
    """
    names = (source, keys.runner(runner_id), keys.EPOCH)
    arguments = (entry_id, messages.encode(assignment), assignment.epoch)
    return ("EVAL", _ASSIGN, len(names), *names, *arguments)


_END = (
    _FREES
    + """
if ARGV[4] ~= '' then redis.call('XADD', KEYS[6], '*', 'm', ARGV[4]) end
if ARGV[1] ~= '' and redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '' then redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 'm', ARGV[2]) end
redis.call('XADD', KEYS[3], '*', 'm', ARGV[3])
redis.call('UNLINK', KEYS[4])
redis.call('INCR', KEYS[5])
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
    freed: messages.ExecutionFinished | None = None,
) -> Command:
    """Whoever owns a call's entry: end the call, with its reply (if one waits) and its record.

    `freed` is told to the scheduler in the same step, whoever owns the entry. Returns 1; or 0,
    with nothing else done, if the entry was no longer there: somebody else owns it. A reply stream
    that has expired is not made again: its api replica is gone.
    """
    names = (
        stream,
        keys.reply(reply_to),
        keys.FINISHED,
        keys.parcel(record.call_id),
        keys.COMPLETE,
        keys.EVENTS,
    )
    sent = messages.encode(reply) if reply and reply_to else b""
    told = messages.encode(freed) if freed else b""
    return ("EVAL", _END, len(names), *names, entry_id, sent, messages.encode(record), told)


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


_RESERVE_TASK = """
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
