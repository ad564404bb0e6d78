"""What is to be said of it all, when it is over? Facts are gathered, then judged."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import redis.asyncio as redis_asyncio

from shared import clock, keys, messages
from tests.chaos import seen as saw
from tests.chaos.stage import Stage
from tests.chaos.traffic import Traffic
from tests.e2e.client import Client
from tests.e2e.load import metric
from tests.e2e.platforms import Service

#: How long all that was accepted may take to end when nothing is harmed any more, in seconds. The
#: folder of a killed runner is removed by another one when it is two minutes old.
CALM_WITHIN_S = 180
#: Questions at one time.
_AT_ONCE = 16
#: Examples of each defect that are told.
EXAMPLES = 5
#: A process may have so many more files of a kind open than when it was young: connections that
#: were made again.
_MORE_FILES = 4
#: A runner may have so many more connections. Those to its engine that it needed at one time are
#: closed when they have been idle for 15 s; but it asks the engine about once a second, each time
#: by the one that has been idle longest, so that nearly twenty may stay.
_MORE_OF_A_RUNNER = 20
_CLOSED_WITHIN_S = 30

Defects = dict[str, list[str]]


def of_callers(traffic: Traffic) -> Defects:
    """Judge what callers saw."""
    found: Defects = {"mixed answers": [], "unanswered": [], "failures unexplained": []}
    for call, harmed in traffic.seen:
        told = f"{call.kind.name} {call.sent[:12]!r} after {call.took_s:.1f} s: {saw.outcome(call)}"
        if saw.mixed(call):
            found["mixed answers"].append(f"{told} {call.body[:60]!r}")
        if saw.unanswered(call):
            found["unanswered"].append(told)
        if why := saw.unexplained(call, harmed):
            found["failures unexplained"].append(f"{told}: {why}")
    return found


async def of_accepted(client: Client, traffic: Traffic) -> Defects:
    """Judge what became of each accepted call: its record, and the answer that was kept."""
    found: Defects = {"lost": [], "not successful": [], "mixed results": []}
    room = asyncio.Semaphore(_AT_ONCE)

    async def judge(call_id: str, call: saw.Seen) -> None:
        async with room:
            what, why = await _became_of(client, call_id, call)
        if what:
            found[what].append(f"{call_id} ({call.kind.name}): {why}")

    await asyncio.gather(*(judge(*item) for item in traffic.accepted.items()))
    return found


async def _became_of(client: Client, call_id: str, call: saw.Seen) -> tuple[str, str]:
    """Return what is wrong with an accepted call, and why; "" and "" if nothing is."""
    answer = await client.get(f"/v1/calls/{call_id}")
    if answer.status != saw.OK:
        return "lost", f"its record is answered with {answer.status} {answer.text[:200]}"
    record = answer.json()["call"]
    if record["status"] not in messages.ENDED:
        return "lost", f"it is {record['status']}"
    if record["status"] != "success":
        return "not successful", str(record.get("error") or record)
    result = await client.get(f"/v1/calls/{call_id}/result")
    if result.body != call.sent:
        return "mixed results", f"{result.status}, {len(result.body)} bytes"
    return "", ""


async def of_records(client: Client, traffic: Traffic) -> Defects:
    """Judge the list of records: each accepted call once."""
    counted = Counter(record["id"] for record in await client.calls(traffic.app))
    return {
        "recorded more than once": [call_id for call_id, count in counted.items() if count > 1],
        "not listed": [call_id for call_id in traffic.accepted if not counted[call_id]],
    }


async def calm(client: Client, stage: Stage) -> str:
    """Wait until nothing is under way any more; return what is left, "" if nothing."""
    until_s = clock.monotonic_s() + CALM_WITHIN_S
    while True:
        left = await _under_way(client, stage)
        if not left or clock.monotonic_s() > until_s:
            return left
        await asyncio.sleep(0.5)


async def _under_way(client: Client, stage: Stage) -> str:
    """Return what is under way: calls, sandboxes, capacity that is given."""
    left = []
    for runner in stage.replicas["runner"]:
        count = await metric(client.at(runner.service.url), "millrace_runner_in_progress")
        left += [f"{count:.0f} calls on {runner.service.url}"] if count else []
    for scheduler in stage.replicas["scheduler"]:
        lines = (await client.at(scheduler.service.url).get("/metrics")).text.splitlines()
        left += [line for line in lines if _is_reserved(line)]
    async with redis_asyncio.Redis.from_url(stage.platform.mq_url) as redis:
        for stream in (keys.CALLS_SYNC, keys.CALLS_ASYNC, keys.FINISHED):
            count = await redis.xlen(stream)
            left += [f"{count} entries in {stream}"] if count else []
        count = await redis.zcard(keys.RETRIES_DUE)
        left += [f"{count} calls that wait for their next attempt"] if count else []
    left += [f"sandbox {name}" for name in await asyncio.to_thread(stage.sandboxes)]
    left += [f"ended container {name}" for name in await asyncio.to_thread(stage.ended)]
    left += [f"socket {name}" for name in await asyncio.to_thread(sockets, stage)]
    return ", ".join(left)


def _is_reserved(line: str) -> bool:
    of_engine = line.startswith(("millrace_engine_memory_mb", "millrace_engine_cpus"))
    return of_engine and 'kind="reserved"' in line and not line.endswith(" 0.0")


async def of_redis(stage: Stage) -> Defects:
    """Judge what is left in Redis: streams of the dead, parcels of calls that have ended."""
    async with redis_asyncio.Redis.from_url(stage.platform.mq_url) as redis:
        names = {name.decode() async for name in redis.scan_iter(count=1000)}
        runners = {name.decode() for name in await redis.hkeys(keys.RUNNERS)}
        aside = await redis.xlen(keys.ASIDE)
    parcels = [name for name in names if name.startswith(keys.parcel(""))]
    streams = [name for name in names if name.startswith(keys.runner(""))]
    living = {keys.runner(runner_id) for runner_id in runners}
    return {
        "parcels left": parcels,
        "streams of lost runners": [name for name in streams if name not in living],
        "entries that nobody could read": [f"{aside} in {keys.ASIDE}"] if aside else [],
    }


def open_files(service: Service) -> Counter[str]:
    """Return how many files of each kind a service has open."""
    assert service.process is not None
    folder = Path(f"/proc/{service.process.pid}/fd")
    links = (folder / name for name in os.listdir(folder))
    return Counter(str(link.readlink()).partition(":")[0] for link in links if link.is_symlink())


async def of_files(stage: Stage, young: dict[str, Counter[str]]) -> Defects:
    """Judge the files that stay open, against those of a process of the same role when young."""
    until_s = clock.monotonic_s() + _CLOSED_WITHIN_S
    while True:
        found = _more_files(stage, young)
        if not found or clock.monotonic_s() > until_s:
            return {"files left open": found, "sockets left": sockets(stage)}
        await asyncio.sleep(0.5)


def _more_files(stage: Stage, young: dict[str, Counter[str]]) -> list[str]:
    found = []
    for role, replicas in stage.replicas.items():
        for replica in replicas:
            more = open_files(replica.service)
            more.subtract(young[role])
            many = {kind: count for kind, count in more.items() if count > _allowed(role, kind)}
            found += [f"{role} at {replica.service.url}: {many} more"] if many else []
    return found


def _allowed(role: str, kind: str) -> int:
    return _MORE_OF_A_RUNNER if (role, kind) == ("runner", "socket") else _MORE_FILES


def sockets(stage: Stage) -> list[str]:
    """Return the sockets by which sandboxes reach their runners."""
    # Not by `rglob`: that stumbles over folders that are removed meanwhile.
    walked = (found for shared in stage.folders for found in os.walk(shared))
    paths = [Path(folder, name) for folder, _, names in walked for name in names]
    return [str(path) for path in paths if path.is_socket()]
