"""When does a runner take itself for lost? Before the scheduler does, whatever is answered when."""

from services.runner.contact import RESTART_S, Contact

LOST_S = 5.0


def test_a_runner_stops_before_the_scheduler_gives_its_calls_away() -> None:
    contact = Contact(LOST_S, 0.0)
    # Sent at 10, heard by the scheduler at 10 at the earliest, answered late.
    contact.heard(10.0)
    assert not contact.is_lost(13.9)
    assert contact.is_lost(14.0)
    assert contact.due_s(None) < 10.0 + LOST_S


def test_what_was_sent_and_not_answered_counts_for_nothing() -> None:
    contact = Contact(LOST_S, 3.0)
    assert contact.due_s(None) == 7.0


def test_a_late_answer_to_an_earlier_heartbeat_takes_nothing_back() -> None:
    contact = Contact(LOST_S, 0.0)
    contact.heard(10.0)
    contact.heard(9.0)
    assert contact.due_s(None) == 14.0


def test_who_is_heard_again_is_not_lost_any_more() -> None:
    contact = Contact(LOST_S, 0.0)
    assert contact.is_lost(20.0)
    contact.heard(20.0)
    assert not contact.is_lost(20.1)


def test_the_answer_to_an_old_heartbeat_does_not_bring_a_lost_runner_back() -> None:
    contact = Contact(LOST_S, 0.0)
    assert contact.is_lost(14.0)
    contact.heard(11.0)  # answered at 14.5: lost again at 15.0
    assert not contact.is_lost(14.5)
    assert contact.is_lost(14.5, was_lost=True)
    contact.heard(14.5)
    assert not contact.is_lost(14.6, was_lost=True)


def test_who_is_back_stays_so_until_its_time_is_over() -> None:
    contact = Contact(LOST_S, 0.0)
    contact.heard(10.0)
    assert not contact.is_lost(11.9, was_lost=True)
    assert contact.is_lost(12.0, was_lost=True)
    assert not contact.is_lost(13.9)


def test_a_redis_that_has_ended_the_connection_itself_has_time_to_come_back() -> None:
    contact = Contact(LOST_S, 0.0)
    contact.heard(10.0)
    assert not contact.is_lost(10.2 + RESTART_S - 0.1, left_s=10.2)
    assert contact.is_lost(10.2 + RESTART_S, left_s=10.2)


def test_a_connection_that_ended_before_the_last_answer_excuses_nothing() -> None:
    contact = Contact(LOST_S, 0.0)
    contact.heard(10.0)
    assert contact.is_lost(14.0, left_s=9.9)


def test_a_redis_that_refuses_connections_and_then_says_nothing_has_time_to_come_back() -> None:
    contact = Contact(LOST_S, 0.0)
    contact.heard(10.0)
    contact.refused(10.3)
    assert not contact.is_lost(10.3 + RESTART_S - 0.1, left_s=10.2)
    assert contact.is_lost(10.3 + RESTART_S, left_s=10.2)


def test_a_refusal_before_the_last_answer_excuses_nothing() -> None:
    contact = Contact(LOST_S, 0.0)
    contact.refused(9.9)
    contact.heard(10.0)
    assert contact.is_lost(14.0)
