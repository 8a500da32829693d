"""Tables in a terminal: at any width every cell is there, whole; where there is room a row takes one line."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from cotbench.paragraph import Paragraph, together, wrapped
from cotbench.text_table import Kind, TableColumn, TextCell, TextTable, table_row
from tests.cotbench.table_checks import check_whole

NUMBERS = TextTable(
    (TableColumn("on the same tasks", "label"), TableColumn("A"), TableColumn("B"), TableColumn("B - A")),
    (
        table_row(
            "success", TextCell("0.40", "[0.26, 0.56]"), TextCell("0.50", "[0.35, 0.65]"), TextCell("+0.10", "[-0.05, +0.25]")
        ),
        table_row("steps", TextCell("12.0", "[9.0, 15.0]"), TextCell("9.5", "[8.0, 11.0]"), TextCell("-2.5", "[-4.0, -1.0]")),
    ),
)


def _text(table: TextTable, width: int) -> list[str]:
    return [line.text for line in table.lines(width)]


def test_where_there_is_room_a_row_is_a_line() -> None:
    assert _text(NUMBERS, 80) == [
        "on the same tasks                  A                  B                 B - A",
        "─" * 77,
        "success            0.40 [0.26, 0.56]  0.50 [0.35, 0.65]  +0.10 [-0.05, +0.25]",
        "steps               12.0 [9.0, 15.0]    9.5 [8.0, 11.0]     -2.5 [-4.0, -1.0]",
    ]


def test_where_there_is_less_heads_are_wrapped_then_intervals_go_below() -> None:
    assert _text(NUMBERS, 70)[:3] == [
        "on the",
        "same",
        "tasks                    A                  B                 B - A",
    ]
    assert _text(NUMBERS, 60)[4:6] == [
        "success          0.40          0.50           +0.10",
        "         [0.26, 0.56]  [0.35, 0.65]  [-0.05, +0.25]",
    ]


def test_a_long_label_goes_above_its_row() -> None:
    table = TextTable(
        NUMBERS.columns, (*NUMBERS.rows, table_row("pick_cool_then_place_in_recep, prompt, n=24", "0.1", "0.2", "+0.1"))
    )
    lines = _text(table, 80)
    assert lines[-2] == "pick_cool_then_place_in_recep, prompt, n=24"
    assert lines[-1].split() == ["0.1", "0.2", "+0.1"] and len(lines[-1]) == len(lines[-4]) == 67
    assert "success" in lines[-4] and "[-0.05, +0.25]" in lines[-4], "the other rows stay as they are"


def test_what_is_wrapped_before_a_label_that_goes_above_is_whole() -> None:
    columns = (TableColumn("words", "text"), TableColumn("name", "label"), TableColumn("a" * 20))
    table = TextTable(columns, (table_row("one two three four five six", "n" * 30, "+0.00"),))
    for width in range(20, 80):
        check_whole(table, width)


def test_where_nothing_fits_a_row_is_a_block() -> None:
    assert _text(NUMBERS, 30)[:4] == [
        "success",
        "    A      0.40 [0.26, 0.56]",
        "    B      0.50 [0.35, 0.65]",
        "    B - A  +0.10",
    ]
    assert _text(NUMBERS, 24)[1:4] == ["    A      0.40", "           [0.26, 0.56]", "    B      0.50"]


def test_or_columns_become_several_tables() -> None:
    row = table_row("1", *[TextCell("0.12", "[0.10, 0.15]")] * 6)
    columns = (TableColumn("layer"), *(TableColumn(f"head {n}") for n in range(6)))
    lines = _text(TextTable(columns, (row,), narrow="columns"), 40)
    assert sum("layer" in line for line in lines) == 3 and max(map(len, lines)) <= 40
    assert " ".join(lines).count("[0.10, 0.15]") == 6


def test_a_word_longer_than_the_line_is_not_broken() -> None:
    path = "/very/long/" * 9
    table = TextTable((TableColumn("what", "label"), TableColumn("found", "text")), (table_row("cache", f"in {path} there"),))
    assert [line for line in _text(table, 40) if path in line]
    screen = Console(width=40, file=io.StringIO())
    screen.print(table, Paragraph(f"cache: {path}"), crop=False)
    assert screen.file.getvalue().count(path) == 2  # type: ignore[attr-defined]


def test_no_line_ends_where_words_belong_together() -> None:
    assert wrapped(f"a {together('b c')} d", 3) == ["a", "b c", "d"]
    assert wrapped("one two three", 8, indent=2) == ["one two", "  three"]


def test_a_screen_without_our_characters_gets_others() -> None:
    screen = Console(width=80, file=io.TextIOWrapper(io.BytesIO(), "ascii"))
    screen.print(NUMBERS)
    screen.file.flush()
    assert "-" * 77 in screen.file.buffer.getvalue().decode()  # type: ignore[attr-defined]


def test_what_does_something_to_a_terminal_is_measured_as_it_is_shown() -> None:
    assert TextCell("\x1b[2J").value == r"\x1b[2J"


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="a row has 1 cells, the table 4 columns"):
        TextTable(NUMBERS.columns, (table_row("a"),))


_WORD = st.text("abcdefgh_1234é日", min_size=1, max_size=24)
_NUMBER = st.builds(TextCell, st.floats(-1e4, 1e4).map("{:+.2f}".format), st.sampled_from(["", "[n=1]", "[-0.05, +0.25]"]))
_CELLS: dict[Kind, st.SearchStrategy[TextCell]] = {
    "number": _NUMBER,
    "label": st.builds(TextCell, st.lists(_WORD, min_size=1, max_size=3).map(" ".join), st.sampled_from(["", "1a2b3c"])),
    "text": st.builds(TextCell, st.lists(_WORD, min_size=1, max_size=12).map(" ".join)),
}


@st.composite
def _tables(draw: st.DrawFn) -> TextTable:
    kinds: list[Kind] = draw(st.lists(st.sampled_from(["number", "label", "text"]), min_size=1, max_size=6))
    columns = tuple(TableColumn(draw(_WORD), kind) for kind in kinds)
    rows = draw(st.lists(st.tuples(*(_CELLS[kind] for kind in kinds)), min_size=1, max_size=4))
    return TextTable(columns, tuple(table_row(*row) for row in rows), "columns" if set(kinds[1:]) == {"number"} else "rows")


@settings(max_examples=25, deadline=None)
@given(_tables(), st.integers(10, 140))
def test_at_any_width_every_cell_is_there_whole(table: TextTable, width: int) -> None:
    check_whole(table, width)
