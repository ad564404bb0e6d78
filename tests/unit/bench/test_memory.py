"""How long do the loads last between which memory is looked at?"""

import pytest

from tests.bench.memory import LONGEST_S, seconds_for


@pytest.mark.parametrize(
    ("calls", "calls_per_s", "seconds"),
    [(20_000, 4_000, 5), (20_001, 4_000, 6), (1, 4_000, 1), (180_000, 4_000, LONGEST_S)],
)
def test_a_load_is_as_long_as_the_calls_that_are_left(
    calls: int, calls_per_s: float, seconds: int
) -> None:
    assert seconds_for(calls, calls_per_s) == seconds
