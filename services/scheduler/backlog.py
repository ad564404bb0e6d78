"""Who is next? The calls that wait for capacity, fair between apps, bounded.

Knows how much each app uses, but nothing of engines. Calls of one size (memory and cpus) fit or
do not fit together, so they wait together: a size that fits nowhere is blocked as a whole until
capacity for it appears, and costs nothing meanwhile.
"""

import bisect
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from services.scheduler.events import Waiting
from services.scheduler.ledger import NOTHING, Size

#: Milliseconds in one bucket of deadlines.
BUCKET_MS = 100
#: One app's async calls take at most this part of the room for references to async calls.
APP_PART = 4


class Admission(Enum):
    """What became of a call that came to the backlog."""

    WAITS = "waits"
    #: Sync: there is no room. It is to be refused.
    REFUSED = "refused"
    #: Async: there is no room for a reference. It stays in its stream and is read again later.
    PASSED_OVER = "passed over"


@dataclass(slots=True)
class _Lane:
    """One app's waiting calls of one size, each mode in the order of its stream."""

    sync: OrderedDict[str, Waiting] = field(default_factory=OrderedDict)
    async_: OrderedDict[str, Waiting] = field(default_factory=OrderedDict)

    def of(self, mode: str) -> OrderedDict[str, Waiting]:
        return self.sync if mode == "sync" else self.async_

    def first(self) -> Waiting:
        return next(iter((self.sync or self.async_).values()))

    def __bool__(self) -> bool:
        return bool(self.sync or self.async_)


@dataclass(slots=True)
class _App:
    """One app that has waiting calls or uses capacity."""

    name: str
    #: When it was last served, as a count of servings.
    served: float
    used_mb: int = 0
    used_millicpus: int = 0
    share: float = 0.0
    lanes: dict[Size, _Lane] = field(default_factory=dict)
    sync: int = 0
    async_: int = 0

    @property
    def key(self) -> tuple[float, float, str]:
        return (self.share, self.served, self.name)

    @property
    def idle(self) -> bool:
        return not (self.lanes or self.used_mb or self.used_millicpus)


@dataclass(slots=True)
class _Queue:
    """All waiting calls of one size."""

    #: Keys of the apps that have calls here, sorted.
    order: list[tuple[float, float, str]] = field(default_factory=list)
    blocked: bool = False
    #: Since when it has been blocked without one of its calls being placed; None if it is not.
    starved_since_s: float | None = None
    sync: int = 0
    async_: int = 0


