"""Builders with defaults: a test spells out only what it is about."""

from typing import Any

from services.scheduler import events
from services.scheduler.events import Command, Event, Now, Waiting
from services.scheduler.settings import Settings
from services.scheduler.state import State
from shared import messages

START_MS = 1_700_000_000_000


def head(call_id: str, mode: messages.Mode = "sync", **other: Any) -> messages.CallHead:
    fields: dict[str, Any] = {
        "app": "app",
        "path": "/p",
        "image": "image",
        "memory_mb": 100,
        "cpus": 1.0,
        "accepted_ms": START_MS,
        "wait_until_ms": START_MS + 30_000 if mode == "sync" else 0,
        "deadline_ms": START_MS + 60_000 if mode == "sync" else 0,
        "reply_to": "api-1" if mode == "sync" else "",
        "timeout_ms": 30_000,
    }
    return messages.CallHead(call_id=call_id, mode=mode, **{**fields, **other})


_entries = iter(range(1, 10**9))


def call(call_id: str, mode: messages.Mode = "sync", **other: Any) -> Waiting:
    """A waiting call, with an entry id greater than any before."""
    return events.waiting(b"%d-0" % next(_entries), head(call_id, mode, **other))


def arrive(*calls: Waiting) -> events.CallsArrived:
    return events.CallsArrived(calls)


def heartbeat(runner_id: str = "r1", **other: Any) -> messages.Heartbeat:
    fields: dict[str, Any] = {
        "engine_id": f"engine-of-{runner_id}",
        "sent_ms": START_MS,
        "memory_mb": 1000,
        "cpus": 10.0,
        "arch": "amd64",
        "running": 10**6,
    }
    return messages.Heartbeat(runner_id=runner_id, **{**fields, **other})


class Driver:
    """A state, and the time it lives in; checks the invariants after every event."""

    def __init__(self, epoch: int = 0, **settings: Any) -> None:
        self.state = State(Settings(**settings), epoch)
        self.now_s = 1000.0

    def __call__(self, *given: Event, after_s: float = 0.0) -> list[Command]:
        """Handle events, the first one `after_s` seconds later than the last."""
        self.now_s += after_s
        commands: list[Command] = []
        for event in given:
            now = Now(self.now_s, START_MS + round((self.now_s - 1000) * 1000))
            commands += self.state.handle(event, now)
            self.state.check()
        return commands

    def tick_for(self, seconds: float, *beats: messages.Heartbeat) -> list[Command]:
        """Let time pass in steps of a quarter second, with heartbeats, if any."""
        commands: list[Command] = []
        for _ in range(round(seconds * 4)):
            commands += self(*beats, events.Tick(caught_up=True), after_s=0.25)
        return commands


def rebuilt(*heartbeats: messages.Heartbeat) -> events.Rebuilt:
    return events.Rebuilt(heartbeats, ())


def of(kind: type[Any], commands: list[Command]) -> list[Any]:
    return [command for command in commands if isinstance(command, kind)]


def assigned(commands: list[Command]) -> list[tuple[str, str]]:
    """Which call went to which runner."""
    return [(c.call.head.call_id, c.runner_id) for c in of(events.AssignCall, commands)]


def refused(commands: list[Command]) -> list[tuple[str, str]]:
    """Which call was refused with which code."""
    return [(c.call.head.call_id, c.code) for c in of(events.RefuseCall, commands)]
