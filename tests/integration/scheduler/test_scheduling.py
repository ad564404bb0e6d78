"""The scheduler against a real Redis."""

import asyncio
from typing import Any

import pytest

from services.scheduler import ending
from shared import clock, keys, messages, scripts
from tests.conftest import eventually
from tests.integration.scheduler.conftest import Bench, FakeRunner


async def has(runner: FakeRunner, *call_ids: str) -> None:
    async def holds() -> bool:
        return set(call_ids) <= set(runner.got)

    await eventually(holds)


async def test_a_call_reaches_a_runner_whole_and_leaves_the_waiting(bench: Bench) -> None:
    await bench.scheduler()
    runner = await bench.runner()
    call_id = await bench.call()
    await has(runner, call_id)
    assert runner.got[call_id][2].epoch == int(await bench.redis.get(keys.EPOCH) or 0)
    assert await bench.redis.xlen(keys.CALLS_SYNC) == 0


async def test_capacity_limits_what_runs_at_once_and_returns(bench: Bench) -> None:
    await bench.scheduler()
    runner = await bench.runner(memory_mb=250)
    calls = [await bench.call("async") for _ in range(5)]
    done: list[str] = []
    while len(done) < len(calls):
        await has(runner, calls[len(done)])
        assert len(runner.got) <= 2
        done.append(calls[len(done)])
        await runner.finish(done[-1])
    assert await bench.redis.xlen(keys.CALLS_ASYNC) == 0


async def test_a_call_whose_wait_ends_gets_a_reply_and_a_record(bench: Bench) -> None:
    await bench.scheduler()
    runner = await bench.runner()
    await has(runner, await bench.call(memory_mb=900))
    call_id = await bench.call(memory_mb=512, wait_until_ms=clock.epoch_ms() + 300)
    failed = await bench.failed(call_id)
    assert failed.code == "capacity"
    assert failed.message == "needs 512 MB and 1 cpu; the largest free runner has 100 MB and 9 cpus"
    record = await bench.record_of(call_id)
    assert record is not None
    assert (record.status, record.code) == ("error", "capacity")
    assert await bench.redis.xlen(keys.CALLS_SYNC) == 0


async def test_a_full_backlog_answers_overloaded(bench: Bench) -> None:
    await bench.scheduler(sync_backlog_max=3)
    calls = [await bench.call() for _ in range(5)]
    for call_id in calls[3:]:
        assert (await bench.failed(call_id)).code == "overloaded"
    assert await bench.redis.xlen(keys.CALLS_SYNC) == 3


async def test_more_async_calls_than_references_all_run(bench: Bench) -> None:
    await bench.scheduler(async_backlog_max=8)
    calls = [await bench.call("async", app=f"app{n % 2}") for n in range(60)]
    runner = await bench.runner(cpus=1.0)
    for _ in calls:
        await eventually(lambda: asyncio.sleep(0, bool(runner.got)))
        await runner.finish(next(iter(runner.got)))
    assert await bench.redis.xlen(keys.CALLS_ASYNC) == 0
    assert await bench.redis.get(keys.COMPLETE) == b"60"


async def test_a_waiting_call_is_cancelled_with_a_record_and_no_reply(bench: Bench) -> None:
    await bench.scheduler()
    call_id = await bench.call()
    await bench.tell(messages.CancelCall(call_id))
    record = await eventually(lambda: bench.record_of(call_id))
    assert isinstance(record, messages.Record)
    assert (record.status, record.code) == ("cancelled", "cancelled")
    assert await bench.reply_to(call_id) is None
    assert await bench.redis.xlen(keys.CALLS_SYNC) == 0


async def test_the_cancel_of_an_assigned_call_reaches_its_runner(bench: Bench) -> None:
    await bench.scheduler()
    runner = await bench.runner()
    call_id = await bench.call()
    await has(runner, call_id)
    await bench.tell(messages.CancelCall(call_id))
    await eventually(lambda: asyncio.sleep(0, runner.cancelled == [call_id]))


async def test_quick_calls_go_past_the_scheduler_and_their_cancels_find_them(
    bench: Bench,
) -> None:
    await bench.scheduler()
    runner = await bench.runner()
    first, second = [await bench.call(sandbox_key="kind") for _ in range(2)]
    for call_id in (first, second):
        await has(runner, call_id)
        await runner.finish(call_id)
    await eventually(lambda: bench.redis.exists(keys.GRANTS))
    direct = await bench.call(sandbox_key="kind")
    await has(runner, direct)
    _, _, assignment = runner.got[direct]
    assert assignment.grant
    await bench.tell(messages.CancelCall(direct, runner.runner_id))
    await eventually(lambda: asyncio.sleep(0, runner.cancelled == [direct]))


