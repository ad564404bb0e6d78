"""How many decisions a second does the scheduler's state make, with 10, 100 and 1,000 runners?

Run with `python -m tests.bench.scheduler_state`. No I/O: it drives the pure state alone, with calls
of 50 apps and 200 routes that arrive and end in batches, as the shell would hand them over.
"""

import itertools
import random
import time
from collections import deque

from services.scheduler import events
from services.scheduler.events import Now
from services.scheduler.settings import Settings
from services.scheduler.state import State
from shared import messages

CALLS = 40_000
BATCH = 50
EPOCH_MS = 1_700_000_000_000
SIZES = ((128, 0.5), (128, 1.0), (256, 1.0), (512, 1.0), (1024, 2.0))


def _runner(number: int) -> messages.Heartbeat:
    images = tuple(f"image{n}" for n in range(200) if (n + number) % 10 == 0)
    return messages.Heartbeat(
        runner_id=f"runner{number}",
        engine_id=f"engine{number}",
        sent_ms=EPOCH_MS,
        memory_mb=8192,
        cpus=16.0,
        arch="amd64",
        images=images,
        running=10**6,
    )


def _calls(count: int) -> list[events.Waiting]:
    random.seed(1)
    made = []
    for number in range(count):
        route = random.randrange(200)
        memory_mb, cpus = SIZES[route % len(SIZES)]
        head = messages.CallHead(
            call_id=f"call{number}",
            mode="sync",
            app=f"app{route % 50}",
            path="/",
            image=f"image{route}",
            memory_mb=memory_mb,
            cpus=cpus,
            accepted_ms=EPOCH_MS,
            wait_until_ms=EPOCH_MS + 30_000,
            deadline_ms=EPOCH_MS + 60_000,
            reply_to="api",
            timeout_ms=30_000,
        )
        made.append(events.waiting(b"%d-0" % (number + 1), head))
    return made


def measure(runners: int, *, saturated: bool) -> float:
    """Return seconds of CPU per decision, with runners that are half full or always full."""
    state = State(Settings(sync_backlog_max=10**6))
    at = Now(1.0, EPOCH_MS)
    state.handle(events.Rebuilt(tuple(_runner(n) for n in range(runners)), ()), at)
    arriving = iter(_calls(CALLS))
    running: deque[tuple[str, str]] = deque()
    limit = runners * 10**3 if saturated else runners * 8
    if saturated:
        first = tuple(itertools.islice(arriving, runners * 20 + 200))
        _note(running, state.handle(events.CallsArrived(first), at))
    decided, began_s = 0, time.process_time()
    while batch := tuple(itertools.islice(arriving, BATCH)):
        decided += _note(running, state.handle(events.CallsArrived(batch), at))
        for _ in range(BATCH if saturated else max(len(running) - limit, 0)):
            call_id, runner_id = running.popleft()
            finished = messages.ExecutionFinished(runner_id, call_id)
            decided += _note(running, state.handle(finished, at))
    return (time.process_time() - began_s) / max(decided, 1)


def _note(running: deque[tuple[str, str]], commands: list[events.Command]) -> int:
    given = [c for c in commands if isinstance(c, events.AssignCall)]
    running.extend((c.call.head.call_id, c.runner_id) for c in given)
    return len(given)


def main() -> None:
    """Print a table."""
    print("runners  load       decisions/s  us each")  # noqa: T201 (a command's output)
    for saturated in (False, True):
        for runners in (10, 100, 1000):
            each_s = measure(runners, saturated=saturated)
            load = "saturated" if saturated else "half full"
            print(f"{runners:7}  {load}  {1 / each_s:11.0f}  {each_s * 1e6:7.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
