"""Which sandbox does a call get, and which should there be? Given what happens, expect actions."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from services.runner import pool as pools
from services.runner.pool import AHEAD_MAX, QUIET_MS, Action, Give, Kind, Pool, Remove, Start
from tests.unit.runner.builders import NOW_MS, kind

K = kind()
ROOMY_MB = 10_000


@dataclass
class Yard:
    """A pool in which time passes. What is to be done is checked, and told at each step."""

    pool: Pool = field(default_factory=lambda: Pool(ROOMY_MB))
    now_ms: int = NOW_MS

    def settled(self) -> list[Action]:
        actions = self.pool.settle(self.now_ms)
        self.pool.check()
        assert self.pool.settle(self.now_ms) == [], "what is to be done was not all told"
        return actions

    def after(self, passed_ms: int) -> list[Action]:
        self.now_ms += passed_ms
        self.pool.tick(self.now_ms)
        return self.settled()

    def waits(self, *call_ids: str, for_a: Kind = K) -> list[Action]:
        actions: list[Action] = []
        for call_id in call_ids:
            self.pool.wait(call_id, for_a, self.now_ms)
            actions += self.settled()
        return actions

    def ready(self, *sandbox_ids: str, start_ms: float = 100, digest: str = "d") -> list[Action]:
        for sandbox_id in sandbox_ids:
            self.pool.ready(sandbox_id, digest, start_ms, self.now_ms)
        return self.settled()

    def freed(self, sandbox_id: str, run_ms: float = 1, *, reusable: bool = True) -> list[Action]:
        self.pool.freed(sandbox_id, run_ms, self.now_ms, reusable=reusable)
        return self.settled()

    def failed(self, sandbox_id: str) -> list[Action]:
        self.pool.failed(sandbox_id, self.now_ms)
        return self.settled()

    def lost(self, sandbox_id: str) -> list[Action]:
        self.pool.lost(sandbox_id, self.now_ms)
        return self.settled()

    def gone(self, *sandbox_ids: str) -> list[Action]:
        for sandbox_id in sandbox_ids:
            self.pool.gone(sandbox_id)
        return self.settled()

    def wants(self, *kinds: Kind) -> list[Action]:
        self.pool.want(kinds)
        return self.settled()

    def warm(self, count: int = 1, of: Kind = K, run_ms: float = 1) -> list[str]:
        """Have idle sandboxes of a kind, of which each has run one call; return their ids."""
        ids: list[str] = []
        for number in range(count):
            actions = self.waits(f"warm-{number}", for_a=of)
            # While a second passes that the others run, another one becomes worth its start.
            (start,) = actions or self.after(1_000)
            assert isinstance(start, Start)
            assert self.ready(start.sandbox_id) == [Give(f"warm-{number}", start.sandbox_id)]
            ids.append(start.sandbox_id)
        for sandbox_id in ids:
            assert self.freed(sandbox_id, run_ms) == []
        return ids


def given(actions: list[Action]) -> list[Give]:
    return [action for action in actions if isinstance(action, Give)]


def started(actions: list[Action]) -> list[Kind]:
    return [action.kind for action in actions if isinstance(action, Start)]


def removed(actions: list[Action]) -> list[str]:
    return [action.sandbox_id for action in actions if isinstance(action, Remove)]


def names(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


@pytest.fixture
def yard() -> Iterator[Yard]:
    made = Yard()
    yield made
    made.pool.check()


# A call gets a sandbox.


def test_a_first_call_gets_one_started(yard: Yard) -> None:
    assert yard.waits("c1") == [Start("1", K)]
    assert yard.ready("1") == [Give("c1", "1")]


def test_an_idle_one_is_used_at_once_the_last_used_first(yard: Yard) -> None:
    first, second = yard.warm(2)
    assert yard.waits("c1") == [Give("c1", second)]
    assert yard.waits("c2") == [Give("c2", first)]


def test_calls_get_their_turn_in_order_but_for_one_that_was_refused(yard: Yard) -> None:
    yard.waits("c1", "c2")
    yard.pool.wait("c0", K, yard.now_ms, first=True)
    assert yard.ready("1") == [Give("c0", "1")]
    assert yard.freed("1") == [Give("c1", "1")]


def test_one_that_waits_no_longer_gets_nothing(yard: Yard) -> None:
    yard.waits("c1")
    yard.pool.forget("c1", K.key)
    assert yard.ready("1") == []
    yard.pool.forget("c1", "unknown")
    assert yard.waits("c2") == [Give("c2", "1")]


def test_one_that_is_not_reusable_goes(yard: Yard) -> None:
    (warm,) = yard.warm()
    yard.waits("c1")
    assert yard.freed(warm, reusable=False) == [Remove(warm)]
    assert yard.waits("c2") == [Start("2", K)]
    assert yard.gone(warm) == []


# Spawn or wait.


@pytest.mark.parametrize(("run_ms", "more"), [(1, 0), (50, 9)])
def test_the_example_of_the_docstring(yard: Yard, run_ms: float, more: int) -> None:
    yard.warm(run_ms=run_ms)
    assert given(yard.waits("busy"))
    assert started(yard.waits(*names(20))) == [K] * more


def test_how_long_calls_run_is_at_least_what_the_longest_has_run(yard: Yard) -> None:
    yard.waits("busy")
    yard.ready("1")
    assert yard.waits(*names(20)) == []
    assert started(yard.after(50)) == [K] * 9


def test_one_that_runs_longer_than_the_others_did_is_one_value_among_others(yard: Yard) -> None:
    yard.warm(run_ms=1)
    assert given(yard.waits("busy"))
    assert yard.waits(*names(20)) == []
    # As if calls took 8 ms: (4 * 1 + 36) / 5. The last of 20 would wait 160 ms, not 720.
    assert started(yard.after(36)) == [K]


def test_for_short_calls_one_is_started_after_the_other(yard: Yard) -> None:
    yard.warm(run_ms=9)
    assert given(yard.waits("busy"))
    assert started(yard.waits(*names(60))) == [K]
    assert started(yard.after(1)) == []
    assert started(yard.ready("2")) == [K]


def test_no_more_are_started_than_calls_wait(yard: Yard) -> None:
    yard.warm(run_ms=60_000)
    yard.waits("busy")
    assert started(yard.waits("c1", "c2")) == [K, K]
    assert yard.after(1_000) == []


def test_the_slower_the_start_the_longer_it_is_waited_for_those_there_are(yard: Yard) -> None:
    yard.wants(kind(least=1))
    for number in range(1, 40):
        yard.ready(f"{number}", start_ms=1_000)
        yard.lost(f"{number}")
        yard.after(30_000)
    yard.ready("40", start_ms=1_000)
    yard.waits("first")
    yard.freed("40", run_ms=50)
    assert given(yard.waits("busy"))
    # The last of twenty would wait 1000 ms for the one there is: as long as for a new one.
    assert started(yard.waits(*names(19))) == []
    assert started(yard.waits("c19", "c20")) == [K]


def test_a_queue_that_does_not_end_is_paid_with_one_more(yard: Yard) -> None:
    (warm,) = yard.warm(run_ms=1)
    yard.waits(*names(6))
    passed_ms = 0
    for number in range(6, 1_000):
        yard.now_ms += 1
        passed_ms += 1
        actions = yard.freed(warm) + yard.waits(f"c{number}")
        assert len(given(actions)) == 1
        if started(actions):
            break
    # Five calls wait all the time; eight starts of 100 ms each are what it may cost.
    assert passed_ms == 8 * 100 / 5
    assert started(actions) == [K]


def test_those_that_start_are_counted_on(yard: Yard) -> None:
    assert started(yard.waits(*names(4))) == [K]
    assert yard.after(1) == []


def test_there_are_never_more_than_the_route_allows(yard: Yard) -> None:
    two = kind(most=2)
    assert started(yard.waits(*names(20), for_a=two)) == [two]
    assert started(yard.after(1_000)) == [two]
    assert yard.after(10_000) == []
    yard.ready("1", "2")
    assert yard.after(10_000) == []


def test_a_lowered_bound_lets_idle_ones_go_and_busy_ones_after_their_call(yard: Yard) -> None:
    first, second, third = yard.warm(3)
    assert given(yard.waits("c1")) == [Give("c1", third)]
    assert removed(yard.waits("c2", for_a=kind(most=1, revision=1))) == [first, second]
    assert yard.after(10_000) == []
    assert yard.freed(third) == [Give("c2", third)]


# Memory.


def test_the_one_unused_for_longest_gives_way(yard: Yard) -> None:
    yard.pool = Pool(300)
    (a,) = yard.warm(of=kind("a"))
    (b,) = yard.warm(of=kind("b"))
    (c,) = yard.warm(of=kind("c"))
    yard.waits("again", for_a=kind("a"))
    yard.freed(a)
    assert yard.waits("c1") == [Remove(b)]
    assert yard.gone(b) == [Start("4", K)]
    assert yard.pool.ids() == {a, c, "4"}


def test_busy_ones_never_give_way(yard: Yard) -> None:
    yard.pool = Pool(100)
    yard.waits("c1", for_a=kind("a"))
    yard.ready("1")
    assert yard.waits("c2") == []
    assert yard.freed("1") == [Remove("1")]
    assert yard.gone("1") == [Start("2", K)]


def test_those_kept_ready_give_way_last(yard: Yard) -> None:
    yard.pool = Pool(200)
    yard.wants(kind("kept", least=1))
    yard.ready("1")
    yard.now_ms += 1
    (other,) = yard.warm(of=kind("other"))
    assert yard.waits("c1") == [Remove(other)]
    yard.gone(other)
    yard.ready("3")
    assert yard.waits("c2", for_a=kind("b")) == [Remove("1")]


def test_room_is_made_at_once_for_all_that_are_missing(yard: Yard) -> None:
    yard.pool = Pool(400)
    old = yard.warm(3, of=kind("a"))
    yard.warm(run_ms=10_000)
    yard.waits("busy")
    assert removed(yard.waits("c1", "c2", "c3")) == old
    assert started(yard.gone(*old)) == [K] * 3


def test_no_more_room_is_made_than_is_missing(yard: Yard) -> None:
    yard.pool = Pool(400)
    old = yard.warm(4, of=kind("a"))
    assert yard.waits("c1") == [Remove(old[0])]
    assert yard.after(1) == []


def test_one_larger_than_all_memory_is_started_alone(yard: Yard) -> None:
    yard.pool = Pool(300)
    idle = yard.warm(2, of=kind("a"))
    large = kind(memory_mb=1_000)
    assert removed(yard.waits("c1", for_a=large)) == idle
    assert yard.gone(idle[0]) == []
    assert yard.gone(idle[1]) == [Start("3", large)]


def test_what_gives_way_to_a_call_does_not_take_the_memory_again(yard: Yard) -> None:
    yard.pool = Pool(200)
    yard.wants(kind("kept", least=2))
    yard.ready("1", "2")
    assert yard.waits("c1") == [Remove("1")]
    assert yard.gone("1") == [Start("3", K)]
    assert yard.after(60_000) == []
    yard.ready("3")
    yard.freed("3")
    assert yard.after(60_000) == [Remove("3")]
    yard.gone("3")
    assert started(yard.after(1)) == [kind("kept", least=2)]


def test_a_call_comes_before_what_nobody_waits_for_yet(yard: Yard) -> None:
    yard.pool = Pool(100)
    yard.pool.want([kind("kept", least=1)])
    yard.pool.wait("c1", K, yard.now_ms)
    assert yard.settled() == [Start("1", K)]


# Kept ready.


def test_wanted_ones_are_kept_ready_without_any_call(yard: Yard) -> None:
    kept = kind(least=2)
    assert started(yard.wants(kept)) == [kept, kept]
    yard.ready("1", "2")
    assert yard.after(24 * 3_600_000) == []
    assert yard.waits("c1") == [Give("c1", "2")]
    assert yard.freed("2", reusable=False) == [Remove("2"), Start("3", K)]


def test_what_is_no_longer_wanted_goes_when_it_is_old(yard: Yard) -> None:
    kept = kind(least=1, idle_timeout_ms=5_000)
    yard.wants(kept)
    yard.ready("1")
    assert yard.wants() == []
    assert yard.after(4_999) == []
    assert yard.after(1) == [Remove("1")]
    yard.gone("1")
    assert yard.after(1) == []


def test_what_is_wanted_may_become_more_and_less(yard: Yard) -> None:
    yard.wants(kind(least=1))
    assert len(started(yard.wants(kind(least=3)))) == 2
    yard.ready("1", "2", "3")
    yard.wants(kind(least=1))
    assert len(removed(yard.after(30_000))) == 2


def test_a_bound_holds_also_for_what_is_kept_ready(yard: Yard) -> None:
    assert len(started(yard.wants(kind(least=3, most=2)))) == 2


def test_idle_ones_go_when_they_are_old(yard: Yard) -> None:
    first, second = yard.warm(2)
    yard.now_ms += 20_000
    yard.waits("c1")
    yard.freed(second)
    assert yard.after(9_999) == []
    assert yard.after(1) == [Remove(first)]
    assert yard.after(20_000) == [Remove(second)]
    assert yard.pool.counts() == ()


# Used once.


ONCE = kind(isolation="call")


def test_one_that_runs_one_call_is_never_used_again(yard: Yard) -> None:
    yard.waits("c1", for_a=ONCE)
    assert Give("c1", "1") in yard.ready("1")
    assert Remove("1") in yard.freed("1")


def test_each_call_has_one_of_its_own_started(yard: Yard) -> None:
    assert started(yard.waits(*names(5), for_a=ONCE)) == [ONCE] * 5


def test_as_many_are_started_ahead_as_were_used_lately(yard: Yard) -> None:
    yard.waits(*names(3), for_a=ONCE)
    yard.ready("1", "2", "3")
    assert started(yard.after(QUIET_MS)) == [ONCE] * 4
    yard.ready("4", "5", "6", "7")
    assert yard.waits("c4", for_a=ONCE) == [Give("c4", "7")]
    # Each that is taken is replaced, and one more is there in case the demand grows.
    assert yard.after(QUIET_MS) == [Start("8", ONCE), Start("9", ONCE)]


def test_a_start_ahead_does_not_take_the_cpus_from_the_call_that_asks_for_it(yard: Yard) -> None:
    yard.waits("c1", for_a=ONCE)
    assert yard.ready("1") == [Give("c1", "1")]
    assert yard.pool.hurried, "the next tick is to come soon"
    assert yard.after(QUIET_MS - 1) == []
    assert yard.freed("1") == [Remove("1")]
    assert yard.pool.hurried
    assert started(yard.after(1)) == [ONCE] * 2
    assert not yard.pool.hurried


def test_while_calls_wait_those_started_ahead_are_not_put_off(yard: Yard) -> None:
    yard.waits("c1", for_a=ONCE)
    assert yard.ready("1") == [Give("c1", "1")]
    assert len(started(yard.waits("c2", for_a=ONCE))) > 1


def test_so_many_are_started_ahead_at_most(yard: Yard) -> None:
    yard.waits(*names(30), for_a=ONCE)
    yard.ready(*[f"{n + 1}" for n in range(30)])
    assert len(started(yard.after(QUIET_MS))) == AHEAD_MAX


def test_without_calls_those_started_ahead_go(yard: Yard) -> None:
    yard.waits("c1", for_a=ONCE)
    yard.ready("1")
    yard.freed("1")
    yard.gone("1")
    yard.after(QUIET_MS)
    yard.ready("2", "3")
    assert sorted(removed(yard.after(ONCE.idle_timeout_ms))) == ["2", "3"]
    yard.gone("2", "3")
    assert yard.after(1) == []
    assert len(yard.pool) == 0


def test_as_many_unused_ones_are_kept_ready_as_are_wanted(yard: Yard) -> None:
    kept = kind(isolation="call", least=2)
    yard.wants(kept)
    yard.ready("1", "2")
    actions = yard.waits("c1", for_a=kept)
    assert given(actions) == [Give("c1", "2")]
    yard.freed("2")
    yard.gone("2")
    actions = yard.after(QUIET_MS)
    yard.ready(*[action.sandbox_id for action in actions if isinstance(action, Start)])
    yard.after(kept.idle_timeout_ms)
    (count,) = yard.pool.counts()
    assert count.idle == 2


# Routes change.


def test_a_changed_route_lets_the_old_ones_go_without_failing_a_call(yard: Yard) -> None:
    old, new = kind("old", path="/p"), kind("new", path="/p", revision=2)
    idle, busy = yard.warm(2, of=old)
    yard.waits("running", for_a=old)
    assert yard.waits("c1", for_a=new) == [Remove(idle), Start("3", new)]
    assert yard.freed(busy) == [Remove(busy)]


def test_a_call_of_before_the_change_still_gets_its_own(yard: Yard) -> None:
    old, new = kind("old", path="/p"), kind("new", path="/p", revision=2)
    yard.waits("before", for_a=old)
    yard.waits("after", for_a=new)
    assert yard.ready("1") == [Give("before", "1")]
    assert yard.ready("2") == [Give("after", "2")]
    assert yard.freed("1") == [Remove("1")]
    assert yard.waits("late", for_a=old) == [Start("3", old)]
    assert yard.freed("2") == []


def test_one_that_was_on_its_way_when_the_route_changed_goes_if_nobody_waits(yard: Yard) -> None:
    old, new = kind("old", path="/p"), kind("new", path="/p", revision=2)
    yard.waits("before", for_a=old)
    yard.waits("after", for_a=new)
    yard.pool.forget("before", "old")
    assert yard.ready("1") == [Remove("1")]


def test_other_routes_are_left_alone(yard: Yard) -> None:
    yard.warm(of=kind("a", path="/a"))
    assert removed(yard.waits("c1", for_a=kind("b", path="/b", revision=9))) == []


def test_those_wanted_are_replaced_when_others_are_wanted(yard: Yard) -> None:
    old = kind("old", path="/p", least=1)
    new = kind("new", path="/p", least=1, revision=2)
    yard.wants(old)
    yard.ready("1")
    # A call can know of the change before the runner is told what is wanted now.
    assert yard.waits("c1", for_a=kind("new", path="/p", revision=2)) == [Start("2", K_NEW)]
    assert yard.wants(new) == [Remove("1")]


K_NEW = kind("new", path="/p", revision=2)


def test_the_newest_word_on_a_kind_counts_whatever_comes_last(yard: Yard) -> None:
    yard.warm(of=kind(revision=2, idle_timeout_ms=5_000))
    yard.waits("late", for_a=kind(revision=1, idle_timeout_ms=60_000))
    yard.freed("1")
    assert yard.after(5_000) == [Remove("1")]


def test_an_image_that_moved_lets_its_sandboxes_go(yard: Yard) -> None:
    idle, busy = yard.warm(2)
    (other,) = yard.warm(of=kind("other", image="img:2"))
    yard.waits("running")
    yard.pool.image_moved("img:1", "d")
    assert yard.settled() == []
    yard.pool.image_moved("img:1", "e")
    assert yard.settled() == [Remove(idle)]
    assert yard.freed(busy) == [Remove(busy)]
    assert yard.pool.ids() == {idle, busy, other}


# What dies.


def test_one_lost_while_idle_is_removed_and_used_no_more(yard: Yard) -> None:
    (warm,) = yard.warm()
    assert yard.lost(warm) == [Remove(warm)]
    assert yard.lost(warm) == []
    assert yard.waits("c1") == [Start("2", K)]


def test_one_lost_on_its_way_goes_when_it_is_there(yard: Yard) -> None:
    yard.wants(kind(least=1))
    assert yard.lost("1") == []
    assert yard.ready("1") == [Remove("1")]


def test_one_lost_on_its_way_takes_a_call_that_waits_because_that_learns_why(yard: Yard) -> None:
    yard.waits("c1")
    assert yard.lost("1") == []
    assert yard.ready("1") == [Give("c1", "1")]
    assert yard.freed("1") == [Remove("1")]


def test_those_that_die_unused_are_started_again_ever_more_slowly(yard: Yard) -> None:
    yard.wants(kind(least=1))
    pauses_ms = []
    for number in range(1, 13):
        yard.ready(f"{number}")
        yard.lost(f"{number}")
        yard.gone(f"{number}")
        waited_ms = 0
        while not started(yard.after(200)):
            waited_ms += 200
        pauses_ms.append(waited_ms + 200)
    assert pauses_ms[:8] == [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600]
    assert set(pauses_ms[8:]) == {30_000}


def test_one_that_ran_a_call_ends_the_slowness(yard: Yard) -> None:
    yard.wants(kind(least=1))
    for number in ("1", "2", "3"):
        yard.failed(number)
        yard.gone(number)
        yard.after(10_000)
    yard.ready("4")
    yard.waits("c1")
    yard.freed("4")
    assert started(yard.lost("4"))
    yard.failed("5")
    assert yard.after(199) == []
    assert started(yard.after(1))


def test_those_that_die_with_the_engine_are_started_as_soon_as_it_is_back(yard: Yard) -> None:
    yard.wants(kind(least=3))
    for number in ("1", "2", "3"):
        yard.ready(number)
    yard.pool.pause()
    for number in ("1", "2", "3"):
        yard.lost(number)
        yard.gone(number)
    yard.pool.resume()
    assert len(started(yard.after(0))) == 3


def test_a_call_with_no_sandbox_at_all_does_not_wait_for_the_pause(yard: Yard) -> None:
    yard.wants(kind(least=1))
    yard.failed("1")
    assert started(yard.waits("c1"))


@pytest.mark.parametrize("isolation", ["sandbox", "call"])
def test_a_burst_on_what_cannot_start_comes_to_an_end(yard: Yard, isolation: str) -> None:
    """While others are on their way, one that failed is not replaced at once: that never ended."""
    broken = kind(isolation=isolation)
    yard.waits(*names(64), for_a=broken)
    *starting, last = sorted(yard.pool.ids())
    assert starting
    for sandbox_id in starting:
        assert started(yard.failed(sandbox_id)) == []
    # With the last of them `state` ends the calls.
    assert yard.pool.alive(broken.key) == 1
    for call_id in names(64):
        yard.pool.forget(call_id, broken.key)
    assert yard.failed(last) == [Remove(last)]


# Pause and end.


def test_nothing_is_started_during_a_pause(yard: Yard) -> None:
    yard.pool.pause()
    assert yard.wants(kind("kept", least=1)) == []
    assert yard.waits("c1") == []
    assert yard.after(60_000) == []
    yard.pool.resume()
    assert sorted(k.key for k in started(yard.settled())) == ["k", "kept"]


def test_what_is_there_is_used_during_a_pause(yard: Yard) -> None:
    (warm,) = yard.warm()
    yard.pool.pause()
    assert yard.waits("c1") == [Give("c1", warm)]


def test_at_the_end_all_go_that_are_not_busy(yard: Yard) -> None:
    idle, busy = yard.warm(2)
    yard.waits("running")
    yard.waits("waiting", for_a=kind("b"))
    yard.pool.forget("waiting", "b")
    yard.pool.close()
    assert yard.settled() == [Remove(idle)]
    assert yard.ready("3") == [Remove("3")]
    assert yard.freed(busy) == [Remove(busy)]
    assert yard.after(60_000) == []


# What is told.


def test_what_a_heartbeat_says(yard: Yard) -> None:
    yard.warm(2, of=kind("a", memory_mb=300))
    yard.waits("running", for_a=kind("a", memory_mb=300))
    yard.waits("starting", for_a=kind("b", image="img:2"))
    b, a = yard.pool.counts()
    assert (b.path, b.sandbox_key, b.idle, b.busy, b.starting) == ("/b", "b", 0, 0, 1)
    assert (a.path, a.sandbox_key, a.idle, a.busy, a.starting) == ("/a", "a", 1, 1, 0)
    assert yard.pool.idle_mb() == 300
    assert yard.pool.images() == {"img:1", "img:2"}
    assert yard.pool.hurried
    assert len(yard.pool) == 3


def test_a_heartbeat_tells_of_the_routes_used_last(yard: Yard) -> None:
    for number in range(100):
        yard.waits(f"c{number}", for_a=kind(f"{number}"))
    told = [count.sandbox_key for count in yard.pool.counts()]
    assert told == [f"{number}" for number in range(99, 99 - pools._TOLD_MAX, -1)]


def test_a_kind_with_nothing_is_forgotten(yard: Yard) -> None:
    (warm,) = yard.warm()
    yard.after(K.idle_timeout_ms)
    yard.gone(warm)
    assert yard.pool.kind(K.key) is None
    assert yard.pool.waiting(K.key) == ()
    assert yard.pool.alive(K.key) == 0
