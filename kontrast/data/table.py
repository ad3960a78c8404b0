"""A table of images, CSV or Parquet: `path`, and `label`, `group` and `split` where they are known."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.annotations import Annotations, class_codes, group_codes, part_names
from kontrast.data.folder import FileListing
from kontrast.errors import InputError

_MULTI = "label:"
_NOT_A_LABEL = {"nan", "NaN", "NAN", "None", "<NA>"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table as text: "" is an empty cell, "nan" a floating-point NaN."""

    path: Path
    columns: dict[str, list[str]]
    where: list[str]
    """`(n,)`, where each row is found, for messages: "line 7"."""


def read_table(path: Path) -> Table:
    """Reads a CSV (comma, semicolon or tab; UTF-8) or a Parquet file.

    Raises:
        InputError: No such file, not a table, no column `path`, no row, or a path that stands twice.
    """
    if not path.is_file():
        raise InputError(f"a table must be an existing file; there is none at {path}: check the path")
    table = READERS.get(path.suffix.lower(), _read_csv)(path)
    if "path" not in table.columns:
        raise InputError(
            f"a table must name each image in a column `path`; {path} has the columns "
            f"{', '.join(table.columns) or '(none)'}: rename the one that holds the files"
        )
    if not table.where:
        raise InputError(f"a table must have a row for each image; {path} has none: check the file")
    _refuse_duplicates(table)
    return table


def list_table(path: Path) -> FileListing:
    """The images of a table that is itself the data; its paths are relative to its own folder.

    Raises:
        InputError: As `read_table`; a file that does not exist; labels, parts that cannot be used.
    """
    table = read_table(path)
    order = sorted(range(len(table.where)), key=lambda row: table.columns["path"][row])
    table = _rows(table, order)
    paths = tuple(path.absolute().parent / name for name in table.columns["path"])
    missing = [name for name, file in zip(table.columns["path"], paths, strict=True) if not file.is_file()]
    if missing:
        raise InputError(
            f"every path of a table must be a file beside it; {len(missing)} of {len(paths)} in {path} do not exist "
            f"({_first(missing)}): paths are relative to {path.absolute().parent}"
        )
    return FileListing(name=str(path), names=tuple(table.columns["path"]), paths=paths, annotations=annotate(table))


def attach(listing: FileListing, path: Path, root: Path) -> FileListing:
    """A listing under the labels, groups and split of a table; images that the table does not name have none.

    Args:
        listing: Images of a folder.
        path: The table. Its paths are relative to its own folder or else to `root`.
        root: The folder of the images.

    Raises:
        InputError: As `read_table`; no column of labels; or a row that is none of the images.
    """
    table = read_table(path)
    if not any(name == "label" or name.startswith(_MULTI) for name in table.columns):
        raise InputError(
            f"a table of labels must have a column `label` or columns `{_MULTI}NAME`; {path} has "
            f"{', '.join(table.columns)}: rename the one that holds the labels"
        )
    known = {os.path.normpath(file): position for position, file in enumerate(listing.paths)}
    bases = (path.absolute().parent, root.absolute())
    found = [_position(cell, bases, known) for cell in table.columns["path"]]
    missing = [cell for cell, position in zip(table.columns["path"], found, strict=True) if position is None]
    if missing:
        raise InputError(
            f"every labelled file must be one of the images; {len(missing)} of {len(found)} in {path} are not in "
            f"{root} ({_first(missing)}): paths are relative to the table or to the data folder"
        )
    row_of = {position: row for row, position in enumerate(found)}
    if len(row_of) < len(found):
        twice = next(cell for row, cell in enumerate(table.columns["path"]) if row_of[found[row]] != row)
        raise InputError(
            f"an image stands in a table once; {path} names the file {twice!r} in two ways: keep one row of it"
        )
    aligned = _rows(table, [row_of.get(position, -1) for position in range(len(listing.names))])
    new = annotate(aligned)
    return replace(
        listing, annotations=new if "split" in table.columns else replace(new, parts=listing.annotations.parts)
    )


def annotate(table: Table) -> Annotations:
    """Labels, groups and parts of a table's rows.

    Raises:
        InputError: NaN as a label, a multi-label value that is not 0, 1 or empty, or an unknown split.
    """
    multi = [name for name in table.columns if name.startswith(_MULTI)]
    if multi and "label" in table.columns:
        raise InputError(
            f"a table has one column `label` or several `{_MULTI}NAME`; {table.path} has both: remove one of the kinds"
        )
    labels, classes = _multilabel(table, multi) if multi else _single_label(table)
    empty = [""] * len(table.where)
    groups, names = group_codes(table.columns.get("group", empty))
    return Annotations(
        labels=labels,
        classes=classes,
        groups=groups,
        group_names=names,
        parts=part_names(table.columns.get("split", empty), origin=str(table.path)),
    )


def _single_label(table: Table) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    values = table.columns.get("label", [])
    for value, where in zip(values, table.where, strict=False):
        if value in _NOT_A_LABEL:
            raise InputError(
                f"a label must name a class; {table.path}, {where}, has {value!r}: "
                "leave the cell empty where there is no label"
            )
    return class_codes(values)


def _multilabel(table: Table, columns: list[str]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    labels = np.full((len(table.where), len(columns)), np.nan)
    for column, name in enumerate(columns):
        for row, value in enumerate(table.columns[name]):
            labels[row, column] = _zero_or_one(value, f"{table.path}, {table.where[row]}, column {name}")
    return labels, tuple(name.removeprefix(_MULTI) for name in columns)


def _zero_or_one(value: str, where: str) -> float:
    if value.lower() in {"", "nan"}:
        return math.nan
    if value in {"0", "1", "0.0", "1.0"}:
        return float(value)
    raise InputError(f"a multi-label value is 0, 1 or empty for unknown; {where}, has {value!r}: correct the cell")


def _read_csv(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        rows = [(f"line {reader.line_num}", [cell.strip() for cell in row]) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"a table must be CSV text in UTF-8 or Parquet; {path} is not ({error}): save it anew"
        ) from error
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


def _read_parquet(path: Path) -> Table:
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
    columns = {name: [_as_text(value) for value in content[name].to_pylist()] for name in content.column_names}
    return Table(path=path, columns=columns, where=[f"row {row}" for row in range(1, content.num_rows + 1)])


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return str(value).strip()


def _rows(table: Table, rows: list[int]) -> Table:
    """The table with these rows in this order; -1 is an empty row."""
    columns = {name: [cells[row] if row >= 0 else "" for row in rows] for name, cells in table.columns.items()}
    return replace(table, columns=columns, where=[table.where[row] if row >= 0 else "no row" for row in rows])


def _position(cell: str, bases: tuple[Path, ...], known: dict[str, int]) -> int | None:
    candidates = (os.path.normpath(base / cell) for base in bases)
    return next((known[candidate] for candidate in candidates if candidate in known), None)


def _refuse_duplicates(table: Table) -> None:
    path, count = Counter(map(os.path.normpath, table.columns["path"])).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"an image stands in a table once; {table.path} names {path!r} {count} times: keep one row of it"
        )


def _refuse_twins(path: Path, names: list[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise InputError(f"columns must have different names; {path} has {twins[0]!r} twice: rename or remove one")


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


READERS = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}
"""How a table is read, by its suffix; anything else is tried as CSV."""
