"""The ledger's sums balance, whatever happens to it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.scheduler.ledger import NOTHING, Ledger, Overdrawn, Reservation, Size, need, offer
from tests.unit.scheduler.build import head, heartbeat

ENGINES = st.sampled_from(["e1", "e2", "e3"])
CALLS = st.sampled_from([f"c{n}" for n in range(12)])
SIZES = st.builds(Size, st.integers(1, 500), st.integers(1, 3000))


class LedgerMachine(RuleBasedStateMachine):
    """Compares the ledger with plain tables."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.offered: dict[str, Size] = {}
        self.given: dict[str, tuple[str, Size]] = {}

    def left(self, engine: str) -> Size:
        offered = self.offered.get(engine, NOTHING)
        taken = [size for at, size in self.given.values() if at == engine]
        return Size(
            max(offered.memory_mb - sum(size.memory_mb for size in taken), 0),
            max(offered.millicpus - sum(size.millicpus for size in taken), 0),
        )

    @rule(engine=ENGINES, size=st.one_of(st.just(NOTHING), SIZES))
    def offer(self, engine: str, size: Size) -> None:
        self.ledger.offer(engine, size)
        self.offered[engine] = size

    @rule(call=CALLS, engine=ENGINES, size=SIZES)
    def reserve(self, call: str, engine: str, size: Size) -> None:
        reservation = Reservation(call, "app", f"runner-of-{engine}", engine, size)
        if call not in self.given and self.left(engine).covers(size):
            self.ledger.reserve(reservation)
            self.given[call] = (engine, size)
        else:
            with pytest.raises(Overdrawn):
                self.ledger.reserve(reservation)

    @rule(call=CALLS, engine=ENGINES, size=SIZES)
    def recover(self, call: str, engine: str, size: Size) -> None:
        self.ledger.recover(Reservation(call, "app", f"runner-of-{engine}", engine, size))
        self.given[call] = (engine, size)

    @rule(call=CALLS)
    def release(self, call: str) -> None:
        released = self.ledger.release(call)
        expected = self.given.pop(call, None)
        assert (released and (released.engine_id, released.size)) == expected

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
