"""Who is next? The calls that wait for capacity, fair between apps, bounded.

Knows how much each app uses, but nothing of engines. Calls of one size (memory and cpus) fit or
do not fit together, so they wait together: a size that fits nowhere is blocked as a whole until
capacity for it appears, and costs nothing meanwhile.

Calls of a group (`ledger.Group`) can also be placed where no capacity is free, in line for the
group's sandboxes. So a group is tried once more, blocked or not, when something has changed for
it: it is open. And capacity may be no use to a group, because its lines are full wherever there
is some: then it is parked, and does not stand in the way of others of its size.
"""

import bisect
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum

from services.scheduler import lanes
from services.scheduler.events import Waiting
from services.scheduler.lanes import App, Bundle, Lane, Place, Queue
from services.scheduler.ledger import NOTHING, Group, Size
from services.scheduler.unread import Unread

#: Milliseconds in one bucket of deadlines.
BUCKET_MS = 100
#: One app's async calls take at most this part of the room that is left for references to async
#: calls: a quarter of all of it, if there is no other app.
LEFT_PART = 3


class Admission(Enum):
    """What became of a call that came to the backlog."""

    WAITS = "waits"
    #: Sync: there is no room. It is to be refused.
    REFUSED = "refused"
    #: Async: there is no room for a reference. It stays in its stream and is read again later.
    PASSED_OVER = "passed over"


