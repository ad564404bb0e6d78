"""The numbers of reigns, in a real Redis."""

import asyncio

from services.scheduler.lease import Lease
from shared import keys, streams


async def test_each_reign_has_a_greater_number(redis: streams.Redis) -> None:
    lease = Lease(redis, "s")
    first, second = await lease.begin_reign(), await lease.begin_reign()
    assert first < second
    assert await redis.get(keys.EPOCH) == b"%d" % second


async def test_a_reign_in_an_emptied_redis_has_a_greater_number_too(redis: streams.Redis) -> None:
    lease = Lease(redis, "s")
    before = await lease.begin_reign()
    await redis.flushall()
    await asyncio.sleep(0.002)
    assert await lease.begin_reign() > before


async def test_a_clock_that_goes_back_makes_no_number_smaller(redis: streams.Redis) -> None:
    await redis.set(keys.EPOCH, 2**50)
    assert await Lease(redis, "s").begin_reign() == 2**50 + 1
    assert await redis.get(keys.EPOCH) == b"%d" % (2**50 + 1)
