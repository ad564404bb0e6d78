"""Several records of one call come to one, in whatever order they arrive."""

from functools import reduce

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.api.progress import merge, merged
from shared import messages

QUEUED = messages.Record(
    call_id="c",
    status="queued",
    mode="async",
    app="a",
    path="/p",
    image="i",
    queued_ms=50,
)
RUNNING = msgspec.structs.replace(
    QUEUED, status="running", started_ms=100, digest="sha256:1", runner_id="r1"
)
ENDED = msgspec.structs.replace(QUEUED, status="success", finished_ms=180, log=b"log")


def test_the_end_wins_and_keeps_what_only_others_know() -> None:
    record = merge(merge(QUEUED, RUNNING), ENDED)
    assert (record.status, record.started_ms, record.finished_ms) == ("success", 100, 180)
    assert (record.runner_id, record.digest, record.log) == ("r1", "sha256:1", b"log")


def test_the_first_end_wins() -> None:
    failed = msgspec.structs.replace(ENDED, status="error", code="timeout", finished_ms=200)
    assert merge(ENDED, failed) == ENDED
    assert merge(failed, ENDED) == failed


def test_a_second_attempt_waits_after_the_first_ran() -> None:
    again = msgspec.structs.replace(QUEUED, attempt=2)
    assert merge(RUNNING, again).status == "queued"
    assert merge(again, RUNNING).status == "queued"


@given(st.lists(st.sampled_from([QUEUED, RUNNING]), max_size=4), st.permutations([0, 1, 2]))
def test_order_and_repetition_do_not_matter(
    repeated: list[messages.Record], order: list[int]
) -> None:
    all_three = [QUEUED, RUNNING, ENDED]
    arrived = [all_three[i] for i in order] + repeated
    assert reduce(merge, arrived) == reduce(merge, all_three)


def test_records_of_different_calls_stay_apart_and_are_sorted() -> None:
    other = msgspec.structs.replace(RUNNING, call_id="b")
    assert merged([QUEUED, other, ENDED]) == [other, merge(QUEUED, ENDED)]
