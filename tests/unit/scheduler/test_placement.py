"""Where calls go: the ranking, and that the index finds what a search would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.ledger import Size
from services.scheduler.levels import Levels, level
from services.scheduler.placement import COMPARED, Placement

CPU = 1000


class Engines:
    """A placement, and engines that each have one runner unless a test says otherwise."""

    def __init__(self) -> None:
        self.placement = Placement()
        self.bits: dict[str, int] = {}

    def __call__(
        self,
        engine_id: str,
        free: Size,
        *,
        images: tuple[str, ...] = (),
        runners: int | None = None,
        offered: Size | None = None,
        idle_mb: int = 0,
    ) -> int:
        bits = self.bits.setdefault(engine_id, 1 << len(self.bits))
        self.placement.describe(
            engine_id,
            offered=offered or free,
            images=images,
            usable=bits if runners is None else runners,
            staying=True,
        )
        self.placement.set_free(engine_id, free)
        self.placement.set_idle(engine_id, idle_mb)
        self.placement.check()
        return bits

    def best(self, size: Size, image: str = "", **sets: int) -> str | None:
        spot = self.placement.best(size, image, **sets)
        return spot.engine_id if spot else None


@pytest.fixture
def engine() -> Engines:
    return Engines()


def test_the_worked_example(engine: Engines) -> None:
    engine("a", Size(900, CPU // 2))
    b = engine("b", Size(800, 2 * CPU))
    engine("c", Size(500, CPU), images=("hello",))
    assert engine.best(Size(200, CPU), "hello") == "c"
    assert engine.best(Size(200, CPU), "other") == "b"
    assert engine.best(Size(600, CPU), "hello") == "b"
    assert engine.best(Size(850, CPU), "hello") is None
    assert engine.best(Size(200, CPU), "hello", ready=b) == "b"


def test_equals_go_by_id(engine: Engines) -> None:
    for engine_id in ("b", "a", "c"):
        engine(engine_id, Size(100, CPU))
    assert engine.best(Size(50, CPU)) == "a"


def test_of_equals_the_one_whose_memory_idle_sandboxes_do_not_keep_goes_first(
    engine: Engines,
) -> None:
    engine("a", Size(1000, CPU), idle_mb=600)
    engine("b", Size(1000, CPU), idle_mb=100)
    assert engine.best(Size(50, CPU)) == "b"


def test_an_unusable_engine_is_filtered_out_and_comes_back(engine: Engines) -> None:
    engine("a", Size(100, CPU), runners=0)
    assert engine.best(Size(50, CPU)) is None
    bit = engine("a", Size(100, CPU))
    assert engine.best(Size(50, CPU)) == "a"
    assert engine.placement.usable("a") == bit
    engine.placement.remove("a")
    assert engine.best(Size(50, CPU)) is None
    assert not engine.placement.usable("a")


def test_images_on_disk_come_and_go(engine: Engines) -> None:
    engine("a", Size(100, CPU), images=("x", "x", "y"))
    engine("b", Size(200, CPU), images=("z",))
    assert engine.best(Size(50, CPU), "x") == "a"
    engine("a", Size(100, CPU), images=("y",))
    assert engine.best(Size(50, CPU), "x") == "b"
    engine("a", Size(100, CPU), images=("x", "y"), runners=0)
    assert engine.best(Size(50, CPU), "y") == "b"


def test_a_free_sandbox_outranks_all_and_a_busy_one_while_there_are_cpus_to_spare(
    engine: Engines,
) -> None:
    a = engine("a", Size(200, 4 * CPU), offered=Size(1000, 8 * CPU))
    engine("b", Size(900, 8 * CPU), images=("hello",))
    assert engine.best(Size(100, CPU), "hello", ready=a) == "a"
    assert engine.best(Size(100, CPU), "hello", home=a) == "a"
    engine("a", Size(200, 3 * CPU), offered=Size(1000, 8 * CPU))
    assert engine.best(Size(100, CPU), "hello", ready=a) == "a"
    assert engine.best(Size(100, CPU), "hello", home=a) == "b"


def test_a_free_sandbox_is_no_use_where_no_capacity_is(engine: Engines) -> None:
    a = engine("a", Size(99, 4 * CPU))
    engine("b", Size(900, CPU))
    assert engine.best(Size(100, CPU), ready=a) == "b"


def test_a_spot_names_the_runners_that_may_get_the_call(engine: Engines) -> None:
    engine("a", Size(1000, CPU), runners=0b111)
    spot = engine.placement.best(Size(100, CPU), "", ready=0b010, home=0b011, full=0b100)
    assert spot == ("a", 0b011, 0b010)
    spot = engine.placement.best(Size(100, CPU), "", ready=0b100, home=0b110, full=0b100)
    assert spot == ("a", 0b011, 0b110)
    assert engine.placement.best(Size(100, CPU), "", full=0b111) is None
    assert engine.placement.best(Size(100, CPU), "", room=0b1000) is None


def test_an_earmarked_engine_is_for_its_size_only(engine: Engines) -> None:
    bit = engine("a", Size(300, CPU), offered=Size(1000, CPU))
    placement = engine.placement
    assert placement.earmark_for(Size(900, CPU)) == "a"
    assert engine.best(Size(50, CPU)) is None
    assert placement.open_to(Size(50, CPU)) == 0
    assert placement.open_to(Size(900, CPU)) == bit
    assert placement.kept_for("a") == Size(900, CPU)
    assert placement.shortage(Size(50, CPU)).reason == "earmarked"
    placement.set_free("a", Size(950, CPU))
    assert engine.best(Size(900, CPU)) == "a"
    assert placement.lift_earmark() == "a"
    assert engine.best(Size(50, CPU)) == "a"
    assert placement.kept_for("a") is None


@pytest.mark.parametrize(
    ("free", "reason", "words"),
    [
        ([], "no_runner", "no runner is there"),
        ([Size(100, 3 * CPU)], "memory", "the largest free runner has 100 MB and 3 cpus"),
        ([Size(600, 500)], "cpus", "the largest free runner has 600 MB and 0.5 cpus"),
    ],
)
def test_a_shortage_says_what_is_missing(
    engine: Engines, free: list[Size], reason: str, words: str
) -> None:
    for number, size in enumerate(free):
        engine(f"e{number}", size, offered=Size(8000, 8 * CPU))
    shortage = engine.placement.shortage(Size(512, CPU))
    assert (shortage.reason, words in shortage.message) == (reason, True)


def test_whether_a_size_could_ever_fit_follows_what_is_offered(engine: Engines) -> None:
    assert not engine.placement.could_ever(Size(500, CPU))
    engine("a", Size(100, CPU), offered=Size(600, CPU))
    assert engine.placement.could_ever(Size(500, CPU))
    engine("a", Size(100, CPU), offered=Size(400, CPU))
    assert not engine.placement.could_ever(Size(500, CPU))


@given(st.integers(1, 2**24))
def test_levels_grow_with_amounts(amount: int) -> None:
    assert level(amount) <= level(amount + 1) <= level(amount) + 4


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), max_size=60), st.integers(0, 10))
def test_levels_keep_who_is_where(puts: list[tuple[int, int]], least: int) -> None:
    levels, at = Levels(), dict[int, int]()
    for slot, now in puts:
        if slot in at:
            levels.discard(1 << slot, at[slot])
        levels.add(1 << slot, now)
        at[slot] = now
    high = sum(1 << slot for slot, now in at.items() if now >= least)
    assert levels.from_(least) == sum(levels.descending(least)) == high
    sets = [sum(1 << slot for slot in at if at[slot] == now) for now in range(9, least - 1, -1)]
    assert list(levels.descending(least)) == [each for each in sets if each]
    among = 0b1010101
    lowest = min((now for slot, now in at.items() if 1 << slot & among), default=None)
    found = levels.lowest(among)
    assert (found[0] if found else None) == lowest


ENGINE = st.tuples(
    st.integers(0, 2000),
    st.integers(0, 4000),
    st.sampled_from([(), ("x",)]),
    st.booleans(),
    st.integers(0, 300),
)


def _rank(free: Size, size: Size, idle_mb: int, engine_id: str) -> tuple[bool, int, int, str]:
    """The order that `Placement` promises among many: clearly enough, then by memory."""
    sure = level(free.memory_mb) > level(size.memory_mb - 1 or 1)
    sure = sure and level(free.millicpus) > level(size.millicpus - 1 or 1)
    return (not sure, -level(free.memory_mb), idle_mb - free.memory_mb, engine_id)


@given(
    st.lists(ENGINE, max_size=COMPARED), st.integers(2, 2000), st.integers(2, 4000), st.integers(0)
)
def test_of_few_the_best_is_what_a_search_would_find(
    engines: list[tuple[int, int, tuple[str, ...], bool, int]],
    memory_mb: int,
    millicpus: int,
    ready: int,
) -> None:
    engine, size, ranks = Engines(), Size(memory_mb, millicpus), []
    for number, (mb, cpus, images, usable, idle_mb) in enumerate(engines):
        name, free = f"e{number}", Size(mb, cpus)
        runners = None if usable else 0
        engine(name, free, images=images, runners=runners, idle_mb=idle_mb)
        if usable and free.covers(size):
            is_ready = bool(1 << number & ready)
            ranks.append(
                (not is_ready, not is_ready and not images, *_rank(free, size, idle_mb, name)[1:])
            )
    assert engine.best(size, "x", ready=ready) == (min(ranks)[-1] if ranks else None)


@given(
    st.lists(st.sampled_from([100, 101, 127, 128, 200, 300, 301]), min_size=COMPARED + 1),
    st.lists(st.sampled_from([900, 1000, 1023, 1024, 2000]), min_size=COMPARED + 1),
)
def test_of_many_the_best_has_clearly_enough_if_one_has(mbs: list[int], cpus: list[int]) -> None:
    engine, size = Engines(), Size(101, CPU)
    found: dict[str, Size] = {}
    for number, (mb, millicpus) in enumerate(zip(mbs, cpus, strict=False)):
        found[f"e{number}"] = Size(mb, millicpus)
        engine(f"e{number}", Size(mb, millicpus))
    ranks = {
        name: _rank(free, size, 0, name)[:2] for name, free in found.items() if free.covers(size)
    }
    best = engine.best(size)
    assert (ranks[best] if best else None) == min(ranks.values(), default=None)
