"""Which scheduler is the active one? A key in Redis that expires unless its owner renews it.

The lease keeps two schedulers from deciding at once; that nothing of an earlier reign is performed
in a later one is ensured in Redis, by the reign's number (`scripts.assign`). All this works in a
Redis out of memory, too: only by scheduling does it ever become less full.
"""

from shared import clock, keys
from shared.errors import MillraceError
from shared.streams import Redis

LEASE_MS = 4000
RENEW_S = 1.0
#: How often a standby tries, in seconds.
TRY_S = 0.25

_ACQUIRE = """#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_BEGIN = """#!lua flags=allow-oom
redis.call('DEL', KEYS[2])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local number = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') + 1, now_ms)
redis.call('SET', KEYS[1], string.format('%.0f', number))
return number
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class LeaseLost(MillraceError):
    """Another scheduler is the active one now, or may be."""


class Lease:
    """One scheduler's claim to be the active one.

    `held` is True only while no other scheduler can hold the lease: it ends by this process' own
    clock, counted from before the last renewal was sent.
    """

    def __init__(self, redis: Redis, owner: str) -> None:
        """`owner` is the id of this process."""
        self._redis = redis
        self._owner = owner
        self._until_s = 0.0

    @property
    def held(self) -> bool:
        """Whether this process is the active scheduler at this moment."""
        return clock.monotonic_s() < self._until_s

    async def acquire(self) -> bool:
        """Try to get the lease, or to go on with it; says whether that worked."""
        asked_s = clock.monotonic_s()
        got = await self._redis.eval(_ACQUIRE, 1, keys.LEASE, self._owner, LEASE_MS)
        self._until_s = asked_s + LEASE_MS / 1000 if got else 0.0
        return bool(got)

    async def renew(self) -> None:
        """Hold on to the lease. Raises `LeaseLost`."""
        asked_s = clock.monotonic_s()
        if not await self._redis.eval(_RENEW, 1, keys.LEASE, self._owner, LEASE_MS):
            self._until_s = 0.0
            raise LeaseLost
        self._until_s = asked_s + LEASE_MS / 1000

    async def begin_reign(self) -> int:
        """Return the number of a new reign, greater than any before; no grant is left.

        It is the time, in epoch milliseconds: so it is greater even if Redis has lost the last
        one, which runners may know, and by which they would refuse whatever this reign assigns.
        """
        return int(await self._redis.eval(_BEGIN, 2, keys.EPOCH, keys.GRANTS))

    async def release(self) -> None:
        """Let a standby take over at once, if the lease is still ours."""
        self._until_s = 0.0
        await self._redis.eval(_RELEASE, 1, keys.LEASE, self._owner)
