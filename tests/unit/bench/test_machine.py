"""Is it seen how much of a machine others have?"""

from pathlib import Path

import pytest

from tests.bench import machine

BEFORE = "cpu  100 0 50 900 3 0 10 5 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
AFTER = "cpu  150 10 70 950 9 4 16 15 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


def test_what_was_stolen_is_a_part_of_what_was_wanted() -> None:
    before, after = machine.cpu_time(BEFORE), machine.cpu_time(AFTER)
    assert before == (160, 5)
    assert machine.stolen(before, after) == 10 / (90 + 10)


def test_an_idle_machine_was_stolen_nothing() -> None:
    same = machine.cpu_time(BEFORE)
    assert machine.stolen(same, same) == 0


def test_this_machine_tells() -> None:
    assert "CPUs, load" in machine.Machine().told()


def test_one_that_is_no_linux_tells_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_STAT", tmp_path / "stat")
    assert machine.Machine().told().endswith(" before")
