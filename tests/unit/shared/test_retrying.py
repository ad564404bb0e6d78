"""Is a call run once more after a failure, when, and if not: is it kept?"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import messages, retrying
from shared.errors import CODES
from tests.unit.runner.builders import NOW_MS, async_head, head

CALLERS = sorted(name for name, code in CODES.items() if code.fault == "caller")
FUNCTIONS = sorted(name for name, code in CODES.items() if code.fault == "function")
PLATFORMS = sorted(name for name, code in CODES.items() if code.fault == "platform")


def call(attempt: int = 1, **tries: int) -> messages.CallHead:
    return async_head(attempt=attempt, tries=messages.Tries(**tries))


@pytest.mark.parametrize("code", PLATFORMS)
def test_what_the_platform_fails_is_tried_max_attempts_times(code: str) -> None:
    following = retrying.next_attempt(call(1, max_attempts=2), code)
    assert following == call(2, max_attempts=2)
    assert retrying.next_attempt(following, code) is None
    assert retrying.is_kept(following, code)


@pytest.mark.parametrize("code", FUNCTIONS)
def test_what_the_function_fails_is_tried_again_as_often_as_its_route_says(code: str) -> None:
    following = retrying.next_attempt(call(1, retries=1), code)
    assert following == call(2, retries=1, own_failures=1)
    assert retrying.next_attempt(following, code) is None
    assert retrying.is_kept(following, code)


@pytest.mark.parametrize("code", FUNCTIONS)
def test_without_retries_a_functions_failure_is_a_result(code: str) -> None:
    assert retrying.next_attempt(call(), code) is None
    assert not retrying.is_kept(call(), code)


@pytest.mark.parametrize("code", CALLERS)
def test_a_callers_fault_is_final(code: str) -> None:
    assert retrying.next_attempt(call(retries=5), code) is None
    assert not retrying.is_kept(call(retries=5), code)


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_sync_call_is_run_once(code: str) -> None:
    sync = head(tries=messages.Tries(retries=5))
    assert retrying.next_attempt(sync, code) is None
    assert not retrying.is_kept(sync, code)


def test_both_kinds_of_failure_are_counted_apart() -> None:
    codes = ("runner_lost", "exit", "runner_lost", "exit", "runner_lost")
    following: messages.CallHead | None = call(max_attempts=3, retries=2)
    for code in codes[:-1]:
        assert following is not None
        following = retrying.next_attempt(following, code)
    assert following == call(5, max_attempts=3, retries=2, own_failures=2)
    assert retrying.next_attempt(following, "exit") is None
    assert retrying.next_attempt(following, codes[-1]) is None


def test_a_head_that_says_nothing_has_the_defaults() -> None:
    assert retrying.next_attempt(async_head(attempt=2), "runner_lost") == call(3)
    assert retrying.next_attempt(async_head(attempt=3), "runner_lost") is None
    assert retrying.next_attempt(async_head(), "exit") is None


@given(
    st.integers(1, 20),
    st.integers(0, 20),
    st.lists(st.sampled_from(sorted(CODES)), min_size=41, max_size=41),
)
def test_whatever_happens_a_call_comes_to_an_end(
    max_attempts: int, retries: int, codes: list[str]
) -> None:
    following = call(max_attempts=max_attempts, retries=retries)
    for code in codes:
        after = retrying.next_attempt(following, code)
        if after is None:
            assert CODES[code].fault == "caller" or retrying.is_kept(following, code) == (
                CODES[code].fault == "platform" or retries > 0
            )
            return
        assert after.attempt == following.attempt + 1
        following = after
    raise AssertionError(f"tried {len(codes)} times")


def wait_ms(attempt: int, chance: float, delay_s: int) -> int:
    return retrying.due_ms(NOW_MS, call(attempt, retry_delay_s=delay_s), chance) - NOW_MS


def test_the_wait_doubles_with_each_attempt_up_to_an_hour() -> None:
    waits = [wait_ms(attempt, 0.0, 10) for attempt in (2, 3, 4, 10, 11, 40)]
    assert waits == [10_000, 20_000, 40_000, 2_560_000, 3_600_000, 3_600_000]


def test_chance_takes_away_up_to_a_half_of_the_wait() -> None:
    assert [wait_ms(3, chance, 10) for chance in (0.0, 0.5, 1.0)] == [20_000, 15_000, 10_000]


def test_the_record_of_a_waiting_attempt_leaves_the_reason_to_the_failure() -> None:
    failure = messages.Attempt(1, "exit", "exit code 1", NOW_MS)
    record = retrying.waiting_record(call(2), failure)
    assert (record.status, record.attempt, record.code) == ("queued", 2, "")
    assert record.failures == (failure,)
    assert messages.decode(messages.encode(record), messages.Record) == record


def test_a_head_of_the_version_before_is_understood() -> None:
    older = msgspec.msgpack.encode(msgspec.to_builtins(async_head())[:-1])
    assert messages.decode(older, messages.CallHead) == async_head()
