"""A table as text, from CSV or Parquet: which column names the images, which one says what they show."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from kontrast.data.delimited import read_rows
from kontrast.errors import InputError

PATH, TEXT = "path", "text"
_PATHS = ("path", "image", "filepath")
_TEXTS = ("text", "caption")
_OPEN_CLIP = ("filepath", "title")
_TAB = {"tab", "\\t"}
"""What a shell passes on more easily than a tab."""
NOT_UTF8 = "\udcff"
"""Stands for a cell of Parquet that is no UTF-8: half of a surrogate pair, which is in no text that was decoded."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a table's columns are called and parted by, where that is not as usual."""

    image: str | None = None
    """Names the file of each image; None for `path`, else `image`, else `filepath`."""
    text: str | None = None
    """Says what it shows; None for `text`, else `caption`, else `title` beside `filepath`, else no texts."""
    delimiter: str | None = None
    """Of a CSV; None for the comma, semicolon or tab that the first line has most of."""

    def check(self) -> None:
        """Refuse what parts no columns.

        Raises:
            InputError: The delimiter is no single character.
        """
        if self.delimiter is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise InputError(
                f"a delimiter is one character other than a quote or line break; got {self.delimiter!r}: give for "
                "example , or ; or tab"
            )

    @property
    def separator(self) -> str:
        """The delimiter, "" to find it."""
        return "\t" if self.delimiter in _TAB else self.delimiter or ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table as text: "" is an empty cell, "nan" a floating-point NaN."""

    path: Path
    columns: dict[str, list[str]]
    """Cells by column; that of the images is called `path` and that of the texts `text`."""
    where: list[str]
    """`(n,)`, where each row begins, for messages: "line 7"."""

    @property
    def places(self) -> list[str]:
        """`(n,)` normal absolute paths of the rows' files, since a table may spell one file in several ways."""
        folder = os.path.abspath(self.path.parent)
        return [os.path.normpath(os.path.join(folder, name)) for name in self.columns[PATH]]

    def take(self, rows: list[int]) -> Table:
        """The table with these rows in this order; -1 is an empty row."""
        columns = {name: [cells[row] if row >= 0 else "" for row in rows] for name, cells in self.columns.items()}
        return replace(self, columns=columns, where=[self.where[row] if row >= 0 else "no row" for row in rows])


def read_table(path: Path, columns: Columns | None = None, *, texts: bool = True) -> Table:
    """Reads a CSV (comma, semicolon or tab; UTF-8) or a Parquet file.

    Args:
        path: The table.
        columns: What its columns are called, where that is not as usual.
        texts: Whether a column of texts that `columns` names must be there.

    Raises:
        InputError: No such file, not a table, no column of images, no row, or, where there are no texts, an image that
            stands there twice.
    """
    if not path.is_file():
        raise InputError(f"a table must be an existing file; there is none at {path}: check the path")
    columns = columns or Columns()
    columns.check()
    table = READERS.get(path.suffix.lower(), _read_csv)(path, columns)
    if not texts and columns.text not in table.columns:
        columns = replace(columns, text=None)
    table = _renamed(table, columns)
    if not table.where:
        raise InputError(f"a table must have a row for each image; {path} has none: check the file")
    _refuse_undecoded(table)
    if TEXT not in table.columns:
        _refuse_duplicates(table)
    return table


def _renamed(table: Table, wanted: Columns) -> Table:
    """The table with the columns of images and texts under their usual names."""
    there = table.columns
    for name, flag in ((wanted.image, "--image-column"), (wanted.text, "--text-column")):
        if name is not None and name not in there:
            raise InputError(
                f"a column must be one of the table's; {table.path} has {', '.join(there) or '(none)'} and not "
                f"{name!r}: choose another with {flag}"
            )
    image = wanted.image or next((name for name in _PATHS if name in there), None)
    if image is None:
        raise InputError(
            f"a table must name each image in a column `path`, `image` or `filepath`; {table.path} has the columns "
            f"{', '.join(there) or '(none)'}: rename the one that holds the files, or name it with --image-column"
        )
    text = wanted.text or next((name for name in _TEXTS if name in there and name != image), None)
    if text is None and image == _OPEN_CLIP[0] and _OPEN_CLIP[1] in there:
        text = _OPEN_CLIP[1]
    others = {name: cells for name, cells in there.items() if name not in (PATH, TEXT, image, text)}
    known = {PATH: there[image]} | ({} if text is None else {TEXT: there[text]})
    return replace(table, columns=known | others)


def _read_csv(path: Path, columns: Columns) -> Table:
    rows = read_rows(path, columns.separator)
    header = rows[0][1] if rows else []
    for where, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"every row must have a cell for each column; {path}, {where}, has {len(row)} cells for "
                f"{len(header)} columns: put quotes around cells that hold the separator"
            )
    _refuse_twins(path, header)
    return Table(
        path=path,
        columns={name: [row[column] for _, row in rows[1:]] for column, name in enumerate(header)},
        where=[where for where, _ in rows[1:]],
    )


def _read_parquet(path: Path, columns: Columns) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(
            f"reading Parquet needs pyarrow, which is not installed, so {path} cannot be read: "
            "pip install 'kontrast[tables]', or save the table as CSV"
        ) from error
    try:
        content = parquet.ParquetFile(path).read()
    except (ArrowException, OSError) as error:
        raise InputError(f"a .parquet table must be a Parquet file; {path} is not ({error}): save it anew") from error
    _refuse_twins(path, content.column_names)
    cells = {name: [_as_text(value) for value in _values(content[name])] for name in content.column_names}
    return Table(path=path, columns=cells, where=[f"row {row}" for row in range(1, content.num_rows + 1)])


def _values(column: Any) -> list[Any]:
    """The values of a column of Arrow, which does not look whether its texts are UTF-8 before it decodes them."""
    try:
        return cast("list[Any]", column.to_pylist())
    except UnicodeDecodeError:
        return [_value(value) for value in column]


def _value(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return str(value).strip()


def _refuse_undecoded(table: Table) -> None:
    """Of any column but that of the texts, where such a row is left out by reason."""
    for name, cells in table.columns.items():
        if name != TEXT and NOT_UTF8 in cells:
            raise InputError(
                f"a table's cells must be UTF-8; {table.path}, {table.where[cells.index(NOT_UTF8)]}, column {name}, "
                "holds one that is not: save it anew"
            )


def _refuse_duplicates(table: Table) -> None:
    places = table.places
    place, count = Counter(places).most_common(1)[0]
    if count > 1:
        cells = dict.fromkeys(cell for cell, other in zip(table.columns[PATH], places, strict=True) if other == place)
        raise InputError(
            f"an image stands in a table once; {table.path} names {' or '.join(map(repr, cells))} {count} times: keep "
            "one row of it"
        )


def _refuse_twins(path: Path, names: list[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise InputError(f"columns must have different names; {path} has {twins[0]!r} twice: rename or remove one")


READERS: dict[str, Callable[[Path, Columns], Table]] = {
    ".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet,
}  # fmt: skip
"""How a table is read, by its suffix; anything else is tried as CSV."""
