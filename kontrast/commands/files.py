"""Results that are one file: never overwritten, as text or as a table.

A cell that begins with = + - or @ is a formula to a spreadsheet, and other people name files and write texts. So a path
that does is written with ./ before it, which is the same path and no formula, and a text with an apostrophe.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kontrast.errors import InputError
from kontrast.files import whole_file

Columns = dict[str, list[Any]]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula."""


def check_out(out: Path, suffixes: Iterable[str], what: str) -> None:
    """Refuse a file of another kind, or one that is there already; commands ask before they compute.

    Raises:
        InputError: Either.
    """
    if out.suffix not in suffixes:
        raise InputError(f"--out must end in {', '.join(suffixes)}; got {out.name}")
    if out.exists():
        raise InputError(f"{what} never overwrite; {out} is there already, so name another file")


def path_cell(name: str) -> str:
    """A path that is no formula, and the same path."""
    return f"./{name}" if name.startswith(FORMULA) else name


def text_cell(text: str) -> str:
    """A text that is no formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def write_table(out: Path, columns: Columns) -> None:
    """Write columns by their names as the suffix of `out` says, which is one in `TABLES`; whole or not at all."""
    with whole_file(out) as partial:
        TABLES[out.suffix](partial, columns)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write UTF-8; names of files that are no UTF-8 keep their bytes."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_parquet(path: Path, columns: Mapping[str, Any], *, otherwise: str) -> None:
    """Write columns by their names, text that is no UTF-8 with escapes in place of what is not.

    Raises:
        InputError: pyarrow is missing; `otherwise` says which format needs none.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError(f"Parquet needs pyarrow: pip install 'kontrast[tables]', or write {otherwise}") from error
    known = {_valid(name): _valid_column(column) for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(known), path)


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _valid_column(column: Any) -> Any:
    return [_valid(value) if isinstance(value, str) else value for value in column] if type(column) is list else column


def _columns_to_csv(path: Path, columns: Columns) -> None:
    write_csv(path, list(columns), zip(*columns.values(), strict=True))


def _columns_to_parquet(path: Path, columns: Columns) -> None:
    write_parquet(path, columns, otherwise=".csv")


TABLES: dict[str, Callable[[Path, Columns], None]] = {".csv": _columns_to_csv, ".parquet": _columns_to_parquet}
"""How tables of columns are written, by the suffix of their file."""
