"""From the rows of a publisher's table, or the files of its folders, to a listing."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kontrast.data.annotations import Annotations, class_codes, group_codes, part_names
from kontrast.data.folder import FileListing
from kontrast.errors import InputError

_log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image, or the images of one volume."""

    path: Path
    """Below the data folder."""
    label: str = ""
    group: str = ""
    part: str = ""
    findings: tuple[float, ...] = ()
    """Of a multi-label set: 1, 0 or NaN for each class."""
    channels: tuple[Path, ...] = ()
    """Further files whose content is further channels."""


def listed(name: str, folder: Path, rows: Sequence[Row], *, layout: str, classes: tuple[str, ...] = ()) -> FileListing:
    """The rows whose files are there, sorted by path.

    Args:
        name: Of the adapter.
        folder: Of the data set.
        rows: What was found.
        layout: What the folder should hold, for messages.
        classes: Of a multi-label set.

    Raises:
        InputError: No file is there.
    """
    found = (row for row in rows if row.path.is_relative_to(folder) and row.path.is_file())
    there = sorted(found, key=lambda row: row.path.as_posix())
    if not there:
        raise InputError(f"{name}: takes a folder with {layout}; {folder} has no image of that layout: check the path")
    if len(there) < len(rows):
        _log.warning("%d of the %d images that %s names are not in its folder", len(rows) - len(there), len(rows), name)
    return FileListing(
        name=f"{name}:{folder}",
        names=tuple(row.path.relative_to(folder).as_posix() for row in there),
        paths=tuple(row.path.absolute() for row in there),
        channels=tuple(tuple(path.absolute() for path in row.channels) for row in there) if there[0].channels else (),
        annotations=_annotations(name, there, classes),
    )


def _annotations(name: str, rows: Sequence[Row], classes: tuple[str, ...]) -> Annotations:
    codes, single = class_codes([row.label for row in rows])
    groups, names = group_codes([row.group for row in rows])
    return Annotations(
        labels=np.array([row.findings for row in rows], dtype=np.float64) if classes else codes,
        classes=classes or single,
        groups=groups,
        group_names=names,
        parts=part_names([row.part for row in rows], origin=name),
    )


def read_rows(path: Path, *needed: str) -> list[dict[str, str]]:
    """Rows of a CSV, also one ending in .gz, by column.

    Raises:
        InputError: It is none, or lacks a column.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
        columns = list(reader.fieldnames or [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"a table must be CSV text in UTF-8; {path} is not ({error}): fetch it anew") from error
    missing = [column for column in needed if column not in columns]
    if missing:
        raise InputError(
            f"{path.name} must have the columns {', '.join(needed)}; {path} lacks {', '.join(missing)}: use the "
            "publisher's own file"
        )
    return rows


def first_file(folder: Path, names: Iterable[str], what: str) -> Path:
    """The first of these files that is there.

    Raises:
        InputError: None is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{what} must be in the folder as {' or '.join(names)}; {folder} has none: add it")
