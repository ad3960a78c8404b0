"""Pairs of image and text: rows of a table gathered by image, and files of text beside their images.

What is no pair is named, counted and left out, up to a limit.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kontrast.data.delimited import MOST_OF_A_CELL
from kontrast.data.folder import FileListing, Unpaired
from kontrast.data.formats import SUFFIXES, refuse_irregular
from kontrast.data.tabular import NOT_UTF8, PATH, TEXT, Table
from kontrast.errors import InputError

SUFFIX = ".txt"
MOST_BYTES = 1 << 20
"""Of a file of text; a larger one is no caption and no report."""
_NOT_A_TEXT = {"", "nan", "NaN", "NAN", "<NA>"}
_OF_THE_IMAGE = re.compile(r"label(:.+)?|group|split|image_id")
"""Columns that say the same in every row of an image."""
_SHOWN = 3
_log = logging.getLogger("kontrast")


def usable_rows(table: Table) -> tuple[Table, tuple[Unpaired, ...]]:
    """The rows that name a file beside the table and a text, and why the others are none."""
    folder = table.path.absolute().parent
    cells = zip(table.columns[PATH], table.columns[TEXT], strict=True)
    reasons = [_why_no_pair(folder, name, text) for name, text in cells]
    bad = tuple(
        Unpaired(name=table.columns[PATH][row] or where, where=where, reason=reason)
        for row, (where, reason) in enumerate(zip(table.where, reasons, strict=True))
        if reason
    )
    return table.take([row for row, reason in enumerate(reasons) if not reason]), bad


def gathered(table: Table) -> tuple[Table, tuple[tuple[str, ...], ...]]:
    """One row for each image, where it first stands, and its texts, each once.

    Raises:
        InputError: Rows of one image differ in what else they say of it, or one `image_id` names several files.
    """
    _refuse_ids_of_several(table)
    rows_of = _rows_of_images(table)
    texts = tuple(tuple(dict.fromkeys(table.columns[TEXT][row] for row in rows)) for rows in rows_of)
    return _one_row_each(table, rows_of), texts


def without_texts(table: Table) -> Table:
    """The table without its column of texts, if it has one, and then with one row for each image too.

    Raises:
        InputError: Rows of one image differ in what else they say of it.
    """
    if TEXT not in table.columns:
        return table
    known = _one_row_each(table, _rows_of_images(table))
    return replace(known, columns={name: cells for name, cells in known.columns.items() if name != TEXT})


def with_texts_beside(found: FileListing, share: float) -> FileListing:
    """The images of a folder with the texts of files of the same name in `.txt`, where there are any.

    Images without one are left out where they are at most `share` of all; else the files are taken for something else.
    """
    texts, unpaired = _texts_beside(found)
    if not any(texts):
        return found
    if len(unpaired) > share * len(texts) + 1e-9:
        _log.warning(
            "%d of %d images have no text beside them, more than --max-unreadable allows (%.2f%%), so texts are not "
            "read: %s",
            *(len(unpaired), len(texts), 100 * share, by_reason(unpaired, most=_SHOWN)),
        )
        return found
    there = np.array([position for position, text in enumerate(texts) if text])
    kept = found.take(there)
    known = tuple((text,) for text in texts if text)
    return replace(kept, annotations=replace(kept.annotations, texts=known), unpaired=unpaired)


def tell(found: FileListing, share: float, shown: Callable[[str], str]) -> None:
    """Name the rows or images that make no pair, or refuse when they are more than `share` of all.

    Raises:
        InputError: They are more, or there is nothing else.
    """
    if not found.unpaired:
        return
    bad = [replace(row, name=shown(row.name)) for row in found.unpaired]
    total = len(bad) + sum(len(texts) for texts in found.annotations.texts or ())
    if len(bad) == total or len(bad) > share * total + 1e-9:
        raise InputError(
            f"every image goes with a text and every text with an image, but for {share:.2%} at most; {len(bad)} of "
            f"{total} pairs of {found.name} lack one ({by_reason(bad, most=_SHOWN)}): complete or remove them, or "
            "allow more with --max-unreadable"
        )
    _log.warning("%d of %d pairs are incomplete and are skipped: %s", len(bad), total, by_reason(bad, most=len(bad)))


def by_reason(bad: Sequence[Unpaired], *, most: int) -> str:
    """Where each reason holds, or the first few of them: "no text: line 3 (a.png), line 7 (b.png), ... (9 in all)"."""
    rows: dict[str, list[Unpaired]] = {}
    for row in bad:
        rows.setdefault(row.reason, []).append(row)
    return "; ".join(
        f"{reason}: {', '.join(map(str, same[:most]))}{f', ... ({len(same)} in all)' if len(same) > most else ''}"
        for reason, same in rows.items()
    )


def _why_no_pair(folder: Path, name: str, text: str) -> str:
    if not name:
        return "no image named"
    if not os.path.isfile(folder / name):
        return "no such file"
    return "no text" if text in _NOT_A_TEXT else _why_no_text(text)


def _why_no_text(text: str) -> str:
    if text == NOT_UTF8:
        return "text that is not UTF-8"
    if "\0" in text:
        return "text with NUL characters"
    return "text of more than a million characters" if len(text) > MOST_OF_A_CELL else ""


def _rows_of_images(table: Table) -> list[list[int]]:
    rows_of: dict[str, list[int]] = {}
    for row, place in enumerate(table.places):
        rows_of.setdefault(place, []).append(row)
    return list(rows_of.values())


def _one_row_each(table: Table, rows_of: Sequence[Sequence[int]]) -> Table:
    first = table.take([rows[0] for rows in rows_of])
    agreed = {name: _agreed(table, name, rows_of) for name in table.columns if _OF_THE_IMAGE.fullmatch(name)}
    return replace(first, columns=first.columns | agreed)


def _agreed(table: Table, column: str, rows_of: Sequence[Sequence[int]]) -> list[str]:
    """The one value, beside empty ones, that the rows of each image have in a column."""
    cells, found = table.columns[column], []
    for rows in rows_of:
        told = [row for row in rows if cells[row]]
        other = next((row for row in told if cells[row] != cells[told[0]]), None)
        if other is not None:
            raise InputError(
                f"all rows of an image give it the same labels, group and split; {table.path}, {table.where[told[0]]} "
                f"and {table.where[other]}, give {table.columns[PATH][other]!r} the {column} {cells[told[0]]!r} and "
                f"{cells[other]!r}: correct one of them"
            )
        found.append(cells[told[0]] if told else "")
    return found


def _refuse_ids_of_several(table: Table) -> None:
    seen: dict[str, int] = {}
    names, places = table.columns[PATH], table.places
    for row, number in enumerate(table.columns.get("image_id", ())):
        first = seen.setdefault(number, row) if number else row
        if places[first] != places[row]:
            raise InputError(
                f"an image_id stands for one image; {table.path}, {table.where[first]} and {table.where[row]}, give "
                f"{number!r} to {names[first]!r} and {names[row]!r}: correct one of them"
            )


def _texts_beside(found: FileListing) -> tuple[list[str], tuple[Unpaired, ...]]:
    """The text of each image, "" where there is none, and the reason of each that has none."""
    there = {folder: _text_files(folder) for folder in {path.parent for path in found.paths}}
    texts, bad = [], []
    for name, path in zip(found.names, found.paths, strict=True):
        try:
            texts.append(_text_of(there[path.parent].get(_stem(path.name))))
        except ValueError as reason:
            texts.append("")
            bad.append(Unpaired(name=name, reason=str(reason)))
    return texts, tuple(bad)


def _text_files(folder: Path) -> dict[str, Path]:
    """The files of text in a folder by their names without the suffix, which may be in capitals."""
    names = sorted(os.listdir(folder))  # `a.txt` after `a.TXT`, so that it is the one where both are there
    return {name[: -len(SUFFIX)]: folder / name for name in names if name.lower().endswith(SUFFIX)}


def _text_of(path: Path | None) -> str:
    """What a file of text holds; None stands for no file.

    Raises:
        ValueError: There is no such file, or nothing in it that is a text; says why.
    """
    if path is None:
        raise ValueError("no text beside it")
    try:
        refuse_irregular((path,))
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"text that cannot be read ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise ValueError("text of more than a megabyte")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("text that is not UTF-8") from None
    if reason := _why_no_text(text) if text else "empty text":
        raise ValueError(reason)
    return text


def _stem(name: str) -> str:
    """A file's name without its suffix, which may be two (`.nii.gz`) or, of DICOM files, none."""
    known = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(known)]
