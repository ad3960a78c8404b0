"""A table of images, CSV or Parquet: `path`, and `label`, `group`, `split` and `text` where they are known."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kontrast.data.annotations import Annotations, class_codes, group_codes, part_names
from kontrast.data.folder import FileListing, Unpaired
from kontrast.data.pairs import gathered, usable_rows, without_texts
from kontrast.data.tabular import PATH, TEXT, Columns, Table, read_table
from kontrast.errors import InputError

_MULTI = "label:"
_NOT_A_LABEL = {"nan", "NaN", "NAN", "None", "<NA>"}


def list_table(path: Path, columns: Columns | None = None, *, texts: bool = True) -> FileListing:
    """The images of a table that is itself the data; its paths are relative to its own folder.

    With a column of texts, an image may have several rows, which are several texts of it, and a row without a file or
    a text is no error here, but one of `unpaired`.

    Args:
        path: The table.
        columns: What its columns are called.
        texts: Whether to read texts; if not, a row need not have one, and all rows of an image are one.

    Raises:
        InputError: As `read_table`; without texts, a file that does not exist; labels, parts that cannot be used.
    """
    table = read_table(path, columns, texts=texts)
    known: tuple[tuple[str, ...], ...] | None = None
    unpaired: tuple[Unpaired, ...] = ()
    if texts and TEXT in table.columns:
        table, unpaired = usable_rows(table)
        table, known = gathered(table)
    else:
        table = without_texts(table)
        _refuse_missing(table)
    order = sorted(range(len(table.where)), key=lambda row: table.columns[PATH][row])
    table, known = table.take(order), known and tuple(known[row] for row in order)
    return FileListing(
        name=str(path),
        names=tuple(table.columns[PATH]),
        paths=tuple(path.absolute().parent / name for name in table.columns[PATH]),
        annotations=replace(annotate(table), texts=known),
        where=tuple(table.where),
        unpaired=unpaired,
    )


def _refuse_missing(table: Table) -> None:
    folder, names = table.path.absolute().parent, table.columns[PATH]
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise InputError(
            f"every path of a table must be a file beside it; {len(missing)} of {len(names)} in {table.path} do not "
            f"exist ({_first(missing)}): paths are relative to {folder}"
        )


def attach(listing: FileListing, path: Path, root: Path, columns: Columns | None = None) -> FileListing:
    """A listing under the labels, groups and split of a table; images that the table does not name have none.

    Args:
        listing: Images of a folder.
        path: The table. Its paths are relative to its own folder or else to `root`.
        root: The folder of the images.
        columns: What the table's are called. Texts are not taken from it.

    Raises:
        InputError: As `read_table`; no column of labels; or a row that is none of the images.
    """
    table = without_texts(read_table(path, columns, texts=False))
    if not any(name == "label" or name.startswith(_MULTI) for name in table.columns):
        raise InputError(
            f"a table of labels must have a column `label` or columns `{_MULTI}NAME`; {path} has "
            f"{', '.join(table.columns)}: rename the one that holds the labels"
        )
    known = {os.path.normpath(file): position for position, file in enumerate(listing.paths)}
    bases = (path.absolute().parent, root.absolute())
    found = [_position(cell, bases, known) for cell in table.columns[PATH]]
    missing = [cell for cell, position in zip(table.columns[PATH], found, strict=True) if position is None]
    if missing:
        raise InputError(
            f"every labelled file must be one of the images; {len(missing)} of {len(found)} in {path} are not in "
            f"{root} ({_first(missing)}): paths are relative to the table or to the data folder"
        )
    row_of = {position: row for row, position in enumerate(found)}
    if len(row_of) < len(found):
        twice = next(cell for row, cell in enumerate(table.columns[PATH]) if row_of[found[row]] != row)
        raise InputError(
            f"an image stands in a table once; {path} names the file {twice!r} in two ways: keep one row of it"
        )
    aligned = table.take([row_of.get(position, -1) for position in range(len(listing.names))])
    new = replace(annotate(aligned), texts=listing.annotations.texts)
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


def _position(cell: str, bases: tuple[Path, ...], known: dict[str, int]) -> int | None:
    candidates = (os.path.normpath(base / cell) for base in bases)
    return next((known[candidate] for candidate in candidates if candidate in known), None)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
