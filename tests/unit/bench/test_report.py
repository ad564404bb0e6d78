"""Does the report say what was measured, what must be, and whether it is?"""

import pytest

from tests.bench import cases, cold, report, warm
from tests.bench.figures import Checked, Result, Value
from tests.bench.targets import TARGETS, Bound, Target

QUICK = (Value("p50", 2.5, "ms"), Value("p99", 9, "ms"), Value("", 400, "calls/s"))
SLOW = (Value("p50", 3.1, "ms"),)
WARM = Result({"default-1": QUICK}, Checked(100))


def lines(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize(
    ("values", "held"), [(QUICK, "yes"), (SLOW, "**no**"), ((Value("p99", 1, "ms"),), "-")]
)
def test_a_line_says_whether_its_target_is_met(values: tuple[Value, ...], held: str) -> None:
    _, _, line, *_ = lines(report.targets_table({"warm": Result({"default-1": values})}))
    told = ", ".join(value.told() for value in values)
    assert line == ["`default`, warm, 1 caller", told, "p50 ≤ 3 ms", "p50 265 ms", held]


def test_a_target_is_met_if_all_its_bounds_are() -> None:
    target = TARGETS["default-16"]
    rate, p99 = Value("", 1000, "calls/s"), Value("p99", 60, "ms")
    assert target.held((rate, p99)) is True
    assert target.held((Value("", 999, "calls/s"), p99)) is False
    assert target.held((rate, Value("p99", 60.1, "ms"))) is False
    assert target.held((rate,)) is None


def test_what_has_no_bound_is_neither_met_nor_missed() -> None:
    assert Target("json", "json").held(QUICK) is None


def test_bounds_tell_values_of_one_name_apart_by_their_unit() -> None:
    bound = Bound("p50", 0.45, "times", at_most=True)
    assert bound.holds((Value("p50", 300, "ms"), Value("p50", 0.4, "times"))) is True
    assert bound.told() == "p50 ≤ 0.45 times"


def test_a_case_that_broke_says_why_and_hides_nothing_else() -> None:
    outcomes = {"warm": WARM, "hot": "a|b\nc " + "x" * 500}
    found = lines(report.targets_table(outcomes).replace("\\|", "/"))
    measured = {line[0]: line[1] for line in found}
    assert measured["`default`, warm, 1 caller"].startswith("p50 2.5 ms")
    assert measured["`default`, warm, 16 callers"] == "not measured"
    assert measured["`http`, hot, 1 caller"].startswith("not measured: a/b c")
    assert {len(line) for line in found} == {5}


def test_only_cases_that_ran_are_told() -> None:
    assert report.targets_table({"redis": Result()}) == ""
    assert report.yardsticks_table({"redis": Result(), "warm": "broken"}) == ""


def test_yardsticks_are_told_beside() -> None:
    outcomes = {"redis": Result(yardsticks={"PING": (Value("p50", 0.1, "ms"),)})}
    assert lines(report.yardsticks_table(outcomes))[2:] == [["PING", "p50 0.1 ms"]]


def test_time_never_decides_how_it_went() -> None:
    assert report.went_well({"warm": Result({"default-1": SLOW}, Checked(1))})


@pytest.mark.parametrize("bad", [Checked(9, failed=1), Checked(9, wrong=1)])
def test_a_bad_answer_decides(bad: Checked) -> None:
    assert not report.went_well({"warm": WARM, "hot": Result({}, bad)})


def test_a_case_that_broke_decides() -> None:
    assert not report.went_well({"warm": WARM, "hot": "broken"})


def test_the_verdict_counts_and_gives_an_example() -> None:
    hot = Result({}, Checked(1000, failed=2, wrong=1, example="500 oops"))
    assert report.verdict({"warm": WARM, "hot": hot, "cold": "broken"}) == (
        "1,100 calls checked: 2 failed, 1 wrong, for example: 500 oops; not measured: cold"
    )


def test_each_target_is_measured_by_a_case() -> None:
    assert {target.measured_by for target in TARGETS.values()} <= cases.CASES.keys()


def test_each_load_has_a_line_in_the_report() -> None:
    hot = [warm.hot("http", "http"), warm.hot("json", "json"), warm.hot("http-stream", "stream")]
    measured = {load.target for loads in (warm.DEFAULT, *hot) for load in loads}
    measured |= {f"cold-{callers}" for callers in cold.LOADS}
    assert measured <= TARGETS.keys()
