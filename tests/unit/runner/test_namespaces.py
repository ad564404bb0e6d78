from hypothesis import given
from hypothesis import strategies as st

from services.runner.namespaces import Namespace, Pool


def pool(spares: int = 1, idle_max: int = 2, idle_max_s: float = 10) -> Pool:
    return Pool(spares, idle_max, idle_max_s)


def lent(p: Pool, name: str, app: str, *, alone: bool = False) -> Namespace:
    """Return a new namespace that a sandbox of the app has got."""
    p.keep(Namespace(name), app, alone=alone)
    taken = p.take(app, alone=alone)
    assert taken == Namespace(name)
    return taken


def test_a_spare_goes_to_the_first_app_and_stays_with_it() -> None:
    p = pool()
    spare = Namespace("s")
    p.add_spare(spare)
    assert p.take("a") == spare
    assert p.take("b") is None
    assert p.give_back(spare, 0) == []
    assert p.take("b") is None
    assert p.take("a") == spare


def test_the_sandboxes_of_an_app_share_one() -> None:
    p = pool()
    shared = lent(p, "1", "a")
    assert [p.take("a") for _ in range(3)] == [shared] * 3
    assert p.take("b") is None


def test_one_that_is_to_be_alone_shares_none() -> None:
    p = pool()
    lent(p, "1", "a")
    assert p.take("a", alone=True) is None
    alone = lent(p, "2", "a", alone=True)
    assert p.take("a", alone=True) is None
    p.give_back(alone, 0)
    assert p.take("a", alone=True) == alone
    assert p.take("a") == Namespace("1")


def test_one_is_kept_while_a_sandbox_is_in_it() -> None:
    p = pool(idle_max=0, idle_max_s=0)
    shared = lent(p, "1", "a")
    p.take("a")
    assert p.give_back(shared, 0) == []
    assert p.expire(99) == []
    assert p.clear() == []
    assert p.give_back(shared, 0) == [shared]
    assert p.known() == set()


def test_the_oldest_idle_one_gives_way() -> None:
    p = pool(idle_max=1)
    first, second = lent(p, "1", "a"), lent(p, "2", "b")
    assert p.give_back(first, 0) == []
    assert p.give_back(second, 1) == [first]
    assert p.known() == {"2"}


def test_unused_ones_expire() -> None:
    p = pool(idle_max_s=10)
    old, young = lent(p, "1", "a"), lent(p, "2", "b")
    p.give_back(old, 0)
    p.give_back(young, 5)
    p.add_spare(Namespace("s"))
    assert p.expire(9) == []
    assert p.expire(12) == [old]
    assert p.clear() == [Namespace("s"), young]


def test_one_that_was_made_for_nobody_any_more_expires() -> None:
    p = pool(idle_max_s=10)
    p.keep(Namespace("1"), "a", now_s=100)
    assert p.expire(109) == []
    assert p.expire(110) == [Namespace("1")]


def test_where_something_may_be_left_nobody_is_alone() -> None:
    p = pool()
    shared, alone = lent(p, "1", "a"), lent(p, "2", "a", alone=True)
    assert p.give_back(shared, 0, clean=False) == []
    assert p.give_back(alone, 0, clean=False) == [alone]
    assert p.known() == {"1"}


def test_one_that_is_lost_is_nobodys() -> None:
    p = pool()
    shared = lent(p, "1", "a")
    p.add_spare(Namespace("s"))
    p.lost(shared)
    p.lost(Namespace("s"))
    assert p.known() == set()
    assert p.take("a") is None
    assert p.give_back(shared, 0) == []


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["shared", "alone", "back", "lost"])),
        max_size=80,
    )
)
def test_a_namespace_is_ever_one_apps_and_one_sandboxs_that_is_alone(
    steps: list[tuple[str, str]],
) -> None:
    p = pool(spares=2)
    out: list[tuple[Namespace, bool]] = []
    first_seen: dict[str, tuple[str, bool]] = {}
    for number, (app, what) in enumerate(steps):
        if what in {"back", "lost"}:
            if out and what == "lost":
                p.lost(out[0][0])
            if out:
                p.give_back(out.pop(0)[0], number)
            continue
        alone = what == "alone"
        if p.spares_missing():
            p.add_spare(Namespace(f"s{number}"))
        namespace = p.take(app, alone=alone)
        if namespace is None:
            namespace = lent(p, f"n{number}", app, alone=alone)
        assert first_seen.setdefault(namespace.container_id, (app, alone)) == (app, alone)
        assert not alone or namespace not in [other for other, _ in out]
        out.append((namespace, alone))
        assert namespace.container_id in p.known()