async def test_places_left_to_quick_calls_are_given_to_who_waits(bench: Bench) -> None:
    await bench.scheduler()
    runner = await bench.runner(memory_mb=200)
    for call_id in [await bench.call(sandbox_key="kind") for _ in range(2)]:
        await has(runner, call_id)
        await runner.finish(call_id)
    await eventually(lambda: bench.redis.exists(keys.GRANTS))
    await has(runner, await bench.call(memory_mb=200))


async def test_a_call_taken_by_an_outside_worker_is_not_run(bench: Bench) -> None:
    await bench.scheduler()
    taken = await bench.call("async", memory_mb=1000)
    entries: Any = await bench.redis.xrange(keys.CALLS_ASYNC)
    await bench.redis.xdel(keys.CALLS_ASYNC, entries[0][0])
    runner = await bench.runner()
    other = await bench.call("async", memory_mb=1000)
    await has(runner, other)
    assert taken not in runner.got


async def test_a_lost_runners_calls_go_where_they_belong(bench: Bench) -> None:
    await bench.scheduler(runner_lost_s=1.5)
    lost = await bench.runner()
    started_sync, started_async = await bench.call(), await bench.call("async")
    worn_out = await bench.call("async", attempt=3)
    await has(lost, started_sync, started_async, worn_out)
    lost.reading = False
    await asyncio.sleep(0.05)  # its blocking read, the last one, ends after 20 ms
    unread_sync, unread_async = await bench.call(), await bench.call("async", attempt=2)
    await eventually(lambda: _length_is(bench, lost.stream, 5))
    await lost.die()
    runner = await bench.runner()
    await has(runner, unread_sync, unread_async, started_async)
    attempts = {call_id: got[1].attempt for call_id, got in runner.got.items()}
    assert attempts == {unread_sync: 1, unread_async: 2, started_async: 2}
    assert (await bench.failed(started_sync)).code == "runner_lost"
    record = await bench.record_of(worn_out)
    assert record is not None
    assert (record.status, record.code, record.runner_id) == (
        "error",
        "runner_lost",
        lost.runner_id,
    )
    assert await bench.dead() == [worn_out]
    waiting = await bench.record_of(started_async)
    assert waiting is not None
    assert (waiting.status, waiting.attempt, waiting.code) == ("queued", 2, "")
    (failure,) = waiting.failures
    assert (failure.number, failure.code, failure.runner_id) == (1, "runner_lost", lost.runner_id)
    await eventually(lambda: _is_forgotten(bench, lost))


async def test_a_lost_runners_calls_have_the_attempts_of_their_routes(bench: Bench) -> None:
    await bench.scheduler(runner_lost_s=1.5)
    lost = await bench.runner()
    once = await bench.call("async", tries=messages.Tries(max_attempts=1))
    more = await bench.call("async", attempt=4, tries=messages.Tries(max_attempts=5))
    own = await bench.call(
        "async", attempt=4, tries=messages.Tries(max_attempts=2, retries=3, own_failures=3)
    )
    await has(lost, once, more, own)
    await lost.die()
    runner = await bench.runner()
    await has(runner, more, own)
    assert {runner.got[call_id][1].attempt for call_id in (more, own)} == {5}
    await eventually(lambda: _is_forgotten(bench, lost))
    assert await bench.dead() == [once]


async def test_an_async_call_that_fits_nowhere_is_kept(bench: Bench) -> None:
    await bench.scheduler(unfit_async_s=1.0)
    await bench.runner(memory_mb=100)
    vast = await bench.call("async", memory_mb=5000)
    await eventually(lambda: _is_dead(bench, vast))
    record = await bench.record_of(vast)
    assert record is not None
    assert (record.status, record.code) == ("error", "capacity")
    assert await bench.redis.xlen(keys.CALLS_ASYNC) == 0


async def test_a_drained_runner_is_forgotten_and_its_calls_go_on(bench: Bench) -> None:
    await bench.scheduler()
    leaving = await bench.runner()
    leaving.reading = False
    await asyncio.sleep(0.05)  # its blocking read, the last one, ends after 20 ms
    call_id = await bench.call()
    await eventually(lambda: _length_is(bench, leaving.stream, 1))
    await leaving.die()
    runner = await bench.runner()
    await bench.tell(messages.RunnerGone(leaving.runner_id))
    await has(runner, call_id)
    await eventually(lambda: _is_forgotten(bench, leaving))


