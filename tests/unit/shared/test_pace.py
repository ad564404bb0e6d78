"""When is a moment waited for more?"""

import pytest

from shared.pace import BUSY_PER_S, CROWD_MIN, GATHER_MAX_S, WINDOW_S, Pace


def after(per_s: float, crowd: int) -> float:
    """Return how long is waited once so many a second have come for a while."""
    pace = Pace(lambda: crowd)
    for window in range(1, 5):
        pace.count(round(per_s * WINDOW_S), window * WINDOW_S)
    return pace.gather_s()


@pytest.mark.parametrize(
    ("per_s", "crowd"),
    [(4 * BUSY_PER_S, 1), (4 * BUSY_PER_S, CROWD_MIN - 1), (0, 1000), (BUSY_PER_S / 2, 1000)],
)
def test_neither_a_quick_caller_nor_many_slow_calls_are_waited_for(
    per_s: float, crowd: int
) -> None:
    assert after(per_s, crowd) == 0


def test_the_wait_is_a_small_part_of_what_calls_take() -> None:
    assert after(4000, 64) == pytest.approx(64 / 4000 / 8)
    assert after(1300, 64) == GATHER_MAX_S


def test_a_silence_ends_the_waiting() -> None:
    pace = Pace(lambda: 64)
    pace.count(1000, 1.0)
    assert pace.gather_s() > 0
    pace.count(1, 2.0)
    assert pace.gather_s() == 0
