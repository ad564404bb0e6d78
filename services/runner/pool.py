"""Which sandbox does a call get, and which sandboxes should there be? Pure: no I/O, no clock.

It knows who waits, what there is, and how long starting and running take. It does not know what a
call is beyond its id, nor what a sandbox is beyond its memory.

Spawn or wait: another sandbox is started if the calls that wait would wait longer for those there
are than for a new one. Example: starting takes 100 ms, calls run for 1 ms, one sandbox is busy and
20 calls wait: the last of them waits 20 ms, so nothing is started. If they run for 50 ms, the last
would wait 1000 ms; ten sandboxes bring that down to 100 ms, so nine are started. How long calls run
is not known at first: it is at least as long as the longest of them runs by now; later, that is one
value among others. A queue that does not end has its price too: `patience` knows when it is worth
one more sandbox.
"""

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from services.runner.patience import Patience
from shared import messages

#: What is assumed of a route before anything is known of it, in milliseconds.
RUN_GUESS_MS, START_GUESS_MS = 5.0, 100.0
#: The weight of the latest value in a moving mean.
_LATEST = 0.2
#: Of calls that are over in such a part of a start, one sandbox is started after the other: what
#: these wait for is a CPU, and several starts at one time would take it from them.
_SHORT = 10
#: Most sandboxes that are started ahead of demand for a route that uses each only once, and how
#: far one looks back to know the demand, in milliseconds.
AHEAD_MAX, _LOOK_BACK_MS = 8, 1_000
#: So soon after a call was given to a sandbox, none is started ahead: that would take the CPUs from
#: the call, which may be over by then. In milliseconds.
QUIET_MS = 20
#: Of more routes than this only those used last are told of.
_TOLD_MAX = 64
#: Back-off for sandboxes that die unused, in milliseconds.
_AGAIN_FIRST_MS, _AGAIN_LONGEST_MS = 200, 30_000


@dataclass(frozen=True, slots=True)
class Kind:
    """What a sandbox is made of. Sandboxes with the same `key` are alike."""

    key: str
    app: str
    path: str
    image: str
    memory_mb: int
    cpus: float
    format: messages.Format
    isolation: messages.Isolation
    #: Most sandboxes at one time; 0: as many as fit.
    most: int = 0
    #: Kept however long they are idle, while the kind is wanted.
    least: int = 0
    idle_timeout_ms: int = 30_000
    #: Grows with each change of the route.
    revision: int = 0
    config_env: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def listens(self) -> bool:
        """Whether its process is called by a socket that it listens at."""
        return self.format == "http-stream"

    @property
    def alone(self) -> bool:
        """Whether no other sandbox may be in its network."""
        return self.isolation != "sandbox"

    @property
    def once(self) -> bool:
        """Whether a sandbox runs one call only."""
        return self.isolation == "call"


