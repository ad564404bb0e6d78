"""Is a queue that does not end worth one more sandbox? With the numbers of the docstring."""

from dataclasses import dataclass, field

from services.runner.patience import Patience

START_MS = 100.0
#: How many calls wait all the time.
WAITING = 5


@dataclass
class Queue:
    """A queue that does not end."""

    patience: Patience = field(default_factory=Patience)
    now_ms: int = 1_000

    def lasts(self, serving: int, calls_per_s: int) -> int:
        """Return after how many milliseconds one more is worth its start, which begins then."""
        begun_ms = self.now_ms
        while True:
            self.now_ms += 10
            for _ in range(calls_per_s // 100):
                self.patience.call_ended()
            self.patience.count(WAITING, self.now_ms)
            if self.patience.over(START_MS, serving, self.now_ms):
                self.patience.started(self.now_ms)
                self.patience.came(self.now_ms)
                return self.now_ms - begun_ms


def queue() -> Queue:
    made = Queue()
    made.patience.count(0, made.now_ms)
    return made


def test_what_waiting_has_cost_is_paid_with_one_more() -> None:
    assert queue().lasts(serving=1, calls_per_s=500) == 160


def test_the_price_grows_with_the_square_of_those_there_are() -> None:
    waits = queue()
    waits.lasts(serving=1, calls_per_s=500)
    assert waits.lasts(serving=2, calls_per_s=1_000) == 4 * 160
    assert waits.lasts(serving=3, calls_per_s=1_500) == 9 * 160


def test_after_one_that_was_in_vain_it_takes_longer() -> None:
    waits = queue()
    waits.lasts(serving=1, calls_per_s=500)
    assert waits.lasts(serving=2, calls_per_s=520) == 640 + 2_560


def test_each_that_is_in_vain_makes_it_longer_up_to_a_limit() -> None:
    waits = queue()
    waits.lasts(serving=1, calls_per_s=500)
    took_ms = [waits.lasts(serving=1, calls_per_s=500) for _ in range(6)]
    assert took_ms == [
        160 * (1 + 4),
        160 * (4 + 16),
        160 * (16 + 64),
        160 * (64 + 256),
        160 * (256 + 256),
        160 * (256 + 256),
    ]


def test_one_that_was_of_use_makes_up_for_those_in_vain() -> None:
    waits = queue()
    waits.lasts(serving=1, calls_per_s=500)
    waits.lasts(serving=2, calls_per_s=500)
    waits.lasts(serving=2, calls_per_s=1_000)
    assert waits.lasts(serving=2, calls_per_s=2_000) == 640


def test_nothing_is_owed_for_a_queue_that_has_ended() -> None:
    waits = queue()
    waits.patience.count(WAITING, waits.now_ms + 150)
    waits.patience.count(0, waits.now_ms + 150)
    waits.now_ms += 150
    assert waits.lasts(serving=1, calls_per_s=500) == 160
