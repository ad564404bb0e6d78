"""The ledger's sums balance, whatever happens to it."""

import itertools

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.scheduler.ledger import (
    NOTHING,
    QUEUED_MAX,
    Group,
    Ledger,
    Overdrawn,
    Reservation,
    Size,
    group,
    need,
    offer,
)
from tests.unit.scheduler.build import head, heartbeat

ENGINES = st.sampled_from(["e1", "e2", "e3"])
RUNNERS = st.sampled_from(["r1", "r2", "r3"])
CALLS = st.sampled_from([f"c{n}" for n in range(12)])
SIZES = st.builds(Size, st.integers(1, 500), st.integers(1, 3000))
SMALL = Size(50, 100)
GROUPS = [Group("k", "app", SMALL, 1), Group("k", "app", SMALL, 3), Group("l", "app", SMALL, 2)]


def reservation(call: str, runner: str, engine: str, what: Size | Group) -> Reservation:
    """What a call holds: of a size, or in a group."""
    in_group = what if isinstance(what, Group) else None
    size = what.size if isinstance(what, Group) else what
    return Reservation(call, "app", runner, engine, size, group=in_group)


class LedgerMachine(RuleBasedStateMachine):
    """Compares the ledger with plain tables."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.offered: dict[str, Size] = {}
        self.given: dict[str, Reservation] = {}
        self.engine_of = {"r1": "e1", "r2": "e2", "r3": "e2"}

    def charged(self, engine: str) -> list[Size]:
        """What is to be charged: each call of a size, and of each group so many."""
        here = [held for held in self.given.values() if held.engine_id == engine]
        charged = [held.size for held in here if held.group is None]
        for each, runner in itertools.product(GROUPS, self.engine_of):
            members = sum(held.group == each and held.runner_id == runner for held in here)
            charged += [each.size] * min(members, each.most)
        return charged

    def left(self, engine: str) -> Size:
        offered, taken = self.offered.get(engine, NOTHING), self.charged(engine)
        return Size(
            max(offered.memory_mb - sum(size.memory_mb for size in taken), 0),
            max(offered.millicpus - sum(size.millicpus for size in taken), 0),
        )

    def in_line(self, new: Reservation) -> bool:
        if new.group is None:
            return False
        others = [held for held in self.given.values() if held.runner_id == new.runner_id]
        return sum(held.group == new.group for held in others) >= new.group.most

    @rule(engine=ENGINES, size=st.one_of(st.just(NOTHING), SIZES))
    def offer(self, engine: str, size: Size) -> None:
        self.ledger.offer(engine, size)
        self.offered[engine] = size

    @rule(call=CALLS, runner=RUNNERS, what=st.one_of(SIZES, st.sampled_from(GROUPS)))
    def reserve(self, call: str, runner: str, what: Size | Group) -> None:
        new = reservation(call, runner, self.engine_of[runner], what)
        fits = self.in_line(new) or self.left(new.engine_id).covers(new.size)
        if call not in self.given and fits:
            charged = NOTHING if self.in_line(new) else new.size
            assert self.ledger.reserve(new) == charged
            self.given[call] = new
        else:
            with pytest.raises(Overdrawn):
                self.ledger.reserve(new)

    @rule(call=CALLS, runner=RUNNERS, what=st.one_of(SIZES, st.sampled_from(GROUPS)))
    def recover(self, call: str, runner: str, what: Size | Group) -> None:
        new = reservation(call, runner, self.engine_of[runner], what)
        self.given.pop(call, None)
        charged = NOTHING if self.in_line(new) else new.size
        assert self.ledger.recover(new) == charged
        self.given[call] = new

    @rule(call=CALLS)
    def release(self, call: str) -> None:
        held = self.given.pop(call, None)
        freed = self.ledger.release(call)
        in_line = held is None or self.in_line(held)
        assert freed == (NOTHING if in_line or held is None else held.size)

    @rule(runner=RUNNERS, to=ENGINES)
    def move(self, runner: str, to: str) -> None:
        self.ledger.move(runner, to)
        self.engine_of[runner] = to
        for call, held in self.given.items():
            if held.runner_id == runner:
                self.given[call] = msgspec.structs.replace(held, engine_id=to)

    @invariant()
    def balances(self) -> None:
        self.ledger.check()
        for engine in ("e1", "e2", "e3"):
            assert self.ledger.free(engine) == self.left(engine)


LedgerMachine.TestCase.settings = settings(max_examples=60, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


def test_needs_are_rounded_up_and_offers_down() -> None:
    assert need(head("a", cpus=0.1 + 0.2)) == Size(100, 300)
    assert need(head("a", cpus=0.0001, memory_mb=0)) == Size(1, 1)
    assert offer(heartbeat(cpus=1.9999)) == Size(1000, 1999)


def test_a_refusal_says_how_much_is_missing() -> None:
    ledger = Ledger()
    ledger.offer("e", Size(100, 500))
    with pytest.raises(Overdrawn, match=r"needs 200 MB and 1 cpu, engine e has 100 MB and 0.5"):
        ledger.reserve(Reservation("a", "app", "r", "e", Size(200, 1000)))


def test_the_worked_example_of_a_group() -> None:
    ledger, pair = Ledger(), Group("k", "app", Size(100, 1000), 2)
    ledger.offer("e", Size(1000, 10_000))
    charged = [ledger.reserve(reservation(f"c{n}", "r", "e", pair)) for n in range(5)]
    assert charged == [pair.size, pair.size, NOTHING, NOTHING, NOTHING]
    assert [ledger.release(f"c{n}") for n in range(3)] == [NOTHING] * 3
    assert ledger.free("e") == Size(800, 8000)
    assert ledger.release("c3") == pair.size
    assert ledger.free("e") == Size(900, 9000)


def test_a_line_has_an_end() -> None:
    ledger, alone = Ledger(), Group("k", "app", Size(100, 1000), 1)
    ledger.offer("e", Size(100, 1000))
    for number in range(1 + QUEUED_MAX):
        ledger.reserve(reservation(f"c{number}", "r", "e", alone))
    with pytest.raises(Overdrawn, match="33 calls"):
        ledger.reserve(reservation("one more", "r", "e", alone))
    assert ledger.members("e", "r", alone) == 33


def test_only_hot_routes_with_a_key_share_sandboxes() -> None:
    size = Size(100, 1000)
    assert group(head("a", max_concurrency=2, sandbox_key="k"), size) == Group("k", "app", size, 2)
    assert group(head("a", max_concurrency=0, sandbox_key="k"), size) is None
    assert group(head("a", max_concurrency=2), size) is None
