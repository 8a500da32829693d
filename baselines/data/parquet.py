"""Parquet files of training data. Invariant: a file is written atomically, and read row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cotbench.errors import MissingExtraError, UsageError
from cotbench.runs.atomic_file import replacement


def require_parquet() -> None:
    """Raise an error before a long run rather than after it.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    _pyarrow()


def check_suffix(path: Path) -> None:
    """Refuse the name of a file that is to be written in another format.

    Raises:
        UsageError: it ends neither in .jsonl nor in .parquet.
        MissingExtraError: a .parquet file, and pyarrow is not installed.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"{path} is neither a .jsonl nor a .parquet file: name it so")
    if path.suffix == ".parquet":
        require_parquet()


def read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield each row with its place, for messages.

    Raises:
        UsageError: it is not a Parquet file.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number},", row
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # Text that is not UTF-8 is a ValueError.
        raise UsageError(f"{path} is not a Parquet file ({str(error).splitlines()[0]}): write it again") from error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Callable[[Any], Mapping[str, Any]]) -> None:
    """Write a file, atomically.

    Args:
        path: the file, replaced where it exists.
        rows: in this order.
        columns: returns names and types of the columns, given pyarrow.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _pyarrow()
    table = arrow.Table.from_pylist(list(rows), schema=arrow.schema(columns(arrow)))
    with replacement(path) as file:
        parquet.write_table(table, file)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("a .parquet file", "train") from error
    return pyarrow, parquet
