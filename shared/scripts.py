"""How does a call move between streams? Atomic steps in Redis, each one Lua script.

A call's entry is its ownership token: it is in one stream at a time and whoever deletes it owns
it. Each script here says what it needs and returns; the callers decide. Sent with EVAL (Redis
caches the text), so that a restarted Redis needs no reloading.
"""

from shared import keys, messages

#: Above this a parcel travels beside its entry, under a key of its own, so that the scheduler
#: never reads large bodies.
PARCEL_INLINE_MAX_BYTES = 32 * 1024

Command = tuple[str | bytes | int, ...]

STALE, FULL = b"stale", b"full"

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


_ASSIGN = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 'lost' end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 'gone' end
redis.call('XDEL', KEYS[1], ARGV[1])
local entry = {'k', 'assign', 'a', ARGV[2]}
for _, part in ipairs(found[1][2]) do entry[#entry + 1] = part end
return redis.call('XADD', KEYS[2], '*', unpack(entry))
"""


def assign(
    source: str, entry_id: bytes, runner_id: str, assignment: messages.Assignment
) -> Command:
    """scheduler: move a waiting call to a runner's stream.

    Returns the new entry id; b"gone" if somebody else took the call (an outside worker, or a
    cancel); b"lost" if the runner's stream is not there any more (the call stays where it was).
    """
    names = (source, keys.runner(runner_id))
    return ("EVAL", _ASSIGN, len(names), *names, entry_id, messages.encode(assignment))


_END = """
if ARGV[1] ~= '' and redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '' then redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 'm', ARGV[2]) end
redis.call('XADD', KEYS[3], '*', 'm', ARGV[3])
redis.call('UNLINK', KEYS[4])
redis.call('INCR', KEYS[5])
return 1
"""


def end(
    stream: str,
    entry_id: bytes,
    record: messages.Record,
    reply: messages.Reply | None,
    reply_to: str,
) -> Command:
    """Whoever owns a call's entry: end the call, with its reply (if one waits) and its record.

    Returns 1; or 0, with nothing done, if the entry was no longer there: somebody else owns it.
    A reply stream that has expired is not made again: its api replica is gone.
    """
    names = (
        stream,
        keys.reply(reply_to),
        keys.FINISHED,
        keys.parcel(record.call_id),
        keys.COMPLETE,
    )
    sent = messages.encode(reply) if reply and reply_to else b""
    return ("EVAL", _END, len(names), *names, entry_id, sent, messages.encode(record))


_MOVE_BACK = """
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


def move_back(runner_id: str, entry_id: bytes, head: messages.CallHead) -> Command:
    """scheduler or draining runner: put a call from a runner's stream back among the waiting.

    `head` replaces the old one (its attempt may have grown). Returns 1, or 0 if it was gone.
    """
    names = (keys.runner(runner_id), keys.calls(head.mode))
    return ("EVAL", _MOVE_BACK, len(names), *names, entry_id, messages.encode(head))
