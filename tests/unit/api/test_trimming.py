"""When is what was read dropped?"""

from services.api.trimming import LEFT_MAX_BYTES, LEFT_MAX_ENTRIES, LEFT_MAX_S, Trimming


def test_nothing_read_is_nothing_to_drop() -> None:
    assert Trimming().due(1e9) is None


def test_many_entries_are_dropped_at_once() -> None:
    trimming = Trimming()
    trimming.read(b"5-7", LEFT_MAX_ENTRIES - 1, 0, 0.0)
    assert trimming.due(0.0) is None
    trimming.read(b"6-0", 1, 0, 0.0)
    assert trimming.due(0.0) == "6-1"


def test_so_are_large_ones() -> None:
    trimming = Trimming()
    trimming.read(b"5-7", 1, LEFT_MAX_BYTES, 0.0)
    assert trimming.due(0.0) == "5-8"


def test_few_are_dropped_some_time_after_the_first_was_read() -> None:
    trimming = Trimming()
    trimming.read(b"5-7", 1, 1, 0.0)
    trimming.read(b"5-8", 1, 1, LEFT_MAX_S / 2)
    assert trimming.due(LEFT_MAX_S / 2) is None
    assert trimming.due(LEFT_MAX_S) == "5-9"


def test_what_is_dropped_is_dropped_once() -> None:
    trimming = Trimming()
    trimming.read(b"5-7", LEFT_MAX_ENTRIES, 1, 0.0)
    assert trimming.due(0.0) == "5-8"
    assert trimming.due(1e9) is None
    trimming.read(b"9-0", 1, 1, 1e9)
    assert trimming.due(1e9) is None
