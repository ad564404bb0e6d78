"""Which functions are called amid the chaos, and what must each answer? Pure."""

from dataclasses import dataclass, field
from typing import Any, Literal

from tests.bench import echoes

#: What a call of a route comes to, if nothing interferes.
Ending = Literal["echo", "function fails", "too slow", "caller leaves", "accepted"]

#: How long a sync call may wait for a runner with room, in seconds.
CAPACITY_WAIT_S = 10.0
#: Sandboxes go so long after their last call, in seconds.
IDLE_TIMEOUT_S = 5
_SLOW, _FAILING, _OVERTIME = "sleep 1; cat", "cat >/dev/null; exit 3", "sleep 60"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call: its route, its share of the load, and its ending."""

    name: str
    ending: Ending
    #: Of so many calls in all these shares are of this kind.
    share: int
    #: A function of the benchmark, or a shell script.
    echo: echoes.Name | None = None
    script: str = ""
    timeout_s: int = 10
    fields: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def path(self) -> str:
        """The path of its route within the app."""
        return f"/{self.name}"

    @property
    def answer_within_s(self) -> float:
        """How long a caller of it may wait for an answer of whatever kind."""
        return CAPACITY_WAIT_S + self.timeout_s + 2.0

    def route(self) -> dict[str, Any]:
        """Return the fields of its route, beside path and image."""
        own = {"timeout": self.timeout_s, "idle_timeout": IDLE_TIMEOUT_S, "memory": 64}
        return own | self.fields


_HOT: dict[str, Any] = {"max_concurrency": 4}

KINDS = (
    Kind("default", "echo", 6, echo="default"),
    Kind("http", "echo", 8, echo="http", fields={"format": "http", **_HOT}),
    Kind("json", "echo", 4, echo="json", fields={"format": "json", **_HOT}),
    Kind("stream", "echo", 4, echo="http-stream", fields={"format": "http-stream", **_HOT}),
    Kind("isolated", "echo", 1, echo="default", fields={"isolation": "call"}),
    Kind("slow", "echo", 2, script=_SLOW),
    Kind("failing", "function fails", 2, script=_FAILING),
    Kind("overtime", "too slow", 1, script=_OVERTIME, timeout_s=2),
    Kind("left", "caller leaves", 2, script=_SLOW),
    Kind("async", "accepted", 5, echo="default", fields={"type": "async"}),
    Kind("async-hot", "accepted", 4, echo="http", fields={"type": "async", "format": "http"}),
    Kind("async-slow", "accepted", 1, script=_SLOW, fields={"type": "async"}),
)
