"""Where calls go: the ranking, and that the index finds what a search would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.ledger import Size
from services.scheduler.placement import COMPARED, Levels, Placement, level

CPU = 1000


def engine(
    placement: Placement,
    engine_id: str,
    free: Size,
    *,
    images: tuple[str, ...] = (),
    usable: bool = True,
    offered: Size | None = None,
) -> None:
    placement.describe(
        engine_id, offered=offered or free, images=images, usable=usable, staying=True
    )
    placement.set_free(engine_id, free)


def test_the_worked_example() -> None:
    placement = Placement()
    engine(placement, "a", Size(900, CPU // 2))
    engine(placement, "b", Size(800, 2 * CPU))
    engine(placement, "c", Size(500, CPU), images=("hello",))
    assert placement.best(Size(200, CPU), "hello") == "c"
    assert placement.best(Size(200, CPU), "other") == "b"
    assert placement.best(Size(600, CPU), "hello") == "b"
    assert placement.best(Size(850, CPU), "hello") is None


def test_equals_go_by_id() -> None:
    placement = Placement()
    for engine_id in ("b", "a", "c"):
        engine(placement, engine_id, Size(100, CPU))
    assert placement.best(Size(50, CPU), "") == "a"


def test_an_unusable_engine_is_filtered_out_and_comes_back() -> None:
    placement = Placement()
    engine(placement, "a", Size(100, CPU), usable=False)
    assert placement.best(Size(50, CPU), "") is None
    engine(placement, "a", Size(100, CPU))
    assert placement.best(Size(50, CPU), "") == "a"
    placement.remove("a")
    assert placement.best(Size(50, CPU), "") is None


def test_an_earmarked_engine_is_for_its_size_only() -> None:
    placement = Placement()
    engine(placement, "a", Size(300, CPU), offered=Size(1000, CPU))
    assert placement.earmark_for(Size(900, CPU)) == "a"
    assert placement.best(Size(50, CPU), "") is None
    assert placement.shortage(Size(50, CPU)).reason == "earmarked"
    placement.set_free("a", Size(950, CPU))
    assert placement.best(Size(900, CPU), "") == "a"
    assert placement.lift_earmark() == "a"
    assert placement.best(Size(50, CPU), "") == "a"


@pytest.mark.parametrize(
    ("free", "reason", "words"),
    [
        ([], "no_runner", "no runner is there"),
        ([Size(100, 3 * CPU)], "memory", "the largest free runner has 100 MB and 3 cpus"),
        ([Size(600, 500)], "cpus", "the largest free runner has 600 MB and 0.5 cpus"),
    ],
)
def test_a_shortage_says_what_is_missing(free: list[Size], reason: str, words: str) -> None:
    placement = Placement()
    for number, size in enumerate(free):
        engine(placement, f"e{number}", size, offered=Size(8000, 8 * CPU))
    shortage = placement.shortage(Size(512, CPU))
    assert (shortage.reason, words in shortage.message) == (reason, True)


@given(st.integers(1, 2**24))
def test_levels_grow_with_amounts(amount: int) -> None:
    assert level(amount) <= level(amount + 1) <= level(amount) + 4


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5000)), max_size=60), st.integers(1, 5000)
)
def test_levels_find_all_that_have_enough(puts: list[tuple[int, int]], least: int) -> None:
    levels, amounts = Levels(), dict[int, int]()
    for slot, amount in puts:
        levels.put(slot, amount)
        amounts[slot] = amount
    enough = sum(1 << slot for slot, amount in amounts.items() if amount >= least)
    found = levels.may_have(least)
    assert found & enough == enough
    masks = list(levels.descending(least))
    assert sum(masks) == found
    tops = [max(a for s, a in amounts.items() if mask >> s & 1) for mask in masks]
    assert tops == sorted(tops, reverse=True)


ENGINE = st.tuples(
    st.integers(0, 2000), st.integers(0, 4000), st.sampled_from([(), ("x",)]), st.booleans()
)


@given(st.lists(ENGINE, max_size=COMPARED), st.integers(1, 2000), st.integers(1, 4000))
def test_the_best_is_what_a_search_would_find(
    engines: list[tuple[int, int, tuple[str, ...], bool]], memory_mb: int, millicpus: int
) -> None:
    placement, size = Placement(), Size(memory_mb, millicpus)
    ranks = []
    for number, (mb, cpus, images, usable) in enumerate(engines):
        engine(placement, f"e{number}", Size(mb, cpus), images=images, usable=usable)
        if usable and Size(mb, cpus).covers(size):
            ranks.append((not images, -mb, f"e{number}"))
    assert placement.best(size, "x") == (min(ranks)[2] if ranks else None)
