"""Calls, kinds and results with defaults, so that a test spells out only what it is about."""

from typing import Any

import msgspec

from services.runner import runs
from services.runner.pool import Kind
from shared import messages

NOW_MS = 1_733_289_443_328

HEAD = messages.CallHead(
    call_id="c1",
    mode="sync",
    app="a",
    path="/p",
    image="img:1",
    memory_mb=128,
    cpus=1.0,
    accepted_ms=NOW_MS - 50,
    wait_until_ms=NOW_MS + 30_000,
    deadline_ms=NOW_MS + 60_000,
    reply_to="api-1",
    timeout_ms=30_000,
    sandbox_key="k",
    revision=1,
)


def head(**changes: Any) -> messages.CallHead:
    return msgspec.structs.replace(HEAD, **changes)


def async_head(**changes: Any) -> messages.CallHead:
    return head(
        **{"mode": "async", "deadline_ms": 0, "wait_until_ms": 0, "reply_to": "", **changes}
    )


def kind(key: str = "k", **changes: Any) -> Kind:
    """Return a kind of 100 MB of the route `/{key}`, unless `path` says another."""
    usual: dict[str, Any] = {
        "app": "a",
        "path": f"/{key}",
        "image": "img:1",
        "memory_mb": 100,
        "cpus": 1.0,
        "format": "default",
        "isolation": "sandbox",
    }
    return Kind(key, **{**usual, **changes})


def exited(code: int = 0, stdout: bytes = b"", **more: Any) -> runs.Result:
    oom_killed = more.pop("oom_killed", False)
    return runs.Result(runs.Exited(code, oom_killed), stdout, started_ms=NOW_MS, **more)