class Backlog:
    """Waiting calls, and how much each app uses.

    Order: the app with the smallest dominant share goes first (the larger of its parts of all
    memory and of all cpus), then the one served least recently; an app without history counts as
    served just before the latest, so that neither newcomers nor regulars are starved. Within an
    app: sync first, then in the order of the stream, where hot routes and all others together
    take turns. What counts as used is what is charged: a place in line costs nothing, and only
    the group's own calls can have it, so it is given without regard to other apps. All this matters
    when there is not enough: a call that comes while none waits that it would overtake, and finds
    room, is placed at once.

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
        self._apps: dict[str, App] = {}
        self._queues: dict[Size, Queue] = {}
        #: Their sizes, sorted; and those not blocked: new ones, and all without lanes.
        self._sizes: list[Size] = []
        self._unblocked: dict[Size, Queue] = {}
        #: Lines of groups: those to be tried once more, and those that are parked.
        self._open: OrderedDict[Group, Bundle] = OrderedDict()
        self._parked: dict[Group, Bundle] = {}
        self._due: dict[int, dict[str, None]] = {}
        self._total = NOTHING
        self._servings = 0
        #: The app that pays when sync calls are too many.
        self._largest = ""
        self._unread = Unread()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._calls.values())

    def get(self, call_id: str) -> Waiting | None:
        """Return a waiting call."""
        return self._calls.get(call_id)

    @property
    def wants_async(self) -> bool:
        """Whether new async calls are to be read: some app has room.

        Calls of others are passed over then: apps whose calls wait for long leave room to the next.
        """
        return self._async_room > 0

    # -- calls come and go

    def overtakes(self, call: Waiting) -> bool:
        """Say whether a call would overtake others if it were placed at once."""
        if call.size in self._queues:
            return True
        for queue in self._unblocked.values():
            if queue.order:
                return True
        return call.head.mode == "async" and self._unread.is_behind(call.head.app)

    def offer(self, call: Waiting) -> Admission:
        """Take a call in, if there is room."""
        if call.head.mode == "async":
            return self._offer_async(call)
        if self.sync_waiting >= self.sync_max:
            return Admission.REFUSED
        self._insert(call, last=True)
        return Admission.WAITS

    def make_way(self, call: Waiting) -> Waiting:
        """Take a sync call in for which there is no room; returns the one that has to go for it.

        That is the newest sync call of the app with the most of them; or this call itself, if its
        app has about the most. So an app that floods the backlog pays for it, and others find room:
        with 10 places, 9 held by a and 1 by b, a call of c takes the place of the newest one of a.
        """
        largest = self._largest_beside(call.head.app)
        if largest is None:
            return call
        tables = (bundle.sync for bundle in largest.bundles.values())
        lasts = (next(reversed(table.values())) for table in tables if table)
        newest = max(lasts, key=lambda call: call.order)
        self.remove(newest.head.call_id)
        self._insert(call, last=True)
        return newest

    def _largest_beside(self, app_name: str) -> App | None:
        """Return the app with the most sync calls, if it has more than this one by two at least."""
        if self._largest == app_name:
            return None
        mine = self._apps[app_name].sync if app_name in self._apps else 0
        largest = self._apps.get(self._largest)
        if largest is None or largest.sync <= mine + 1:
            largest = max(self._apps.values(), key=lambda app: (app.sync, app.name), default=None)
            if largest is None or largest.sync <= mine + 1:
                return None
            self._largest = largest.name
        return largest

    def put_back(self, call: Waiting) -> None:
        """Take a call in again, first in its bundle, whether or not there is room."""
        self._insert(call, last=False)

    def remove(self, call_id: str) -> Waiting | None:
        """Take a call out, because it was placed or it ended."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return None
        app, queue = self._apps[call.head.app], self._queues[call.size]
        bundle = app.bundles[lanes.kind(call)]
        del bundle.of(call.head.mode)[call_id]
        if not bundle.parked:
            self._take_turn(app, call, bundle)
        if not bundle:
            self._forget_bundle(app, call)
        self._count(call, app, queue, -1)
        if not queue:
            self._forget_queue(call.size)
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
        """Return the call to be placed next, wherever there is room; None if all are blocked.

        It stays here. The size of a group's call may be blocked: then it is to be tried in line.
        """
        place = min((q.order[0] for q in self._unblocked.values() if q.order), default=None)
        if place is not None:
            app = self._apps[place[2]]
            return _first([app.lanes[size] for size in app.lanes if size in self._unblocked])
        return next(iter(self._open.values())).head() if self._open else None

    def next_for(self, free: Size, only: Size | None = None) -> Waiting | None:
        """Return the call to be placed next where this much has become free; None if none fits.

        `only`: the size of the only calls that may be. It stays here.
        """
        memory_mb, millicpus = free
        place: Place | None = None
        fitting: list[Size] = []
        for size in self._sizes:
            if size[0] > memory_mb:
                break
            if size[1] <= millicpus and (only is None or only == size):
                fitting.append(size)
                order = self._queues[size].order
                if order and (place is None or order[0] < place):
                    place = order[0]
        if place is None:
            return None
        app = self._apps[place[2]]
        return _first([app.lanes[size] for size in fitting if size in app.lanes])

    def block(self, call: Waiting, now_s: float) -> None:
        """Note that no engine can take a call of this one's size now, nor a line this call."""
        queue = self._queues[call.size]
        self._unblocked.pop(call.size, None)
        if queue.starved_since_s is None:
            queue.starved_since_s = now_s
        if call.group is not None:
            self._open.pop(call.group, None)
            self.unpark(call.group)

    def park(self, call: Waiting) -> None:
        """Note that a call's group cannot use the room that there is for calls of its size.

        Raises ValueError for a call of no group: it can use any room.
        """
        group = call.group
        if group is None:
            raise ValueError(f"{call} fits and is not placed")
        self._open.pop(group, None)
        app = self._apps[group.app]
        bundle = app.bundles[group]
        if bundle.parked:
            return
        bundle.parked = True
        self._parked[group] = bundle
        lane = app.lanes[group.size]
        for mode in ("sync", "async"):
            lane.of(mode).pop(group, None)
        self._forget_lane_if_empty(app, group.size)

    def unpark(self, group: Group) -> None:
        """Note that a group may be able to use room now."""
        bundle = self._parked.pop(group, None)
        if bundle is None:
            return
        bundle.parked = False
        for mode in ("sync", "async"):
            if bundle.of(mode):
                self._stand(self._apps[group.app], group.size, bundle, mode)

    def parked(self, free: Size) -> list[Group]:
        """Return the groups that are parked and whose calls fit into this."""
        return [group for group in self._parked if free.covers(group.size)]

    def open(self, group: Group) -> None:
        """Note that a place may have become free in one of a group's lines."""
        if group in self._open:
            return
        app = self._apps.get(group.app)
        bundle = app.bundles.get(group) if app else None
        if bundle is not None:
            self._open[group] = bundle

    def open_all(self) -> None:
        """Note that there may be places in line for any group."""
        for app in self._apps.values():
            for bundle in app.bundles.values():
                if bundle.group is not None:
                    self._open[bundle.group] = bundle

    # -- what waits

    def is_blocked(self, size: Size) -> bool:
        """Say whether calls of a size wait, and no engine can take one."""
        return size in self._queues and size not in self._unblocked

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
        return {size: len(queue) for size, queue in self._queues.items()}

    def parked_calls(self) -> dict[Size, int]:
        """Return how many calls of each size wait in groups that are parked."""
        counts: dict[Size, int] = {}
        for group, bundle in self._parked.items():
            counts[group.size] = counts.get(group.size, 0) + len(bundle)
        return counts

    def is_parked(self, call: Waiting) -> bool:
        """Say whether a call waits for its group's own sandboxes rather than for capacity."""
        return call.group is not None and call.group in self._parked

    def wants_room(self, size: Size) -> bool:
        """Say whether calls of this size wait that capacity would help."""
        return size in self._queues and bool(self._queues[size].order)

    def has_async(self, size: Size) -> bool:
        """Say whether async calls of this size wait."""
        return size in self._queues and self._queues[size].async_ > 0

    def of_size(self, size: Size) -> list[Waiting]:
        """Return all waiting calls of a size."""
        return [call for call in self._calls.values() if call.size == size]

    def heads(self) -> list[Waiting]:
        """Return, for each size, the first call that waits for capacity, and one that is parked."""
        parked = {group.size: bundle.head() for group, bundle in self._parked.items()}
        standing = [
            self._apps[queue.order[0][2]].lanes[size].first()
            for size, queue in self._queues.items()
            if queue.order
        ]
        return [*standing, *parked.values()]

    # -- how much each app uses

    def set_total(self, total: Size) -> None:
        """Set the capacity that shares are parts of."""
        if total == self._total:
            return
        self._total = total
        for app in self._apps.values():
            app.share = self._share(app)
        for queue in self._queues.values():
            queue.order = sorted(self._apps[name].place for _, _, name in queue.order)

    def charge(self, app_name: str, size: Size, now_s: float) -> None:
        """Note that an app has been given capacity: it has been served."""
        self._servings += 1
        app = self._apps.get(app_name) or self._new_app(app_name)
        self._use(app, size.memory_mb, size.millicpus, served=float(self._servings))
        queue = self._queues.get(size)
        if queue is not None and queue.starved_since_s is not None:
            queue.starved_since_s = now_s

    def refund(self, app_name: str, size: Size) -> None:
        """Note that an app has returned capacity."""
        app = self._apps[app_name]
        self._use(app, -size.memory_mb, -size.millicpus, served=app.served)
        self._forget_if_idle(app)

    # -- async calls beyond the bound

    def to_scan(self) -> list[tuple[str, bytes]]:
        """Return apps that have room again for async calls passed over, and where those begin.

        Each app is returned once; `scanned` ends it.
        """
        if not self._unread or not self._async_room:
            return []
        most = self._async_app_max // 2
        return self._unread.scan(lambda app_name: self._async_of(app_name) <= most)

    def scanned(self, app_name: str, calls: tuple[Waiting, ...], next_id: bytes | None) -> None:
        """Take in an app's calls that had been passed over; the rest begins at `next_id`."""
        self._unread.end_scan(app_name)
        for call in calls:
            if call.head.call_id in self._calls:
                continue
            if not self._has_async_room(app_name):
                self._unread.begin_at(app_name, call.entry_id)
                return
            self._insert(call, last=True)
        if next_id is not None:
            self._unread.begin_at(app_name, next_id)

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        bundles = [(kind, b) for app in self._apps.values() for kind, b in app.bundles.items()]
        calls = [call for _, bundle in bundles for call in bundle.all()]
        modes = [call.head.mode for call in calls]
        groups = {kind: bundle for kind, bundle in bundles if bundle.group is not None}
        facts = {
            "once": sorted(c.head.call_id for c in calls) == sorted(self._calls),
            "bundles": all(bundle and (bundle.group or kind) == kind for kind, bundle in bundles),
            "sync": modes.count("sync") == self.sync_waiting,
            "async": modes.count("async") == self.async_waiting,
            "sizes": self.sizes() == {s: len(self.of_size(s)) for s in {c.size for c in calls}},
            "lanes": all(self._has_right_lanes(app) for app in self._apps.values()),
            "orders": all(
                queue.order == sorted(a.place for a in self._apps.values() if size in a.lanes)
                for size, queue in self._queues.items()
            ),
            "blocked": self._sizes == sorted(self._queues)
            and all(self._queues[s] is q for s, q in self._unblocked.items())
            and all(q.order or s in self._unblocked for s, q in self._queues.items()),
            "open": all(groups.get(group) is bundle for group, bundle in self._open.items()),
            "parked": self._parked == {k: bundle for k, bundle in groups.items() if bundle.parked},
            "idle": not any(app.idle for app in self._apps.values()),
            "due": sum(map(len, self._due.values()))
            == sum(1 for call in calls if call.head.wait_until_ms),
        }
        if not all(facts.values()):
            raise AssertionError(f"backlog: {facts}")

    # -- inside

    @staticmethod
    def _has_right_lanes(app: App) -> bool:
        standing: dict[tuple[Size, str], set[Group | None]] = {}
        for bundle in app.bundles.values():
            for call in () if bundle.parked else bundle.all():
                standing.setdefault((call.size, call.head.mode), set()).add(bundle.group)
        listed = {
            (size, mode): set(lane.of(mode))
            for size, lane in app.lanes.items()
            for mode in ("sync", "async")
            if lane.of(mode)
        }
        return listed == standing and all(app.lanes.values())

    @property
    def _async_room(self) -> int:
        return max(self.async_max - self.async_waiting, 0)

    @property
    def _async_app_max(self) -> int:
        return max(self._async_room // LEFT_PART, 1)

    def _async_of(self, app_name: str) -> int:
        app = self._apps.get(app_name)
        return app.async_ if app else 0

    def _has_async_room(self, app_name: str) -> bool:
        return self._async_room > 0 and self._async_of(app_name) < self._async_app_max

    def _offer_async(self, call: Waiting) -> Admission:
        app_name = call.head.app
        if self._unread.is_behind(app_name) or not self._has_async_room(app_name):
            self._unread.pass_over(app_name, call.entry_id)
            return Admission.PASSED_OVER
        self._insert(call, last=True)
        return Admission.WAITS

    def _insert(self, call: Waiting, *, last: bool) -> None:
        app = self._apps.get(call.head.app) or self._new_app(call.head.app)
        kind, mode = lanes.kind(call), call.head.mode
        if call.size not in self._queues:
            self._queues[call.size] = self._unblocked[call.size] = Queue()
            bisect.insort(self._sizes, call.size)
        bundle = app.bundles.get(kind)
        if bundle is None:
            bundle = app.bundles[kind] = Bundle(group=call.group)
            if call.group is not None:
                self._open[call.group] = bundle
        calls = bundle.of(mode)
        calls[call.head.call_id] = call
        if not last:
            calls.move_to_end(call.head.call_id, last=False)
        if not bundle.parked:
            self._stand(app, call.size, bundle, mode)
        self._calls[call.head.call_id] = call
        self._count(call, app, self._queues[call.size], +1)
        if call.head.wait_until_ms:
            bucket = self._due.setdefault(call.head.wait_until_ms // BUCKET_MS, {})
            bucket[call.head.call_id] = None

    def _stand(self, app: App, size: Size, bundle: Bundle, mode: str) -> None:
        """Let a bundle have its turn in its app's lane."""
        lane = app.lanes.get(size)
        if lane is None:
            if not app.lanes:
                app.share = self._share(app)
            lane = app.lanes[size] = Lane()
            bisect.insort(self._queues[size].order, app.place)
        lane.of(mode)[bundle.group] = bundle

    def _take_turn(self, app: App, call: Waiting, bundle: Bundle) -> None:
        """Let the other bundles of a lane go first, after a call of this one was taken out."""
        turns = app.lanes[call.size].of(call.head.mode)
        if bundle.of(call.head.mode):
            turns.move_to_end(bundle.group)
            return
        del turns[bundle.group]
        self._forget_lane_if_empty(app, call.size)

    def _forget_lane_if_empty(self, app: App, size: Size) -> None:
        if not app.lanes[size]:
            queue = self._queues[size]
            del app.lanes[size]
            self._unlist(queue, app)
            if not queue.order:
                queue.starved_since_s = None
                self._unblocked[size] = queue

    def _forget_bundle(self, app: App, call: Waiting) -> None:
        del app.bundles[lanes.kind(call)]
        if call.group is not None:
            self._open.pop(call.group, None)
            self._parked.pop(call.group, None)

    def _forget_queue(self, size: Size) -> None:
        del self._queues[size]
        del self._sizes[bisect.bisect_left(self._sizes, size)]
        self._unblocked.pop(size, None)

    def _count(self, call: Waiting, app: App, queue: Queue, change: int) -> None:
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

    def _new_app(self, name: str) -> App:
        app = self._apps[name] = App(name, served=self._servings - 0.5)
        return app

    def _forget_if_idle(self, app: App) -> None:
        if not app.bundles and app.idle:
            del self._apps[app.name]

    def _use(self, app: App, memory_mb: int, millicpus: int, served: float) -> None:
        """Note that an app uses more, or less, and when it was served."""
        for size in app.lanes:
            self._unlist(self._queues[size], app)
        app.used_mb += memory_mb
        app.used_millicpus += millicpus
        app.served = served
        if app.lanes:
            app.share = self._share(app)
            for size in app.lanes:
                bisect.insort(self._queues[size].order, app.place)

    @staticmethod
    def _unlist(queue: Queue, app: App) -> None:
        del queue.order[bisect.bisect_left(queue.order, app.place)]

    def _share(self, app: App) -> float:
        total_mb, total_millicpus = self._total
        return max(app.used_mb / (total_mb or 1), app.used_millicpus / (total_millicpus or 1))


def _first(lanes: list[Lane]) -> Waiting:
    """Return the call that goes first of one app's lanes."""
    calls = [lane.first() for lane in lanes]
    return calls[0] if len(calls) == 1 else min(calls, key=_by_mode_and_order)


def _by_mode_and_order(call: Waiting) -> tuple[bool, int]:
    return (call.head.mode == "async", call.order)
