"""Does each call's latest alarm ring, once, in time, and nothing else?"""

from hypothesis import given
from hypothesis import strategies as st

from services.runner.alarms import Alarms
from services.runner.state import Alarm


def test_what_is_due_rings_once_and_in_order() -> None:
    alarms = Alarms()
    alarms.set("late", Alarm.TIMEOUT, 9.0)
    alarms.set("b", Alarm.TIMEOUT, 2.0)
    alarms.set("a", Alarm.DEADLINE, 1.0)
    assert list(alarms.due(2.0)) == [("a", Alarm.DEADLINE), ("b", Alarm.TIMEOUT)]
    assert list(alarms.due(2.0)) == []
    assert len(alarms) == 1


def test_a_later_word_replaces_an_earlier_one() -> None:
    alarms = Alarms()
    alarms.set("a", Alarm.ANNOUNCE, 1.0)
    alarms.set("a", Alarm.TIMEOUT, 3.0)
    assert list(alarms.due(2.0)) == []
    assert list(alarms.due(3.0)) == [("a", Alarm.TIMEOUT)]


def test_what_was_dropped_does_not_ring() -> None:
    alarms = Alarms()
    alarms.set("a", Alarm.ANNOUNCE, 1.0)
    alarms.drop("a")
    assert list(alarms.due(5.0)) == []


def test_dropped_ones_do_not_pile_up() -> None:
    alarms = Alarms()
    for number in range(10_000):
        alarms.set(str(number), Alarm.TIMEOUT, 1e9)
        alarms.drop(str(number))
    assert len(alarms._heap) <= 2_000


_STEP = st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.sampled_from(Alarm))


@given(st.lists(_STEP), st.integers(0, 20))
def test_it_is_a_dictionary_that_rings(steps: list[tuple[str, int, Alarm]], now_s: int) -> None:
    alarms, model = Alarms(), {}
    for call_id, due_s, alarm in steps:
        alarms.set(call_id, alarm, due_s)
        model[call_id] = (due_s, alarm)
    expected = sorted((due, call, alarm) for call, (due, alarm) in model.items() if due <= now_s)
    assert list(alarms.due(now_s)) == [(call, alarm) for _, call, alarm in expected]
