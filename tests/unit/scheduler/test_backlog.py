"""Who is next: order, fairness, bounds."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.backlog import Admission, Backlog
from services.scheduler.events import Waiting
from services.scheduler.ledger import Size
from tests.unit.scheduler.build import START_MS, call

TOTAL = Size(1000, 10_000)


def backlog(*calls: Waiting) -> Backlog:
    made = Backlog(sync_max=1000, async_max=1000)
    made.set_total(TOTAL)
    for each in calls:
        assert made.offer(each) is Admission.WAITS
    return made


def served(from_: Backlog) -> list[str]:
    """Serve all, each ending before the next."""
    order = []
    while (next_one := from_.next()) is not None:
        from_.remove(next_one.head.call_id)
        from_.charge(next_one.head.app, next_one.size, 1.0)
        from_.refund(next_one.head.app, next_one.size)
        from_.check()
        order.append(next_one.head.call_id)
    return order


def test_within_an_app_sync_goes_first_and_each_in_its_order() -> None:
    calls = [call("a1", "async"), call("s1"), call("a2", "async", memory_mb=7), call("s2")]
    assert served(backlog(*calls)) == ["s1", "s2", "a1", "a2"]


def test_the_smallest_dominant_share_goes_first() -> None:
    waiting = backlog(call("a1", app="a"), call("b1", app="b", memory_mb=50))
    waiting.charge("a", Size(300, 1000), 1.0)
    waiting.charge("b", Size(100, 5000), 1.0)
    first = waiting.next()
    assert first is not None
    assert first.head.app == "a"
    waiting.set_total(Size(100_000, 5_000_000))  # now 0.003 and 0.001
    first = waiting.next()
    assert first is not None
    assert first.head.app == "b"
    waiting.check()


def test_a_blocked_size_costs_its_own_calls_only() -> None:
    big = call("big", memory_mb=900)
    waiting = backlog(big, call("small"))
    waiting.block(big, now_s=1.0)
    assert served(waiting) == ["small"]
    assert waiting.is_blocked(big.size)
    assert waiting.next() is None
    assert waiting.next_for(Size(899, 9000)) is None
    assert waiting.next_for(Size(900, 999)) is None
    assert waiting.next_for(Size(900, 1000), only=Size(1, 1)) is None
    assert waiting.next_for(Size(900, 1000), only=big.size) == big
    assert waiting.next_for(Size(900, 1000)) == big


def test_of_the_blocked_sizes_those_are_tried_again_that_fit() -> None:
    sizes = [(100, 3.0), (200, 1.0), (300, 1.0), (200, 2.0)]
    waiting = backlog(*(call(f"{mb} {cpus}", memory_mb=mb, cpus=cpus) for mb, cpus in sizes))
    while (each := waiting.next()) is not None:
        waiting.block(each, now_s=1.0)
        waiting.check()
    assert waiting.next_for(Size(99, 9000)) is None
    order = []
    while (each := waiting.next_for(Size(200, 2000))) is not None:
        waiting.remove(each.head.call_id)
        waiting.check()
        order.append(each.head.call_id)
    assert order == ["200 1.0", "200 2.0"]


def test_a_size_of_which_none_stands_is_not_blocked_for_the_next_one() -> None:
    first, second = call("a"), call("b")
    waiting = backlog(first)
    waiting.block(first, now_s=1.0)
    waiting.remove("a")
    waiting.offer(second)
    assert waiting.next() == second


def hot(call_id: str, key: str = "k", **other: Any) -> Waiting:
    return call(call_id, sandbox_key=key, max_concurrency=1, **other)


def test_a_group_is_tried_once_more_when_something_has_changed_for_it() -> None:
    first, second = hot("a"), hot("b")
    waiting = backlog(call("plain"), first, second)
    for _ in range(2):
        waiting.block(first, now_s=1.0)
        assert waiting.next() is None
        waiting.open(first.group)
        assert waiting.next() == first
    waiting.remove("a")
    assert waiting.next() == second
    waiting.remove("b")
    waiting.check()
    waiting.open(first.group)
    assert waiting.next() is None


def test_a_parked_group_does_not_stand_in_the_way_of_its_size() -> None:
    parked = hot("a")
    waiting = backlog(parked, call("b"))
    assert waiting.next() == parked
    waiting.park(parked)
    waiting.check()
    assert waiting.is_parked(parked)
    assert served(waiting) == ["b"]
    assert waiting.parked(Size(99, 1000)) == []
    assert waiting.parked(parked.size) == [parked.group]
    waiting.unpark(parked.group)
    waiting.check()
    assert served(waiting) == ["a"]


def test_a_parked_group_that_room_would_help_after_all_waits_for_room() -> None:
    parked = hot("a")
    waiting = backlog(parked)
    waiting.park(parked)
    assert not waiting.wants_room(parked.size)
    waiting.block(parked, now_s=1.0)
    waiting.check()
    assert waiting.wants_room(parked.size)
    assert not waiting.is_parked(parked)


def test_hot_routes_and_all_others_of_an_app_take_turns() -> None:
    calls = [call("p1"), call("p2"), call("p3"), hot("k1"), hot("k2"), hot("l1", "l")]
    assert served(backlog(*calls)) == ["p1", "k1", "l1", "p2", "k2", "p3"]


def test_an_app_that_comes_back_each_time_does_not_starve_others() -> None:
    waiting = backlog(*(call(f"b{n}", app="b") for n in range(4)))
    order = []
    for n in range(12):
        waiting.offer(call(f"{'xy'[n % 2]}{n}", app="xy"[n % 2]))
        next_one = waiting.next()
        assert next_one is not None
        waiting.remove(next_one.head.call_id)
        waiting.charge(next_one.head.app, next_one.size, 1.0)
        waiting.refund(next_one.head.app, next_one.size)
        order.append(next_one.head.app)
    assert order.count("b") >= 3


def test_overdue_calls_are_found_by_their_own_millisecond() -> None:
    waiting = backlog(*(call(f"c{n}", wait_until_ms=START_MS + n) for n in (40, 41, 42)))
    assert [c.head.call_id for c in waiting.overdue(START_MS + 41)] == ["c40", "c41"]


def test_calls_come_back_to_the_head_of_their_lane() -> None:
    first, second = call("first"), call("second")
    waiting = backlog(second)
    waiting.put_back(first)
    assert served(waiting) == ["first", "second"]


APPS = st.sampled_from(["a", "b", "c", "d"])
DEMAND = st.lists(
    st.tuples(APPS, st.sampled_from(["sync", "async"]), st.sampled_from([50, 100, 200])),
    min_size=1,
    max_size=60,
)


@given(DEMAND)
def test_shares_stay_close_while_all_want_more(demand: list[tuple[str, str, int]]) -> None:
    """Fairness bound: an app that still wants is never behind another by more than a call."""
    waiting = backlog(
        *(
            call(f"c{n}", "sync" if mode == "sync" else "async", app=app, memory_mb=memory_mb)
            for n, (app, mode, memory_mb) in enumerate(demand)
        )
    )
    used = dict.fromkeys("abcd", 0.0)
    count = 0
    while (next_one := waiting.next()) is not None:
        app, share = next_one.head.app, max(next_one.size.memory_mb / 1000, 0.1)
        wanting = {each.head.app for each in waiting}
        assert used[app] <= min(used[other] for other in wanting) + 1e-9
        waiting.remove(next_one.head.call_id)
        waiting.charge(app, next_one.size, 1.0)
        memory_mb = used.setdefault(f"{app}-mb", 0) + next_one.size.memory_mb
        cpus = used.setdefault(f"{app}-cpus", 0) + next_one.size.millicpus
        used[f"{app}-mb"], used[f"{app}-cpus"] = memory_mb, cpus
        used[app] = max(memory_mb / 1000, cpus / 10_000)
        assert share > 0
        waiting.check()
        count += 1
    assert count == len(demand)


@given(st.lists(st.tuples(APPS, st.booleans()), max_size=80), st.integers(4, 12))
def test_the_backlog_is_bounded_and_loses_nothing(
    arrivals: list[tuple[str, bool]], bound: int
) -> None:
    waiting = Backlog(sync_max=bound, async_max=bound)
    fate: dict[str, Admission] = {}
    for n, (app, is_sync) in enumerate(arrivals):
        each = call(f"c{n}", "sync" if is_sync else "async", app=app)
        fate[f"c{n}"] = waiting.offer(each)
        if fate[f"c{n}"] is Admission.REFUSED:
            fate[f"c{n}"] = Admission.WAITS
            fate[waiting.make_way(each).head.call_id] = Admission.REFUSED
        waiting.check()
        assert waiting.sync_waiting <= bound
        assert waiting.async_waiting <= bound
    kept = {call_id for call_id, what in fate.items() if what is Admission.WAITS}
    assert kept == {each.head.call_id for each in waiting}
