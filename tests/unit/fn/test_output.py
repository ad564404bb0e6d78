"""How do results look? Tabs between columns, no steering of terminals, YAML in the given order."""

import io

import pytest

from fn import hints, output


def test_columns_can_be_cut_at_tabs() -> None:
    rows = [["path", "image"], ["/a-path-of-16-cha", "i"], ["/12345678", "j"]]
    lines = output.tabbed(rows).split("\n")
    assert [[cell for cell in line.split("\t") if cell] for line in lines] == rows


def test_a_cell_as_long_as_its_column_still_has_a_tab_behind_it() -> None:
    assert output.tabbed([["12345678", "x"]]) == "12345678\tx"


def test_cells_begin_at_the_same_column() -> None:
    lines = output.tabbed([["a", "x"], ["123456789", "y"]]).expandtabs(8).split("\n")
    assert lines[0].index("x") == lines[1].index("y")


def test_what_steers_a_terminal_is_not_shown() -> None:
    assert output.cell("a\x1b[31mred\u202e") == "a[31mred"


def test_a_wide_table_on_a_narrow_terminal_had_its_column_names_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    names = [f"column-{n}" for n in range(12)]
    output.show_table(output.Table(names, [[f"value-{n}" for n in range(12)]]))
    shown = terminal.getvalue()
    assert all(name in shown for name in names)
    assert all(f"value-{n}" in shown for n in range(12))


def test_yaml_keeps_the_order_and_letters() -> None:
    assert output.as_yaml({"name": "é", "config": {"B": "1", "A": "yes"}}) == (
        "name: é\nconfig:\n  B: '1'\n  A: 'yes'\n"
    )


@pytest.mark.parametrize("value", ["text", 5, None, True])
def test_yaml_of_one_value_is_one_line(value: object) -> None:
    assert output.as_yaml(value).count("\n") == 1


DATE = "Tue, 24 Nov 2026 12:00:00 GMT"
NOON = 1795521600


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (NOON, "signed with another key"),
        (NOON + 7200, "2 h ahead of the platform's"),
        (NOON - 172800, "2 d behind the platform's"),
    ],
)
def test_a_clock_that_differs_is_told(now: float, words: str) -> None:
    assert words in hints.unauthorized(has_key=True, date=DATE, now=now)


def test_without_a_key_it_is_the_key_that_is_missing() -> None:
    assert "set JWT_AUTH_KEY" in hints.unauthorized(has_key=False, date=DATE, now=NOON)


def test_a_test_was_coloured_though_nobody_wanted_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.coloured("ok", "green") == "ok"
    monkeypatch.delenv("NO_COLOR")
    assert output.coloured("ok", "green") == "\x1b[32mok\x1b[0m"
