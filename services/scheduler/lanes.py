"""In which order do one app's waiting calls go? The tables that `backlog` keeps.

Knows nothing of capacity, nor of how apps compare.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.scheduler.events import Waiting
from services.scheduler.ledger import Group, Size

K = TypeVar("K")
V = TypeVar("V")

#: An app's place among others, the smallest first: its share, when it was served, its name.
Place = tuple[float, float, str]
#: What calls share a bundle by: their group, or their size alone.
Kind = Size | Group


@dataclass(slots=True)
class _ByMode(Generic[K, V]):
    """Something in order for each mode, sync first; a mode's table is made when it is needed."""

    sync: OrderedDict[K, V] | None = None
    async_: OrderedDict[K, V] | None = None

    def of(self, mode: str) -> OrderedDict[K, V]:
        if mode == "sync":
            if self.sync is None:
                self.sync = OrderedDict()
            return self.sync
        if self.async_ is None:
            self.async_ = OrderedDict()
        return self.async_

    def head(self) -> V:
        """Return what goes first. Raises LookupError if there is nothing."""
        for table in (self.sync, self.async_):
            if table:
                return next(iter(table.values()))
        raise LookupError("empty")

    def all(self) -> list[V]:
        """Return everything, in order."""
        return [*(self.sync or {}).values(), *(self.async_ or {}).values()]

    def __bool__(self) -> bool:
        return bool(self.sync or self.async_)

    def __len__(self) -> int:
        return len(self.sync or ()) + len(self.async_ or ())


@dataclass(slots=True)
class Bundle(_ByMode[str, Waiting]):
    """One app's waiting calls of one size and group, each mode in the order of its stream."""

    group: Group | None = None
    #: Whether it waits for its group's own sandboxes: no capacity would help.
    parked: bool = False


@dataclass(slots=True)
class Lane(_ByMode[Group | None, Bundle]):
    """One app's bundles of one size that capacity would help: they take turns, sync calls first."""

    def first(self) -> Waiting:
        """Return the call that is placed before all others of this lane."""
        return self.head().head()


@dataclass(slots=True)
class App:
    """One app that has waiting calls or uses capacity."""

    name: str
    #: When it was last served, as a count of servings.
    served: float
    used_mb: int = 0
    used_millicpus: int = 0
    #: Its dominant share; kept up only while it has a lane, where its place counts.
    share: float = 0.0
    bundles: dict[Kind, Bundle] = field(default_factory=dict)
    lanes: dict[Size, Lane] = field(default_factory=dict)
    sync: int = 0
    async_: int = 0

    @property
    def place(self) -> Place:
        """Where it stands among others."""
        return (self.share, self.served, self.name)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to know of it."""
        return not (self.bundles or self.used_mb or self.used_millicpus)


@dataclass(slots=True)
class Queue:
    """All waiting calls of one size."""

    #: Places of the apps that have a lane here, sorted.
    order: list[Place] = field(default_factory=list)
    #: Since when it has been blocked without one of its calls being placed; None if it is not.
    starved_since_s: float | None = None
    sync: int = 0
    async_: int = 0

    def __len__(self) -> int:
        return self.sync + self.async_


def kind(call: Waiting) -> Kind:
    """Return what a call shares a bundle by."""
    return call.group or call.size
