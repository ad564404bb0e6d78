from hypothesis import given
from hypothesis import strategies as st

from services.runner.namespaces import Namespace, Pool


def pool(spares: int = 1, idle_max: int = 2, idle_max_s: float = 10) -> Pool:
    return Pool(spares, idle_max, idle_max_s)


def test_a_spare_goes_to_the_first_app_and_stays_with_it() -> None:
    p = pool()
    spare = Namespace("s")
    p.add_spare(spare)
    assert p.take("a") == spare
    assert p.take("b") is None
    assert p.give_back(spare, 0) == []
    assert p.take("b") is None
    assert p.take("a") == spare


def test_the_oldest_idle_one_gives_way() -> None:
    p = pool(idle_max=1)
    first, second = p.lend(Namespace("1"), "a"), p.lend(Namespace("2"), "b")
    assert p.give_back(first, 0) == []
    assert p.give_back(second, 1) == [first]
    assert p.known() == {"2"}


def test_unused_ones_expire() -> None:
    p = pool(idle_max_s=10)
    old, young = p.lend(Namespace("1"), "a"), p.lend(Namespace("2"), "a")
    p.give_back(old, 0)
    p.give_back(young, 5)
    assert p.expire(9) == []
    assert p.expire(12) == [old]
    assert p.clear() == [young]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_no_namespace_is_lent_twice_or_to_two_apps(steps: list[tuple[str, bool]]) -> None:
    p = pool(spares=2)
    lent: list[Namespace] = []
    app_of: dict[str, str] = {}
    for number, (app, giving) in enumerate(steps):
        if giving and lent:
            p.give_back(lent.pop(0), number)
            continue
        if p.spares_missing():
            p.add_spare(Namespace(f"s{number}"))
        namespace = p.take(app) or p.lend(Namespace(f"n{number}"), app)
        assert namespace not in lent
        assert app_of.setdefault(namespace.container_id, app) == app
        lent.append(namespace)
        assert {n.container_id for n in lent} <= p.known()
