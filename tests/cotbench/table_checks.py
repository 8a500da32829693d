"""What holds of a table at any width: every cell is there whole, and only a word that is longer makes a line too long."""

from rich.cells import cell_len

from cotbench.text_table import TextTable

WIDTHS = (80, 100, 140)


def unbroken_parts(table: TextTable) -> list[str]:
    """What must stand in one piece: numbers, intervals, labels, ids; of titles and running text each word."""
    named = next((column for column in table.columns if column.kind == "label"), table.columns[0])
    heads = [column for column in table.columns if column is not named]  # In blocks, labels are the heads.
    parts = [word for column in heads for word in f"{column.title} {column.beside}".split(" ")]
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            parts += str(cell).split() if column.kind == "text" else [*cell.value.split("\n"), cell.beside]
    return [part.replace("\u00a0", " ") for part in parts if part]


def check_whole(table: TextTable, width: int) -> None:
    """Raise an error for a table of which a part is cut or broken in a terminal."""
    lines = [line.text for line in table.lines(width)]
    page = "\n".join(lines)
    for part in unbroken_parts(table):
        assert part in page, (width, part, page)
    # In a block what is too long for its line stands six columns to the right.
    longest = max(map(cell_len, unbroken_parts(table)))
    assert max(map(cell_len, lines)) <= max(width, longest + 6), (width, page)
