"""Who has which call, and where is room for one more? What knows of runners, kept in step.

`fleet`, `ledger`, `placement`, `sandboxes` and `lines` each answer one question. What concerns
several of them goes through here. Knows nothing of what waits, or of which app goes first.
"""

import msgspec

from services.scheduler.events import Waiting
from services.scheduler.fleet import Fleet, Runner, Standing
from services.scheduler.ledger import NOTHING, Group, Ledger, Reservation, Size
from services.scheduler.levels import ANYWHERE
from services.scheduler.placement import Placement
from services.scheduler.sandboxes import Lines, Sandboxes
from shared import imagenames, messages


class Capacity:
    """All runners and engines, and the calls that were given to them.

    Invariants: a runner's load is the number of its calls in the ledger; what an engine has free is
    the same for ledger and placement; a runner is in a group's lines with as many calls as the
    ledger has of it there.
    """

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.ledger = Ledger()
        self.placement = Placement()
        self.sandboxes = Sandboxes()
        self.lines = Lines()

    # -- runners

    def beat(self, said: messages.Heartbeat, now_s: float) -> tuple[str, ...]:
        """Take a heartbeat in. Returns the engines that are to be looked at anew."""
        changed = self.fleet.beat(said, now_s)
        runner = self.fleet[said.runner_id]
        if runner.standing is Standing.LEAVING:
            return ()
        if len(changed) > 1:
            self.ledger.move(runner.runner_id, runner.engine_id)
        self.sandboxes.beat(runner.runner_id, runner.bit, said.sandboxes)
        self.placement.set_idle(runner.engine_id, self.fleet.idle_mb(runner.engine_id))
        return changed

    def look_at(self, engine_id: str) -> int:
        """Bring ledger and placement up to what the fleet says of an engine.

        Returns the runners that have become usable, as a set.
        """
        view = self.fleet.view(engine_id)
        self.ledger.offer(engine_id, view.offered)
        before = self.placement.usable(engine_id)
        if view.offered == NOTHING and not view.staying:
            self.placement.remove(engine_id)
            return 0
        self.placement.describe(
            engine_id,
            offered=view.offered,
            images=view.images,
            usable=view.usable,
            staying=view.staying,
        )
        self.placement.set_free(engine_id, self.ledger.free(engine_id))
        self.placement.set_idle(engine_id, self.fleet.idle_mb(engine_id))
        return view.usable & ~before

    def forget(self, runner_id: str) -> str | None:
        """Forget a runner that has no calls any more. Returns its engine, to be looked at anew."""
        self.sandboxes.forget(runner_id)
        return self.fleet.remove(runner_id)

    # -- calls

    def find(self, call: Waiting, room: int = ANYWHERE) -> Runner | None:
        """Return the runner for a call; None if there is none now.

        One with capacity for it, of those in `room`, if there is any; else one with a place in
        line.
        """
        group, where = call.group, self.sandboxes.at(call.head.sandbox_key)
        spot = self.placement.best(
            call.size,
            imagenames.on_disk(call.head.image),
            room=room,
            ready=where.ready,
            home=where.home,
            full=self.lines.full(group) if group is not None else 0,
        )
        if spot is not None:
            return self.fleet.pick(*spot)
        if group is None:
            return None
        bit = self.lines.shortest(group, self.placement.open_to(call.size))
        return self.fleet.having(bit) if bit else None

    def is_room(self, size: Size) -> bool:
        """Say whether any runner has capacity for a call of this size."""
        return self.placement.best(size, "") is not None

    def takes_more(self, engine_id: str, group: Group) -> bool:
        """Say whether capacity of an engine is of use to a group: its sandboxes there are few."""
        return bool(self.placement.usable(engine_id) & ~self.lines.full(group))

    def give(self, call: Waiting, runner: Runner) -> Size:
        """Give a call to a runner; returns what it is charged. Raises `Overdrawn`."""
        held = _reservation(call, runner, call.entry_id)
        charged = self.ledger.reserve(held)
        self._count_in(held, runner, charged)
        return charged

    def recover(self, call: Waiting, runner: Runner) -> Size:
        """Note that a runner has a call from an earlier reign; returns what it is charged."""
        held = _reservation(call, runner, b"")
        charged = self.ledger.recover(held)
        self._count_in(held, runner, charged)
        return charged

    def take(self, held: Reservation) -> Size:
        """Note that a runner is rid of a call; returns how much became free."""
        runner, group = self.fleet[held.runner_id], held.group
        freed = self.ledger.release(held.call_id)
        runner.load -= 1
        if held.sandbox_key:
            self.sandboxes.take(held.runner_id, held.sandbox_key)
        if group is not None:
            left = self.ledger.members(held.engine_id, held.runner_id, group)
            self.lines.change(runner.bit, group, left + 1, left)
        if freed != NOTHING:
            self.placement.set_free(held.engine_id, self.ledger.free(held.engine_id))
        return freed

    def rename(self, held: Reservation, call_id: str) -> None:
        """Let another call hold what this one holds."""
        runner = self.fleet[held.runner_id]
        self.take(held)
        named = msgspec.structs.replace(held, call_id=call_id, entry_id=b"", head=None)
        self._count_in(named, runner, self.ledger.recover(named))

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        for part in (self.ledger, self.fleet, self.placement, self.sandboxes):
            part.check()
        for runner in self.fleet:
            if runner.load != self.ledger.count_of(runner.runner_id):
                raise AssertionError(f"load of {runner}")
        for engine_id in self.ledger.engines():
            if self.placement.free(engine_id) not in {None, self.ledger.free(engine_id)}:
                raise AssertionError(f"free capacity of {engine_id}")
        self.lines.check(
            {
                (self.fleet[runner_id].bit, group): members
                for runner_id, group, members in self.ledger.groups()
            }
        )

    def _count_in(self, held: Reservation, runner: Runner, charged: Size) -> None:
        runner.load += 1
        group = held.group
        if held.sandbox_key:
            most = group.most if group is not None else 0
            self.sandboxes.give(held.runner_id, runner.bit, held.sandbox_key, most)
        if group is not None:
            now = self.ledger.members(held.engine_id, held.runner_id, group)
            self.lines.change(runner.bit, group, now - 1, now)
        if charged != NOTHING:
            self.placement.set_free(held.engine_id, self.ledger.free(held.engine_id))


def _reservation(call: Waiting, runner: Runner, entry_id: bytes) -> Reservation:
    """Return what a call is to hold at a runner."""
    head = call.head
    return Reservation(
        head.call_id,
        head.app,
        runner.runner_id,
        runner.engine_id,
        call.size,
        entry_id,
        head.sandbox_key,
        call.group,
        head if head.reply_to else None,
        head.mode == "sync",
    )