async def test_what_a_leaving_runner_had_only_read_goes_on(bench: Bench) -> None:
    """Redis had handed it out at the very end, and its callers got 502 `runner_lost`."""
    await bench.scheduler()
    leaving = await bench.runner()
    call_id = await bench.call()
    await has(leaving, call_id)
    await leaving.die()
    runner = await bench.runner()
    await bench.tell(messages.RunnerGone(leaving.runner_id, unstarted=True))
    await has(runner, call_id)
    await eventually(lambda: _is_forgotten(bench, leaving))


async def test_a_runner_without_its_stream_gets_it_all_once_it_is_there(bench: Bench) -> None:
    await bench.scheduler()
    runner = FakeRunner(bench.redis)
    await runner.beat()
    call_id = await bench.call()
    await bench.runner(engine_id="none", memory_mb=0)
    await eventually(lambda: _length_is(bench, keys.CALLS_SYNC, 1))
    bench.runners.append(runner)
    await runner.start()
    await has(runner, call_id)


async def test_the_caller_of_a_call_whose_waiting_stream_was_deleted_is_told(bench: Bench) -> None:
    await bench.scheduler()
    call_id = await bench.call()
    await asyncio.sleep(0.1)  # it has been read then, as it waits for a runner
    await bench.redis.delete(keys.CALLS_SYNC)
    runner = await bench.runner()
    assert (await bench.failed(call_id)).code == "call_lost"
    next_one = await bench.call()
    await has(runner, next_one)


async def test_the_caller_of_a_call_whose_runners_stream_was_emptied_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.scheduler.state.AUDIT_EVERY_S", 0.5)
    await bench.scheduler()
    runner = await bench.runner()
    runner.reading = False
    await asyncio.sleep(0.05)  # its blocking read, the last one, ends after 20 ms
    lost = await bench.call()
    await eventually(lambda: _length_is(bench, runner.stream, 1))
    await bench.redis.xtrim(runner.stream, maxlen=0, approximate=False)
    assert (await bench.failed(lost)).code == "call_lost"
    runner.reading = True
    next_one = await bench.call(memory_mb=1000)
    await has(runner, next_one)


async def test_events_that_are_trimmed_or_deleted_unread_cost_nobody_an_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.scheduler.state.AUDIT_EVERY_S", 0.5)
    await bench.scheduler()
    runner = await bench.runner(memory_mb=100)
    first = await bench.call()
    await has(runner, first)
    await bench.redis.delete(keys.EVENTS)
    entry_id, head, _ = runner.got.pop(first)
    record = messages.Record(first, "success", "sync", "app", "/p", "image", 1)
    reply = messages.Reply(first, messages.Answered(b"ok"))
    end = scripts.end(runner.stream, entry_id, record, reply, head.reply_to)
    await bench.redis.execute_command(*end)  # nobody tells that its capacity is free
    second = await bench.call()
    await has(runner, second)


async def test_a_full_redis_can_be_emptied_by_a_new_scheduler(bench: Bench) -> None:
    runner = await bench.runner()
    await runner.beat()
    call_id = await bench.call()
    await bench.redis.config_set("maxmemory", "1")
    try:
        await bench.scheduler()
        await has(runner, call_id)
    finally:
        await bench.redis.config_set("maxmemory", "0")


async def test_what_means_nothing_without_its_runner_is_not_set_aside(bench: Bench) -> None:
    await bench.scheduler(runner_lost_s=1.5)
    lost = await bench.runner()
    lost.reading = False
    await asyncio.sleep(0.05)  # its blocking read, the last one, ends after 20 ms
    await bench.redis.execute_command(*scripts.more(lost.runner_id, messages.More("c", 1)))
    await lost.die()
    await eventually(lambda: _is_forgotten(bench, lost))
    assert await bench.redis.xlen(keys.ASIDE) == 0


async def test_undecodable_entries_are_set_aside(bench: Bench) -> None:
    await bench.scheduler()
    for stream in (keys.CALLS_SYNC, keys.CALLS_ASYNC, keys.EVENTS):
        await bench.redis.xadd(stream, {"h": b"\xc1", "m": b"\xc1"})
    await eventually(lambda: _length_is(bench, keys.ASIDE, 3))
    await eventually(lambda: _length_is(bench, keys.CALLS_SYNC, 0))
    runner = await bench.runner()
    await has(runner, await bench.call(), await bench.call("async"))


async def test_kill_9_in_the_middle_loses_and_repeats_nothing(bench: Bench) -> None:
    process = await bench.process()
    runner = await bench.runner(memory_mb=500)
    calls = [await bench.call("async") for _ in range(40)]
    seen: list[str] = []
    for turn in range(3):
        if turn:
            process.kill()
            process = await bench.process()
        while len(seen) < (15, 30, 40)[turn]:
            await eventually(lambda: asyncio.sleep(0, bool(runner.got)), timeout_s=15)
            assert len(runner.got) <= 5
            seen.append(next(iter(runner.got)))
            await runner.finish(seen[-1])
    assert sorted(seen) == sorted(calls)
    assert await bench.redis.get(keys.COMPLETE) == b"40"


