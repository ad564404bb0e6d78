"""What should happen next? The scheduler's whole state, with one door: events in, commands out.

Pure: no I/O, no clock. Owned by the task `decide` of `service.Reign`; nothing else touches it.

A call is in one of three places: waiting (in the backlog), assigned (its reservation is in the
ledger), or unknown here. The tables agree after every event: see `check`.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from services.scheduler import events
from services.scheduler.backlog import Admission, Backlog
from services.scheduler.capacity import Capacity
from services.scheduler.events import Command, Event, Now, Waiting
from services.scheduler.fleet import Runner, Standing
from services.scheduler.grants import Grant, Grants
from services.scheduler.ledger import NOTHING, Group, Reservation, Size
from services.scheduler.levels import ANYWHERE, NOWHERE
from services.scheduler.placement import Reason, Shortage
from services.scheduler.settings import Settings
from shared import messages

Door = Callable[[Any], None]

#: A runner whose stream was missing gets no calls for so long, in seconds.
HOLD_S = 1.0
#: Longer than this between two ticks, and it was the scheduler that was away, in seconds.
PAUSE_S = 2.0
#: Callers who left before their call was read are remembered for so long, in seconds.
LEFT_KEPT_S = 60.0
LEFT_MAX = 10_000
#: A wait is reported when it exceeds this, in milliseconds, and again after `REPORT_EVERY_S`.
REPORT_AFTER_MS = 1000
REPORT_EVERY_S = 10.0
#: A runner that says it holds fewer calls than the ledger has is audited so often, in seconds.
AUDIT_EVERY_S = 5.0
#: An engine is kept free for a large call for so long, and then for as long not, in seconds. It is
#: less than sync calls wait for capacity, as a rule.
EARMARK_MAX_S = 20.0
#: Places that are free are taken back so often, in seconds.
SWEEP_S = 1.0


class State:
    """The scheduler between two events.

    After each event everything is placed that can be: what still waits, waits for capacity.
    """

    def __init__(self, settings: Settings, epoch: int = 0) -> None:
        """`epoch` is the number of the reign."""
        self._settings = settings
        self.grants = Grants(epoch)
        self.capacity = Capacity()
        self.fleet = self.capacity.fleet
        self.ledger = self.capacity.ledger
        self.placement = self.capacity.placement
        self.backlog = Backlog(settings.sync_backlog_max, settings.async_backlog_max)
        self._now = Now(0.0, 0)
        self._commands: list[Command] = []
        #: Engines that may have more room than they had for those who wait.
        self._gaining: dict[str, None] = {}
        #: Calls whose callers left while the call was not waiting here, and when.
        self._left: OrderedDict[str, float] = OrderedDict()
        #: Sizes of async calls that no engine present could ever take, and since when.
        self._unfit: dict[Size, float] = {}
        self._reported: dict[tuple[Size, Reason], float] = {}
        #: When the earmark ends, if it does not before; and until when there is no other then.
        self._earmark_until_s = self._no_earmark_until_s = -math.inf
        #: Runner -> when it was last audited, and what was missing then.
        self._audits: dict[str, tuple[float, frozenset[str]]] = {}
        self._last_tick: tuple[float, bool] | None = None
        self._swept_s = 0.0
        self._doors: dict[type, Door] = {
            messages.Heartbeat: self._heartbeat,
            messages.ExecutionFinished: self._execution_finished,
            messages.PlaceKept: self._place_kept,
            messages.RunnerGone: self._runner_gone,
            messages.CancelCall: self._caller_left,
            events.Rebuilt: self._rebuilt,
            events.CallsArrived: self._calls_arrived,
            events.AsyncScanned: self._async_scanned,
            events.AssignFailed: self._assign_failed,
            events.RunnerReclaimed: self._runner_reclaimed,
            events.RunnerAudited: self._runner_audited,
            events.GrantRecalled: self._grant_recalled,
            events.Tick: self._tick,
        }

    def handle(self, event: Event, now: Now) -> list[Command]:
        """Take an event in and return what is to be done, in order."""
        self._now = now
        self._doors[type(event)](event)
        if self.backlog:
            self._place_all()
            if self.grants and self.backlog:
                self._close_grants(self.grants.open())
        for app, from_id in self.backlog.to_scan():
            self._commands.append(events.ScanAsync(app, from_id))
        commands, self._commands = self._commands, []
        return commands

    def waiting_by_reason(self) -> dict[Reason, int]:
        """Return how many calls wait for what."""
        counts: dict[Reason, int] = {}
        parked = self.backlog.parked_calls()
        if parked:
            counts["concurrency"] = sum(parked.values())
        for size, count in self.backlog.sizes().items():
            others = count - parked.get(size, 0)
            if others:
                reason = self.placement.shortage(size).reason
                counts[reason] = counts.get(reason, 0) + others
        return counts

    def check(self) -> None:
        """Raise AssertionError unless the invariants hold. For tests, after every event."""
        self.capacity.check()
        self.backlog.check()
        self.grants.check()
        for call in self.backlog:
            if call.head.call_id in self.ledger:
                raise AssertionError(f"{call.head.call_id} waits and is assigned")
            if self.capacity.find(call) is not None:
                raise AssertionError(f"{call} waits though there is room")
        if self.backlog.next() is not None:
            raise AssertionError(f"{self.backlog.next()} is still to be tried")

    # -- runners

    def _rebuilt(self, event: events.Rebuilt) -> None:
        for heartbeat in event.heartbeats:
            self.capacity.beat(heartbeat, self._now.s)
        for held in event.held:
            self._recover(held)
        for engine_id in {heartbeat.engine_id for heartbeat in event.heartbeats}:
            self._look_at(engine_id)
        for call_id in event.left:
            self._caller_left(messages.CancelCall(call_id))

    def _recover(self, held: events.Held) -> None:
        runner = self.fleet.get(held.runner_id)
        if runner is None or held.head.call_id in self.ledger:
            return
        charged = self.capacity.recover(events.waiting(b"0-0", held.head), runner)
        if charged != NOTHING:
            self.backlog.charge(held.head.app, charged, self._now.s)

    def _heartbeat(self, said: messages.Heartbeat) -> None:
        for engine_id in self.capacity.beat(said, self._now.s):
            self._look_at(engine_id)
        self._audit(said)

    def _audit(self, said: messages.Heartbeat) -> None:
        """Ask after a runner's calls if it says for long that it has fewer than it was given."""
        known = self.ledger.count_of(said.runner_id) - self.grants.out_of_sight(said.runner_id)
        if said.running >= known:
            self._audits.pop(said.runner_id, None)
            return
        last_s, suspects = self._audits.setdefault(said.runner_id, (self._now.s, frozenset()))
        if self._now.s - last_s >= AUDIT_EVERY_S:
            self._audits[said.runner_id] = (self._now.s, suspects)
            held = (c for c in self.ledger.held_by(said.runner_id) if c not in self.grants)
            self._commands.append(events.AuditRunner(said.runner_id, tuple(held)))

    def _runner_audited(self, event: events.RunnerAudited) -> None:
        """Release what was missing in two audits: its `ExecutionFinished` never reached us.

        Once is not enough: a call leaves the runner's stream before its container is gone. Nor do
        we know whether it has ended or was lost, with the stream or by a fail-over: a caller who
        has had an answer is not there to hear of it.
        """
        last_s, suspects = self._audits.get(event.runner_id, (self._now.s, frozenset()))
        missing = event.missing.union(self.grants.absent(event.runner_id, event.granted))
        self._audits[event.runner_id] = (last_s, missing)
        for call_id in sorted(suspects & missing):
            held = self.ledger.get(call_id)
            if held is not None and held.runner_id == event.runner_id:
                if call_id not in self.grants:
                    self._tell_lost(held)
                self._take_back(held)

    def _tell_lost(self, held: Reservation) -> None:
        if held.head is not None and held.call_id not in self._left:
            self._commands.append(events.TellLost(held.head))

    def _runner_gone(self, event: messages.RunnerGone) -> None:
        if self.fleet.get(event.runner_id) is not None:
            self._reclaim(event.runner_id, unstarted=event.unstarted)

    def _reclaim(self, runner_id: str, *, unstarted: bool = False) -> None:
        runner = self.fleet.get(runner_id)
        if runner is None or runner.standing is Standing.LEAVING:
            return
        self.fleet.stand(runner_id, Standing.LEAVING)
        self._look_at(runner.engine_id)
        self._close_grants([each for each in self.grants.open() if each.runner_id == runner_id])
        self._commands.append(events.ReclaimRunner(runner_id, unstarted))

    def _runner_reclaimed(self, event: events.RunnerReclaimed) -> None:
        for call_id in self.ledger.held_by(event.runner_id):
            self._release(call_id, event.runner_id)
        self._audits.pop(event.runner_id, None)
        engine_id = self.capacity.forget(event.runner_id)
        if engine_id is not None:
            self._look_at(engine_id)

    def _look_at(self, engine_id: str) -> None:
        """Note that something has changed about an engine or its runners."""
        joined = self.capacity.look_at(engine_id)
        self.backlog.set_total(self.ledger.total)
        self._room_at(engine_id)
        if joined:
            self.backlog.open_all()

    def _room_at(self, engine_id: str) -> None:
        """Note that an engine may have more room, and what of the waiting it may take now."""
        if not self.backlog:
            return
        self._gaining[engine_id] = None
        only = self.placement.kept_for(engine_id)
        for group in self.backlog.parked(self.ledger.free(engine_id)):
            if only in {None, group.size} and self.capacity.takes_more(engine_id, group):
                self.backlog.unpark(group)

    # -- calls

    def _calls_arrived(self, event: events.CallsArrived) -> None:
        for call in event.calls:
            self._call_arrived(call)

    def _call_arrived(self, call: Waiting) -> None:
        call_id = call.head.call_id
        known = self.backlog.get(call_id)
        if known is not None:
            if known.entry_id == call.entry_id:
                return
            self.backlog.remove(call_id)
        held = self.ledger.get(call_id)
        if held is not None:
            if held.entry_id == call.entry_id:
                return  # Read before it was assigned, on another way (`ScanAsync`).
            # It is in a stream of waiting calls, so no runner has it: one has put it back.
            self._take_back(held)
        if call_id in self._left:
            self._commands.append(events.CancelWaiting(call))
        elif call.head.mode == "sync" and self._cannot_ever(call.size):
            self._refuse_for_want_of_room(call)
        elif self._assign_at_once(call):
            pass
        elif self.backlog.offer(call) is Admission.REFUSED:
            self._refuse_one(call)

    def _cannot_ever(self, size: Size) -> bool:
        return not self.placement.could_ever(size) and self.placement.staying

    def _refuse_for_want_of_room(self, call: Waiting) -> None:
        self._commands.append(events.RefuseCall(call, "capacity", self._shortage(call).message))

    def _refuse_one(self, call: Waiting) -> None:
        """Refuse this call, or one of the app that takes up most of the backlog."""
        refused = self.backlog.make_way(call)
        bound = self._settings.sync_backlog_max
        message = f"{bound} calls wait for capacity already, the most that may"
        self._commands.append(events.RefuseCall(refused, "overloaded", message))

    def _async_scanned(self, event: events.AsyncScanned) -> None:
        # One that is assigned was put back and read again by the usual way before this answer.
        calls = tuple(call for call in event.calls if call.head.call_id not in self.ledger)
        self.backlog.scanned(event.app, calls, event.next_id)

    def _execution_finished(self, event: messages.ExecutionFinished) -> None:
        if event.call_id in self.grants:
            return  # Told twice: its place is left to the next call already.
        held = self.ledger.get(event.call_id) or self._place_of(event)
        if held is None or held.runner_id != event.runner_id:
            return
        grant = self.grants.grant(held, self._now.s) if self._may_be_left(held) else None
        if grant is None:
            self._take_back(held)
        else:
            self._commands.append(events.GrantPlace(grant.grant_id, grant.kind, grant.runner_id))

    def _release(self, call_id: str, runner_id: str) -> None:
        """Free what a call holds, if it holds it at that runner."""
        held = self.ledger.get(call_id)
        if held is not None and held.runner_id == runner_id:
            self._take_back(held)

    def _caller_left(self, event: messages.CancelCall) -> None:
        call = self.backlog.remove(event.call_id)
        if call is not None:
            self._commands.append(events.CancelWaiting(call))
            return
        # Not read yet, or assigned. In the second case it may still come back from the runner.
        self._left[event.call_id] = self._now.s
        if len(self._left) > LEFT_MAX:
            self._left.popitem(last=False)
        held = self.ledger.get(event.call_id)
        if held is not None:
            runners = [held.runner_id]
        else:
            # It may have gone to a runner past us; if nobody knows to which, to any of these.
            runners = [event.runner_id] if event.runner_id else self.grants.runners()
        for runner_id in runners:
            self._commands.append(events.ForwardCancel(runner_id, event.call_id))

    def _assign_failed(self, event: events.AssignFailed) -> None:
        call_id = event.call.head.call_id
        held = self.ledger.get(call_id)
        # It may be settled otherwise by now: finished, or moved back and read again.
        mine = held is not None and held.runner_id == event.runner_id
        if event.why == b"lost":
            runner = self.fleet.get(event.runner_id)
            if runner is not None and runner.standing is Standing.TRUSTED:
                self.fleet.stand(event.runner_id, Standing.HELD, self._now.s + HOLD_S)
                self._look_at(runner.engine_id)
        if not mine:
            return
        if event.why == b"lost" and call_id not in self._left:
            self.backlog.put_back(event.call)
        elif event.why == b"lost":
            self._commands.append(events.CancelWaiting(event.call))
        elif held is not None:
            # No outside worker takes a sync call: it is nobody's, its stream has been emptied.
            self._tell_lost(held)
        self._release(call_id, event.runner_id)

    # -- placing

    def _place_all(self) -> None:
        while True:
            while self._gaining:
                self._fill(self._gaining.popitem()[0])
            call = self.backlog.next()
            if call is None:
                return
            self._try(call)

    def _try(self, call: Waiting) -> None:
        """Place a call, or note why that cannot be."""
        is_blocked = self.backlog.is_blocked(call.size)
        runner = self.capacity.find(call, NOWHERE if is_blocked else ANYWHERE)
        if runner is not None:
            self._assign_waiting(call, runner)
        elif not is_blocked and self.capacity.is_room(call.size):
            self.backlog.park(call)
        else:
            self.backlog.block(call, self._now.s)

    def _fill(self, engine_id: str) -> None:
        """Give an engine's room to those who wait for it: nobody else has any for them."""
        while runners := self.placement.usable(engine_id):
            free, only = self.ledger.free(engine_id), self.placement.kept_for(engine_id)
            call = self.backlog.next_for(free, only)
            if call is None:
                return
            runner = self.capacity.find(call, runners)
            if runner is not None:
                self._assign_waiting(call, runner)
            else:
                self.backlog.park(call)

    def _assign_waiting(self, call: Waiting, runner: Runner) -> None:
        self.backlog.remove(call.head.call_id)
        self._assign(call, runner)

    def _assign_at_once(self, call: Waiting) -> bool:
        """Assign a call that nobody waits before; says whether there is room for it."""
        runner = None if self.backlog.overtakes(call) else self.capacity.find(call)
        if runner is not None:
            self._assign(call, runner)
        return runner is not None

    def _assign(self, call: Waiting, runner: Runner) -> None:
        charged = self.capacity.give(call, runner)
        self._commands.append(events.AssignCall(call, runner.runner_id))
        if call.group is not None:
            self._see_line(call.group, runner)
        if charged == NOTHING:
            return
        self.backlog.charge(call.head.app, charged, self._now.s)
        earmark = self.placement.earmark
        if earmark is not None and charged == earmark[1]:
            self._lift_earmark()

    def _see_line(self, group: Group, runner: Runner) -> None:
        """Note that a line begins if a group's sandboxes at a runner have just all been taken."""
        if self.ledger.members(runner.engine_id, runner.runner_id, group) == group.most:
            self.backlog.open(group)

    def _take_back(self, held: Reservation) -> None:
        """Free what a call holds."""
        self.grants.leave_out(held.call_id)
        freed = self.capacity.take(held)
        if held.group is not None:
            self.backlog.open(held.group)
        if freed != NOTHING:
            self.backlog.refund(held.app, freed)
            self._room_at(held.engine_id)

    def _shortage(self, call: Waiting) -> Shortage:
        """Say why a call is not placed now."""
        if call.group is not None and self.backlog.is_parked(call):
            return Shortage("concurrency", _no_place(call.group))
        return self.placement.shortage(call.size)

    def _lift_earmark(self) -> None:
        engine_id = self.placement.lift_earmark()
        if engine_id is not None:
            self._room_at(engine_id)
            self.backlog.open_all()

    # -- grants

    def _may_be_left(self, held: Reservation) -> bool:
        """Say whether the place of an ended call may be left to the next one like it."""
        if not held.sync or not held.sandbox_key or self.backlog:
            return False
        runner = self.fleet.get(held.runner_id)
        return runner is not None and runner.usable

    def _place_of(
        self, event: messages.ExecutionFinished | messages.PlaceKept
    ) -> Reservation | None:
        """Return the place of a grant that a call had; it belongs to the grant no more."""
        grant = self.grants.get(event.grant)
        if grant is None or grant.runner_id != event.runner_id:
            return None
        back = self.grants.back(grant)
        return self.ledger.get(back[0]) if back else None

    def _place_kept(self, event: messages.PlaceKept) -> None:
        if event.call_id in self.ledger:
            return
        held = self._place_of(event)
        if held is not None:
            self.capacity.rename(held, event.call_id)

    def _close_grants(self, grants: list[Grant]) -> None:
        for grant in grants:
            self._commands.append(events.RecallGrant(grant.grant_id, grant.kind, close=True))
            self.grants.close(grant)

    def _grant_recalled(self, event: events.GrantRecalled) -> None:
        grant = self.grants.get(event.grant_id)
        for call_id in self.grants.back(grant, event.free) if grant else ():
            held = self.ledger.get(call_id)
            if held is not None:
                self._take_back(held)

    def _sweep_grants(self) -> None:
        """Take back what is free just now; end what is empty, or at a runner that takes nothing."""
        for grant in self.grants.sweep():
            runner = self.fleet.get(grant.runner_id)
            if not grant.places or grant.is_old or runner is None or not runner.usable:
                self._close_grants([grant])
            else:
                self._commands.append(events.RecallGrant(grant.grant_id, grant.kind, close=False))

    # -- time

    def _tick(self, event: events.Tick) -> None:
        self._watch_runners(caught_up=event.caught_up)
        for call in self.backlog.overdue(self._now.ms):
            self._refuse_for_want_of_room(call)
            self.backlog.remove(call.head.call_id)
        if self._now.s - self._swept_s >= SWEEP_S:
            self._swept_s = self._now.s
            self._sweep_grants()
        while self._left and next(iter(self._left.values())) < self._now.s - LEFT_KEPT_S:
            self._left.popitem(last=False)
        self._fail_unfit()
        self._place_all()
        self._keep_earmark()
        self._report_waits()

    def _watch_runners(self, *, caught_up: bool) -> None:
        """Declare silent runners lost, unless it is we who were deaf.

        A scheduler that was paused or cut off from Redis gives everyone a fresh window once it
        has caught up: the runners could not be heard, or could not write either.
        """
        last_s, was_caught_up = self._last_tick or (self._now.s, True)
        self._last_tick = (self._now.s, caught_up)
        if not caught_up:
            return
        if not was_caught_up or self._now.s - last_s > PAUSE_S:
            self.fleet.forgive(self._now.s)
        for runner_id in self.fleet.silent(self._now.s, self._settings.runner_lost_s):
            self._reclaim(runner_id)
        for runner_id in self.fleet.held(self._now.s):
            self.fleet.stand(runner_id, Standing.TRUSTED)
            runner = self.fleet.get(runner_id)
            if runner is not None:
                self._look_at(runner.engine_id)

    def _fail_unfit(self) -> None:
        """End async calls that no runner present could take for a long time.

        They would fill the backlog for ever. With no runner at all, they wait.
        """
        since: dict[Size, float] = {}
        for size in self.backlog.sizes():
            if not self.backlog.has_async(size) or not self._cannot_ever(size):
                continue
            since[size] = self._unfit.get(size, self._now.s)
            if self._now.s - since[size] < self._settings.unfit_async_s:
                continue
            message = self.placement.shortage(size).message
            accepted_before_ms = self._now.ms - self._settings.unfit_async_s * 1000
            for call in self.backlog.of_size(size):
                if call.head.mode == "async" and call.head.accepted_ms <= accepted_before_ms:
                    self.backlog.remove(call.head.call_id)
                    self._commands.append(events.RefuseCall(call, "capacity", message))
        self._unfit = since

    def _keep_earmark(self) -> None:
        """Keep an engine free for the size that has been starved longest, so that it gets one.

        Small calls would otherwise take each bit of memory that becomes free, and a large one
        would never find enough of it at once. But what runs there may run for hours, and meanwhile
        others may use what it leaves.
        """
        earmark = self.placement.earmark
        if earmark is not None:
            engine_id, size = earmark
            view = self.fleet.view(engine_id)
            if self.backlog.wants_room(size) and view.usable and view.offered.covers(size):
                if self._now.s < self._earmark_until_s:
                    return
                self._no_earmark_until_s = self._now.s + EARMARK_MAX_S
            self._lift_earmark()
        if self._now.s < self._no_earmark_until_s:
            return
        for size in self.backlog.starved(self._now.s - self._settings.earmark_after_s):
            if self.placement.earmark_for(size) is not None:
                self._earmark_until_s = self._now.s + EARMARK_MAX_S
                return

    def _report_waits(self) -> None:
        reported: dict[tuple[Size, Reason], float] = {}
        for call in self.backlog.heads():
            shortage = self._shortage(call)
            what = (call.size, shortage.reason)
            at_s = self._reported.get(what)
            if at_s is not None and self._now.s - at_s < REPORT_EVERY_S:
                reported[what] = at_s
            elif self._now.ms - call.head.accepted_ms > REPORT_AFTER_MS:
                reported[what] = self._now.s
                self._commands.append(events.ReportWait(call, shortage.reason, shortage.message))
        self._reported = reported


def _no_place(group: Group) -> str:
    sandboxes = "sandbox is" if group.most == 1 else "sandboxes are"
    return (
        f"waits for its route's own sandboxes; wherever there is room, {group.most} {sandboxes} "
        f"in use and {group.longest - group.most} calls in line, the most that may be"
    )
