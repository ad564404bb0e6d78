"""What do samples become?"""

import pytest

from tests.bench.figures import Checked, Value, figures, number, percentile


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, 1), (1, 1), (50, 50), (50.1, 51), (99, 99), (99.1, 100), (100, 100)],
)
def test_a_percentile_is_a_sample_that_so_many_do_not_exceed(
    percent: float, expected: float
) -> None:
    assert percentile(range(1, 101), percent) == expected


def test_one_sample_is_every_percentile() -> None:
    assert [percentile([7.0], percent) for percent in (1, 50, 99)] == [7.0] * 3


def test_figures_do_not_need_an_order_and_count_by_the_wall() -> None:
    found = figures([30.0, 10.0, 20.0], wall_s=2.0)
    assert (found.calls, found.p50_ms, found.p99_ms) == (3, 20.0, 30.0)
    assert found.calls_per_s == 1.5


def test_no_samples_are_no_figures() -> None:
    with pytest.raises(ValueError, match=r"no call was answered as it should in 2\.0 s"):
        figures([], wall_s=2.0)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "0"), (0.456789, "0.457"), (12.345, "12.3"), (100.4, "100"), (3622.4, "3,622")],
)
def test_numbers_have_the_digits_that_matter(amount: float, shown: str) -> None:
    assert number(amount) == shown


def test_values_say_their_name_and_unit() -> None:
    assert Value("p50", 2.5, "ms").told() == "p50 2.5 ms"
    assert Value("", 2, "failed").told() == "2 failed"


def test_counts_add_up_and_keep_the_first_example() -> None:
    total = Checked(5) + Checked(3, failed=1, example="500") + Checked(2, wrong=2, example="x")
    assert total == Checked(10, failed=1, wrong=2, example="500")
    assert total.bad == 3