async def test_sigterm_ends_the_process_at_once_and_frees_the_lease(bench: Bench) -> None:
    process = await bench.process()
    await eventually(lambda: bench.redis.get(keys.LEASE))
    process.terminate()
    assert await asyncio.wait_for(process.wait(), timeout=3) == 0
    assert await bench.redis.get(keys.LEASE) is None


async def test_bad_settings_are_all_named_at_once(bench: Bench) -> None:
    process = await bench.process(SYNC_BACKLOG_MAX="0", RUNNER_LOST_S="soon")
    _, said = await process.communicate()
    assert process.returncode == 2
    assert said.count(b"\n") == 1
    assert b"SYNC_BACKLOG_MAX" in said
    assert b"RUNNER_LOST_S" in said


async def test_of_two_schedulers_one_decides_and_the_other_takes_over(bench: Bench) -> None:
    first = await bench.scheduler()
    runner = await bench.runner()
    await has(runner, await bench.call())
    await bench.scheduler()
    call_id = await bench.call()
    await has(runner, call_id)
    epoch = runner.got[call_id][2].epoch
    assert epoch == int(await bench.redis.get(keys.EPOCH) or 0)
    await bench.stop(first)
    began_s = clock.monotonic_s()
    call_id = await bench.call()
    await has(runner, call_id)
    assert runner.got[call_id][2].epoch > epoch
    assert clock.monotonic_s() - began_s < 1


async def test_a_scheduler_whose_lease_is_taken_stops_deciding(bench: Bench) -> None:
    await bench.scheduler()
    runner = await bench.runner()
    await has(runner, await bench.call())
    await bench.redis.set(keys.LEASE, "somebody-else", px=60_000)
    await asyncio.sleep(1.2)  # it renews each second
    call_id = await bench.call()
    await asyncio.sleep(0.3)  # nothing happens, which cannot be polled for
    assert call_id not in runner.got
    await bench.redis.delete(keys.LEASE)
    await has(runner, call_id)


async def test_an_assignment_of_an_earlier_reign_is_not_performed(bench: Bench) -> None:
    runner = await bench.runner()
    await bench.call()
    entries: Any = await bench.redis.xrange(keys.CALLS_SYNC)
    await bench.redis.set(keys.EPOCH, 7)
    late = scripts.assign(
        keys.CALLS_SYNC, entries[0][0], runner.runner_id, messages.Assignment(6, 0)
    )
    assert await bench.redis.execute_command(*late) == scripts.FENCED
    assert await bench.redis.xlen(keys.CALLS_SYNC) == 1


async def test_the_caller_of_a_lost_call_is_told_when_redis_is_full(bench: Bench) -> None:
    head = messages.CallHead("c1", "sync", "a", "/p", "i", 1, 1.0, 1, 1, 1, "api-1", 1)
    await bench.redis.config_set("maxmemory", "1")
    try:
        assert await bench.redis.execute_command(*ending.lost(head))
    finally:
        await bench.redis.config_set("maxmemory", "0")
    assert (await bench.failed("c1")).code == "call_lost"


async def test_broken_connections_are_survived(bench: Bench) -> None:
    await bench.scheduler()
    runner = await bench.runner()
    await has(runner, await bench.call())
    await bench.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    again = await bench.runner()
    calls = [await bench.call() for _ in range(4)]

    async def all_there() -> bool:
        return set(calls) <= set(again.got) | set(runner.got)

    await eventually(all_there, timeout_s=15)


async def test_events_are_trimmed(bench: Bench) -> None:
    await bench.scheduler()
    for _ in range(1000):
        await bench.tell(messages.CancelCall("nobody"))
    await eventually(lambda: _shorter_than(bench, keys.EVENTS, 300))


async def _length_is(bench: Bench, stream: str, length: int) -> bool:
    return bool(await bench.redis.xlen(stream) == length)


async def _shorter_than(bench: Bench, stream: str, length: int) -> bool:
    return bool(await bench.redis.xlen(stream) < length)


async def _is_dead(bench: Bench, call_id: str) -> bool:
    return await bench.dead() == [call_id]


async def _is_forgotten(bench: Bench, runner: FakeRunner) -> bool:
    in_hash = await bench.redis.hexists(keys.RUNNERS, runner.runner_id)
    return not in_hash and not await bench.redis.exists(runner.stream)