class Backlog:
    """Waiting calls, and how much each app uses.

    Order: the app with the smallest dominant share goes first (the larger of its parts of all
    memory and of all cpus), then the one served least recently; an app without history counts as
    served just before the latest, so that neither newcomers nor regulars are starved. Within an
    app: sync first, then in the order of the stream.

    Example: of 1000 MB and 10 cpus, app a uses 300 MB and 1 cpu: its share is max(0.3, 0.1) =
    0.3. App b uses 100 MB and 5 cpus: 0.5. A waiting call of a goes first. If it needs more than
    is free anywhere, its size is blocked and b is next, with another size.

    Invariants: a call is here at most once; `sync_waiting` <= `sync_max` and `async_waiting` <=
    `async_max`, but for calls that come back after a failed assignment.
    """

    def __init__(self, sync_max: int, async_max: int) -> None:
        """Bounds are numbers of references."""
        self.sync_max, self.async_max = sync_max, async_max
        self.sync_waiting = self.async_waiting = 0
        self._calls: dict[str, Waiting] = {}
        self._apps: dict[str, _App] = {}
        self._queues: dict[Size, _Queue] = {}
        self._due: dict[int, dict[str, None]] = {}
        self._total = NOTHING
        self._servings = 0
        #: The app that pays when sync calls are too many.
        self._largest = ""
        #: App -> its first async entry that is not referenced here.
        self._passed: dict[str, bytes] = {}
        self._scanning: set[str] = set()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._calls.values())

    def get(self, call_id: str) -> Waiting | None:
        """Return a waiting call."""
        return self._calls.get(call_id)

    @property
    def wants_async(self) -> bool:
        """Whether new async calls are to be read: there is room for the most one app may take.

        `to_scan` needs only half of that, so that what was passed over goes before what is new.
        """
        return self._async_room >= self._async_app_max

    # -- calls come and go

    def offer(self, call: Waiting) -> Admission:
        """Take a call in, if there is room."""
        if call.head.mode == "async":
            return self._offer_async(call)
        if self.sync_waiting >= self.sync_max:
            return Admission.REFUSED
        self._insert(call, last=True)
        return Admission.WAITS

    def give_way(self, app_name: str) -> Waiting | None:
        """Take out the newest sync call of the app with the most of them, for a call of this app.

        None if this app itself has about the most. So an app that floods the backlog pays for
        it, and others find room: with 10 places, 9 held by a and 1 by b, a call of c takes the
        place of the newest one of a.
        """
        if self._largest == app_name:
            return None
        mine = self._apps[app_name].sync if app_name in self._apps else 0
        largest = self._apps.get(self._largest)
        if largest is None or largest.sync <= mine + 1:
            largest = max(self._apps.values(), key=lambda app: (app.sync, app.name), default=None)
            if largest is None or largest.sync <= mine + 1:
                return None
            self._largest = largest.name
        lasts = (next(reversed(lane.sync.values())) for lane in largest.lanes.values() if lane.sync)
        return self.remove(max(lasts, key=lambda call: call.order).head.call_id)

    def put_back(self, call: Waiting) -> None:
        """Take a call in again, first in its lane, whether or not there is room."""
        self._insert(call, last=False)

    def remove(self, call_id: str) -> Waiting | None:
        """Take a call out, because it was placed or it ended."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return None
        app, queue = self._apps[call.head.app], self._queues[call.size]
        lane = app.lanes[call.size]
        del lane.of(call.head.mode)[call_id]
        if not lane:
            del app.lanes[call.size]
            self._unlist(queue, app)
        self._count(call, app, queue, -1)
        if not queue.order:
            del self._queues[call.size]
        self._forget_if_idle(app)
        self._forget_deadline(call)
        return call

    def overdue(self, now_ms: int) -> list[Waiting]:
        """Return the calls whose `wait_until_ms` has passed."""
        last = now_ms // BUCKET_MS
        ids = [i for bucket, ids in sorted(self._due.items()) if bucket <= last for i in ids]
        calls = (self._calls[call_id] for call_id in ids)
        return [call for call in calls if call.head.wait_until_ms <= now_ms]

    # -- who is next

    def next(self) -> Waiting | None:
        """Return the call to be placed next, which stays here; None if all sizes are blocked."""
        best: tuple[tuple[float, float, str], bool, int] | None = None
        chosen: Waiting | None = None
        for size, queue in self._queues.items():
            if queue.blocked or (best is not None and queue.order[0] > best[0]):
                continue
            call = self._apps[queue.order[0][2]].lanes[size].first()
            rank = (queue.order[0], call.head.mode == "async", call.order)
            if best is None or rank < best:
                best, chosen = rank, call
        return chosen

    def block(self, size: Size, now_s: float) -> None:
        """Note that no engine can take a call of this size now."""
        queue = self._queues[size]
        queue.blocked = True
        if queue.starved_since_s is None:
            queue.starved_since_s = now_s

    def unblock(self, size: Size) -> None:
        """Note that some engine can take a call of this size."""
        self._queues[size].blocked = False

    def blocked(self) -> list[Size]:
        """Return the sizes that are blocked."""
        return [size for size, queue in self._queues.items() if queue.blocked]

    def starved(self, since_s: float) -> list[Size]:
        """Return the sizes that have been blocked since then without a call placed, worst first."""
        found = [
            (queue.starved_since_s, size)
            for size, queue in self._queues.items()
            if queue.starved_since_s is not None and queue.starved_since_s <= since_s
        ]
        return [size for _, size in sorted(found)]

    def sizes(self) -> dict[Size, int]:
        """Return how many calls of each size wait."""
        return {size: queue.sync + queue.async_ for size, queue in self._queues.items()}

    def has_async(self, size: Size) -> bool:
        """Say whether async calls of this size wait."""
        return size in self._queues and self._queues[size].async_ > 0

    def of_size(self, size: Size) -> list[Waiting]:
        """Return all waiting calls of a size."""
        return [call for call in self._calls.values() if call.size == size]

    def first_of(self, size: Size) -> Waiting:
        """Return the call of a size that is placed before all others of it."""
        return self._apps[self._queues[size].order[0][2]].lanes[size].first()

    # -- how much each app uses

    def set_total(self, total: Size) -> None:
        """Set the capacity that shares are parts of."""
        if total == self._total:
            return
        self._total = total
        for app in self._apps.values():
            app.share = self._share(app)
        for queue in self._queues.values():
            queue.order = sorted(self._apps[name].key for _, _, name in queue.order)

    def charge(self, app_name: str, size: Size) -> None:
        """Note that an app has been given capacity: it has been served."""
        self._servings += 1
        self._use(self._app(app_name), size, +1, served=float(self._servings))
        queue = self._queues.get(size)
        if queue is not None:
            queue.starved_since_s = None

    def refund(self, app_name: str, size: Size) -> None:
        """Note that an app has returned capacity."""
        app = self._apps[app_name]
        self._use(app, size, -1, served=app.served)
        self._forget_if_idle(app)

    # -- async calls beyond the bound

    def to_scan(self) -> list[tuple[str, bytes]]:
        """Return apps that have room again for async calls passed over, and where those begin.

        Each app is returned once; `scanned` ends it.
        """
        if not self._passed or self._async_room < max(self._async_app_max // 2, 1):
            return []
        found = [
            (name, entry_id)
            for name, entry_id in self._passed.items()
            if name not in self._scanning and self._async_of(name) <= self._async_app_max // 2
        ]
        for name, _ in found:
            self._scanning.add(name)
            del self._passed[name]
        return found

    def scanned(self, app_name: str, calls: tuple[Waiting, ...], next_id: bytes | None) -> None:
        """Take in an app's calls that had been passed over; what comes after begins at `next_id`.

        The race: while the scan runs, newer calls of the app come by the usual way. They are
        passed over (`_offer_async`), and the scan or a later one finds them.
        """
        self._scanning.discard(app_name)
        for call in calls:
            if call.head.call_id in self._calls:
                continue
            if not self._has_async_room(app_name):
                self._passed[app_name] = call.entry_id
                return
            self._insert(call, last=True)
        if next_id is not None:
            self._passed[app_name] = next_id

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        lanes = [
            call
            for app in self._apps.values()
            for lane in app.lanes.values()
            for calls in (lane.sync, lane.async_)
            for call in calls.values()
        ]
        modes = [call.head.mode for call in lanes]
        facts = {
            "once": sorted(c.head.call_id for c in lanes) == sorted(self._calls),
            "sync": modes.count("sync") == self.sync_waiting,
            "async": modes.count("async") == self.async_waiting,
            "sizes": self.sizes() == {s: len(self.of_size(s)) for s in {c.size for c in lanes}},
            "orders": all(
                queue.order == sorted(a.key for a in self._apps.values() if size in a.lanes)
                for size, queue in self._queues.items()
            ),
            "idle": not any(app.idle for app in self._apps.values()),
            "due": sum(map(len, self._due.values()))
            == sum(1 for call in lanes if call.head.wait_until_ms),
        }
        if not all(facts.values()):
            raise AssertionError(f"backlog: {facts}")

    # -- inside

    @property
    def _async_room(self) -> int:
        return max(self.async_max - self.async_waiting, 0)

    @property
    def _async_app_max(self) -> int:
        return max(self.async_max // APP_PART, 1)

    def _async_of(self, app_name: str) -> int:
        app = self._apps.get(app_name)
        return app.async_ if app else 0

    def _has_async_room(self, app_name: str) -> bool:
        return self._async_room > 0 and self._async_of(app_name) < self._async_app_max

    def _offer_async(self, call: Waiting) -> Admission:
        app_name = call.head.app
        behind = app_name in self._passed or app_name in self._scanning
        if behind or not self._has_async_room(app_name):
            self._passed.setdefault(app_name, call.entry_id)
            return Admission.PASSED_OVER
        self._insert(call, last=True)
        return Admission.WAITS

    def _insert(self, call: Waiting, *, last: bool) -> None:
        app = self._app(call.head.app)
        queue = self._queues.get(call.size)
        if queue is None:
            queue = self._queues[call.size] = _Queue()
        lane = app.lanes.get(call.size)
        if lane is None:
            lane = app.lanes[call.size] = _Lane()
            bisect.insort(queue.order, app.key)
        calls = lane.of(call.head.mode)
        calls[call.head.call_id] = call
        if not last:
            calls.move_to_end(call.head.call_id, last=False)
        self._calls[call.head.call_id] = call
        self._count(call, app, queue, +1)
        if call.head.wait_until_ms:
            bucket = self._due.setdefault(call.head.wait_until_ms // BUCKET_MS, {})
            bucket[call.head.call_id] = None

    def _count(self, call: Waiting, app: _App, queue: _Queue, change: int) -> None:
        if call.head.mode == "sync":
            self.sync_waiting += change
            app.sync += change
            queue.sync += change
        else:
            self.async_waiting += change
            app.async_ += change
            queue.async_ += change

    def _forget_deadline(self, call: Waiting) -> None:
        if call.head.wait_until_ms:
            at = call.head.wait_until_ms // BUCKET_MS
            del self._due[at][call.head.call_id]
            if not self._due[at]:
                del self._due[at]

    def _app(self, name: str) -> _App:
        app = self._apps.get(name)
        if app is None:
            app = self._apps[name] = _App(name, served=self._servings - 0.5)
        return app

    def _forget_if_idle(self, app: _App) -> None:
        if app.idle:
            del self._apps[app.name]

    def _use(self, app: _App, size: Size, sign: int, served: float) -> None:
        queues = [self._queues[lane_size] for lane_size in app.lanes]
        for queue in queues:
            self._unlist(queue, app)
        app.used_mb += sign * size.memory_mb
        app.used_millicpus += sign * size.millicpus
        app.share, app.served = self._share(app), served
        for queue in queues:
            bisect.insort(queue.order, app.key)

    @staticmethod
    def _unlist(queue: _Queue, app: _App) -> None:
        del queue.order[bisect.bisect_left(queue.order, app.key)]

    def _share(self, app: _App) -> float:
        of_memory = app.used_mb / max(self._total.memory_mb, 1)
        of_cpus = app.used_millicpus / max(self._total.millicpus, 1)
        return max(of_memory, of_cpus)