class Phase(StrEnum):
    """Where a sandbox is in its life."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    #: It is being removed; its memory is still in use.
    LEAVING = "leaving"


@dataclass(slots=True)
class Box:
    """One sandbox, as the pool sees it."""

    sandbox_id: str
    kind: Kind
    phase: Phase = Phase.STARTING
    #: Since when it is in this phase, in epoch milliseconds.
    since_ms: int = 0
    digest: str = ""
    #: Whether it has ever run a call.
    used: bool = False
    #: Whether it is to be removed as soon as it is not busy.
    retired: bool = False


@dataclass(slots=True)
class _Group:
    """All sandboxes of one kind, and the calls that wait for one."""

    kind: Kind
    #: The one used last comes last, and is used next.
    idle: OrderedDict[str, Box] = field(default_factory=OrderedDict)
    starting: dict[str, Box] = field(default_factory=dict)
    busy: OrderedDict[str, Box] = field(default_factory=OrderedDict)
    waiting: OrderedDict[str, None] = field(default_factory=OrderedDict)
    #: Kept however long they are idle: the kind's `least` while it is wanted, else 0.
    least: int = 0
    run_ms: float | None = None
    start_ms: float = START_GUESS_MS
    patience: Patience = field(default_factory=Patience)
    #: When calls were given to it lately, for routes that use a sandbox once.
    given_ms: deque[int] = field(default_factory=lambda: deque(maxlen=4 * AHEAD_MAX))
    #: Sandboxes that died unused, in a row, and when the next may be started that no call needs.
    died: int = 0
    again_ms: int = 0

    @property
    def serving(self) -> int:
        return len(self.starting) + len(self.busy)

    @property
    def alive(self) -> int:
        return self.serving + len(self.idle)

    @property
    def spare(self) -> bool:
        """Whether one that is idle may go without there being too few."""
        return (len(self.idle) if self.kind.once else self.alive) > self.least

    @property
    def crowded(self) -> bool:
        """Whether there are more than there may be: the bound has been lowered."""
        return 0 < self.kind.most < self.alive

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return 0 < self.kind.most <= self.alive

    @property
    def empty(self) -> bool:
        return not (self.idle or self.starting or self.busy or self.waiting)

    def boxes(self) -> list[Box]:
        return [*self.starting.values(), *self.busy.values(), *self.idle.values()]

    def agrees(self) -> bool:
        """Say whether each sandbox is listed by its phase."""
        lists = ((self.starting, Phase.STARTING), (self.busy, Phase.BUSY), (self.idle, Phase.IDLE))
        return all(box.phase is phase for boxes, phase in lists for box in boxes.values())

    def count(self) -> messages.SandboxCount:
        kind = self.kind
        counts = (len(self.idle), len(self.busy), len(self.starting))
        return messages.SandboxCount(kind.app, kind.path, kind.key, *counts)


# What is to be done.


class Give(msgspec.Struct, frozen=True, gc=False):
    """Let a call run in a sandbox."""

    call_id: str
    sandbox_id: str


class Start(msgspec.Struct, frozen=True, gc=False):
    """Start a sandbox."""

    sandbox_id: str
    kind: Kind


class Remove(msgspec.Struct, frozen=True, gc=False):
    """Remove a sandbox."""

    sandbox_id: str


Action = Give | Start | Remove


class Pool:
    """All sandboxes of a runner. Owned by `state.State`.

    Invariants: a sandbox runs at most one call; one that is `LEAVING` never runs another; the
    memory of all of them, `LEAVING` ones included, is at most `memory_mb`, unless one alone is
    larger; of a kind none is started, and none is idle, beyond `most`.
    """

    def __init__(self, memory_mb: int) -> None:
        """`memory_mb` is for all sandboxes together."""
        self.memory_mb = memory_mb
        self._numbers = itertools.count(1)
        self._boxes: dict[str, Box] = {}
        #: By key; the kind asked for last comes last.
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        #: The keys of the kinds that are wanted without any call.
        self._wanted: set[str] = set()
        #: Route -> the keys of the kinds there are of it.
        self._routes: dict[tuple[str, str], set[str]] = {}
        #: Kinds of which something has changed since the last `settle`.
        self._changed: dict[str, None] = {}
        #: Kinds whose calls want more sandboxes than there is memory for.
        self._short: dict[str, None] = {}
        #: Kinds of which sandboxes are started ahead a little later.
        self._put_off: dict[str, None] = {}
        self._leaving: list[Box] = []
        self._used_mb = self._leaving_mb = 0
        self._closed = self._paused = False

    # Calls.

    def wait(self, call_id: str, kind: Kind, now_ms: int, *, first: bool = False) -> None:
        """Let a call wait for a sandbox of a kind; `first`: before all others that wait."""
        group = self._group(kind)
        group.patience.count(len(group.waiting), now_ms)
        group.waiting[call_id] = None
        if first:
            group.waiting.move_to_end(call_id, last=False)
        self._groups.move_to_end(kind.key)
        self._retire_others(kind)

    def forget(self, call_id: str, key: str) -> None:
        """Let a call wait no longer."""
        group = self._groups.get(key)
        if group is not None and call_id in group.waiting:
            del group.waiting[call_id]
            self._changed[key] = None

    def waiting(self, key: str) -> tuple[str, ...]:
        """Return the calls that wait for a kind, the next one first."""
        group = self._groups.get(key)
        return tuple(group.waiting) if group else ()

    def alive(self, key: str) -> int:
        """Return how many sandboxes of a kind there are that are not leaving."""
        group = self._groups.get(key)
        return group.alive if group else 0

    def kind(self, key: str) -> Kind | None:
        """Return a kind that is known."""
        group = self._groups.get(key)
        return group.kind if group else None

    @property
    def hurried(self) -> bool:
        """Whether calls wait or starts were put off, so that `tick` is of use soon."""
        return bool(self._put_off) or any(group.waiting for group in self._groups.values())

    # Sandboxes.

    def get(self, sandbox_id: str) -> Box | None:
        """Return a sandbox, unless it is gone."""
        return self._boxes.get(sandbox_id)

    def ready(self, sandbox_id: str, digest: str, start_ms: float, now_ms: int) -> None:
        """Note that a sandbox can run calls, `start_ms` after it was asked for."""
        box = self._boxes[sandbox_id]
        group = self._groups[box.kind.key]
        group.start_ms = _mean(group.start_ms, start_ms)
        group.patience.came(now_ms)
        box.digest = digest
        if box.retired and not group.waiting:
            self._back_off(box, now_ms)
            self._leave(box)
        else:
            group.again_ms = 0
            self._rest(box, now_ms)

    def freed(self, sandbox_id: str, run_ms: float, now_ms: int, *, reusable: bool) -> None:
        """Note that the call of a sandbox has ended."""
        box = self._boxes[sandbox_id]
        group = self._groups[box.kind.key]
        group.run_ms = run_ms if group.run_ms is None else _mean(group.run_ms, run_ms)
        group.died = 0
        group.patience.call_ended()
        if reusable and not box.kind.once and not box.retired:
            self._rest(box, now_ms)
        else:
            self._leave(box)

    def failed(self, sandbox_id: str, now_ms: int) -> None:
        """Note that a sandbox could not be started."""
        box = self._boxes[sandbox_id]
        self._back_off(box, now_ms)
        self._leave(box)

    def refused(self, sandbox_id: str) -> None:
        """Note that a sandbox was of no use for the call it was given."""
        self._leave(self._boxes[sandbox_id])

    def lost(self, sandbox_id: str, now_ms: int) -> None:
        """Note that a sandbox is of no use any more.

        One that is started or busy goes when the word on that has come.
        """
        box = self._boxes[sandbox_id]
        if box.phase is Phase.IDLE and not box.used:
            self._back_off(box, now_ms)
        self._retire(box)

    def gone(self, sandbox_id: str) -> None:
        """Note that nothing is left of a sandbox."""
        box = self._boxes.pop(sandbox_id)
        self._used_mb -= box.kind.memory_mb
        self._leaving_mb -= box.kind.memory_mb
        self._changed[box.kind.key] = None
        self._changed.update(self._short)

    def image_moved(self, image: str, digest: str) -> None:
        """Let sandboxes of an image go whose digest is another by now."""
        for box in list(self._boxes.values()):
            if box.kind.image == image and box.digest not in {"", digest}:
                self._retire(box)

    def want(self, kinds: Iterable[Kind]) -> None:
        """Replace the kinds of which `least` sandboxes are kept without any call."""
        wanted = {kind.key: kind for kind in kinds}
        for key in self._wanted - wanted.keys():
            self._groups[key].least = 0
            self._changed[key] = None
        self._wanted = set(wanted)
        for kind in wanted.values():
            self._group(kind).least = kind.least
            self._retire_others(kind)

    def pause(self) -> None:
        """Start nothing until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Start what is missing again. What has died meanwhile says nothing of its kind."""
        self._paused = False
        for group in self._groups.values():
            group.died = group.again_ms = 0
        self._changed.update(dict.fromkeys(self._groups))

    def close(self) -> None:
        """Start nothing any more, and let all go that are not busy."""
        self._closed = True
        for box in list(self._boxes.values()):
            self._retire(box)

    def open(self) -> None:
        """Start what is missing again, after `close`."""
        self._closed = False
        self._changed.update(dict.fromkeys(self._groups))

    # What is to be done.

    def settle(self, now_ms: int) -> list[Action]:
        """Return what is to be done by now; it is taken as being done.

        Costs nothing for kinds of which nothing has changed. What calls wait for comes before what
        nobody waits for yet.
        """
        actions: list[Action] = []
        while self._changed or self._leaving:
            actions += [Remove(box.sandbox_id) for box in self._leaving]
            self._leaving.clear()
            changed = [self._groups[key] for key in self._changed if key in self._groups]
            self._changed.clear()
            for group in changed:
                self._serve(group, now_ms, actions)
            for group in changed:
                if group.least or group.kind.once:
                    self._start_ahead(group, now_ms, actions)
                if not group.idle:
                    self._forget_empty(group)
        return actions

    def tick(self, now_ms: int) -> None:
        """Look at what changes with time alone: queues, idle sandboxes, back-offs."""
        self._changed.update(self._put_off)
        self._put_off.clear()
        for key, group in self._groups.items():
            if group.waiting or _missing_ahead(group, now_ms) > 0:
                self._changed[key] = None
            for box in [box for box in group.idle.values() if _is_old(group, box, now_ms)]:
                if group.spare:
                    self._leave(box)

    def counts(self) -> tuple[messages.SandboxCount, ...]:
        """Return how many sandboxes of each route there are, those used last first."""
        groups = [group for group in reversed(self._groups.values()) if group.alive]
        return tuple(group.count() for group in groups[:_TOLD_MAX])

    def images(self) -> set[str]:
        """Return the images there are sandboxes of."""
        return {box.kind.image for box in self._boxes.values()}

    def ids(self) -> set[str]:
        """Return the ids of all sandboxes that are not gone."""
        return set(self._boxes)

    def idle_mb(self) -> int:
        """Return the memory of idle sandboxes."""
        return sum(len(g.idle) * g.kind.memory_mb for g in self._groups.values())

    def __len__(self) -> int:
        return len(self._boxes)

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        boxes = self._boxes.values()
        listed = [box for group in self._groups.values() for box in group.boxes()]
        leaving = [box for box in boxes if box.phase is Phase.LEAVING]
        used_mb = sum(box.kind.memory_mb for box in boxes)
        facts = {
            "listed once": sorted(b.sandbox_id for b in [*listed, *leaving]) == sorted(self._boxes),
            "used": used_mb == self._used_mb,
            "leaving": sum(box.kind.memory_mb for box in leaving) == self._leaving_mb,
            "memory": used_mb <= self.memory_mb or len(boxes) == 1,
            "most": not any(group.crowded and group.idle for group in self._groups.values()),
            "phases": all(group.agrees() for group in self._groups.values()),
        }
        if not all(facts.values()):
            raise AssertionError(f"pool: {facts}")

    # Inside.

    def _group(self, kind: Kind) -> _Group:
        """Return the group of a kind, which is the newest word on its bounds."""
        self._changed[kind.key] = None
        group = self._groups.get(kind.key)
        if group is None:
            group = self._groups[kind.key] = _Group(kind)
            self._routes.setdefault((kind.app, kind.path), set()).add(kind.key)
        elif group.kind is not kind and group.kind.revision <= kind.revision:
            group.kind = kind
        return group

    def _serve(self, group: _Group, now_ms: int, actions: list[Action]) -> None:
        """Give calls what is idle, and start what they lack or make room for it."""
        group.patience.count(len(group.waiting), now_ms)
        while group.crowded and group.idle:
            self._leave(next(iter(group.idle.values())))
        self._hand_out(group, now_ms, actions)
        kind = group.kind
        self._short.pop(kind.key, None)
        if not group.waiting:
            return
        if group.full:
            return
        missing = self._startable(group, _missing_for_calls(group, now_ms))
        while missing and self._has_room(kind):
            self._start(group, now_ms, actions)
            missing -= 1
        if missing:
            self._short[kind.key] = None
            self._make_room(missing * kind.memory_mb)

    def _start_ahead(self, group: _Group, now_ms: int, actions: list[Action]) -> None:
        """Start what nobody waits for yet, unless calls of another kind are short of memory.

        Otherwise what gave way to such a call would take the memory again, and the call would
        never get it.
        """
        missing = self._startable(group, _missing_ahead(group, now_ms))
        if missing and not group.waiting and _is_disturbed(group, now_ms):
            self._put_off[group.kind.key] = None
            return
        while missing and not self._short and self._has_room(group.kind):
            self._start(group, now_ms, actions)
            missing -= 1

    def _forget_empty(self, group: _Group) -> None:
        key, route = group.kind.key, (group.kind.app, group.kind.path)
        if group.empty and key not in self._wanted and key not in self._put_off:
            del self._groups[key]
            self._routes[route].discard(key)
            if not self._routes[route]:
                del self._routes[route]

    def _hand_out(self, group: _Group, now_ms: int, actions: list[Action]) -> None:
        while group.waiting and group.idle:
            call_id, _ = group.waiting.popitem(last=False)
            sandbox_id, box = group.idle.popitem(last=True)
            box.phase, box.since_ms, box.used = Phase.BUSY, now_ms, True
            group.busy[sandbox_id] = box
            if box.kind.once:
                group.given_ms.append(now_ms)
            actions.append(Give(call_id, sandbox_id))

    def _startable(self, group: _Group, missing: int) -> int:
        """Return how many of those that are missing may be started, were there the memory."""
        if self._closed or self._paused:
            return 0
        if group.kind.most:
            missing = min(missing, group.kind.most - group.alive)
        return max(0, missing)

    def _start(self, group: _Group, now_ms: int, actions: list[Action]) -> None:
        box = Box(f"{next(self._numbers)}", group.kind, since_ms=now_ms)
        self._boxes[box.sandbox_id] = group.starting[box.sandbox_id] = box
        self._used_mb += box.kind.memory_mb
        group.patience.started(now_ms)
        actions.append(Start(box.sandbox_id, box.kind))

    def _has_room(self, kind: Kind) -> bool:
        return self._used_mb + kind.memory_mb <= self.memory_mb or not self._boxes

    def _make_room(self, memory_mb: int) -> None:
        """Let idle sandboxes go until so much will be free, or none is idle."""
        over_mb = self._used_mb + memory_mb - self.memory_mb
        while over_mb > self._leaving_mb and (oldest := self._oldest_idle()) is not None:
            self._leave(oldest)

    def _oldest_idle(self) -> Box | None:
        """Return the sandbox to give way first: of those nobody keeps ready, the longest idle."""
        firsts = [
            (not g.spare, next(iter(g.idle.values()))) for g in self._groups.values() if g.idle
        ]
        oldest = min(firsts, key=lambda first: (first[0], first[1].since_ms), default=None)
        return oldest[1] if oldest else None

    def _rest(self, box: Box, now_ms: int) -> None:
        group = self._groups[box.kind.key]
        group.starting.pop(box.sandbox_id, None)
        group.busy.pop(box.sandbox_id, None)
        group.idle[box.sandbox_id] = box
        box.phase, box.since_ms = Phase.IDLE, now_ms
        self._changed[box.kind.key] = None
        if self._short:
            self._changed.update(self._short)

    def _leave(self, box: Box) -> None:
        group = self._groups[box.kind.key]
        for boxes in (group.starting, group.busy, group.idle):
            boxes.pop(box.sandbox_id, None)
        box.phase = Phase.LEAVING
        self._leaving_mb += box.kind.memory_mb
        self._leaving.append(box)
        self._changed[box.kind.key] = None

    def _back_off(self, box: Box, now_ms: int) -> None:
        """Note that a sandbox has died unused: the next one of its kind may, too."""
        group = self._groups[box.kind.key]
        pause_ms = min(_AGAIN_FIRST_MS << min(group.died, 16), _AGAIN_LONGEST_MS)
        group.died += 1
        group.again_ms = now_ms + pause_ms

    def _retire(self, box: Box) -> None:
        box.retired = True
        if box.phase is Phase.IDLE:
            self._leave(box)

    def _retire_others(self, kind: Kind) -> None:
        """Let sandboxes of the same route go that are made otherwise, and not later."""
        keys = self._routes[kind.app, kind.path]
        if len(keys) == 1:
            return
        for key in keys - {kind.key}:
            group = self._groups[key]
            if group.kind.revision <= kind.revision and key not in self._wanted:
                for box in group.boxes():
                    self._retire(box)


def _missing_for_calls(group: _Group, now_ms: int) -> int:
    """Return how many sandboxes more shorten the wait of those who wait now."""
    waiting = len(group.waiting)
    unclaimed = waiting - len(group.starting)
    if unclaimed <= 0 or (group.alive and now_ms < group.again_ms):
        return 0
    if group.kind.once:
        return unclaimed
    run_ms = _expected_run_ms(group, now_ms)
    missing = math.ceil(waiting * run_ms / group.start_ms) - group.serving
    if group.run_ms is not None and run_ms * _SHORT < group.start_ms:
        missing = min(missing, 1 - len(group.starting))
        if group.starting:
            return 0
    over = missing <= 0 and group.patience.over(group.start_ms, group.serving, now_ms)
    return min(unclaimed, max(missing, int(over or not group.serving)))


def _expected_run_ms(group: _Group, now_ms: int) -> float:
    """Return how long calls take. One that runs for longer counts as if it ended now.

    Where nothing else is known, it is all that counts; elsewhere it may be this runner that has not
    had a CPU for a while, and that must not start sandboxes for all who wait.
    """
    known_ms = RUN_GUESS_MS if group.run_ms is None else group.run_ms
    longest_ms = now_ms - next(iter(group.busy.values())).since_ms if group.busy else 0
    if longest_ms <= known_ms:
        return known_ms
    return longest_ms if group.run_ms is None else _mean(known_ms, longest_ms)


def _mean(known_ms: float, latest_ms: float) -> float:
    return known_ms + _LATEST * (latest_ms - known_ms)


def _missing_ahead(group: _Group, now_ms: int) -> int:
    """Return how many sandboxes more are to be there before anybody waits for them."""
    if now_ms < group.again_ms:
        return 0
    if not group.kind.once:
        return group.least - group.alive
    unclaimed = len(group.idle) + len(group.starting) - len(group.waiting)
    return max(group.least, _demand(group, now_ms)) - unclaimed


def _demand(group: _Group, now_ms: int) -> int:
    """Return how many sandboxes that run one call only will be wanted soon."""
    if not group.given_ms or now_ms - group.given_ms[-1] >= group.kind.idle_timeout_ms:
        return 0
    since_ms = now_ms - max(_LOOK_BACK_MS, 2 * group.start_ms)
    return min(AHEAD_MAX, 1 + sum(given_ms >= since_ms for given_ms in group.given_ms))


def _is_disturbed(group: _Group, now_ms: int) -> bool:
    """Say whether a start would take the CPUs from a call that was given to a sandbox just now."""
    return bool(group.given_ms) and now_ms - group.given_ms[-1] < QUIET_MS


def _is_old(group: _Group, box: Box, now_ms: int) -> bool:
    return now_ms - box.since_ms >= group.kind.idle_timeout_ms
