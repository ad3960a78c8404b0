"""The rows of a CSV: text in UTF-8, cells parted by one character, those in quotes over as many lines as they like."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from kontrast.errors import InputError

MOST_OF_A_CELL = 1 << 20
"""Characters of a cell; a longer one is no caption and no report, but mostly a quote that is not closed."""
_DELIMITERS = ",;\t"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_SURROGATE = 0xED
"""First byte of a surrogate in what would be UTF-8 without the rule against them."""
_TOO_LONG = "field larger than field limit"
_reading = Lock()
"""Held as long as the limit of `csv`, which is that of the whole process, is another than it was."""


def read_rows(path: Path, separator: str) -> list[tuple[str, list[str]]]:
    """Where each row that is not empty begins, such as "line 7", and its cells.

    Args:
        path: The file.
        separator: Parts the cells; "" for the comma, semicolon or tab that the first line has most of.

    Raises:
        InputError: It is no UTF-8 or no CSV, or a cell is too long.
    """
    text = _decoded(path)
    delimiter = separator or max(_DELIMITERS, key=text.partition("\n")[0].count)
    try:
        with _limit(MOST_OF_A_CELL):
            return _rows(path, text, delimiter)
    except csv.Error as error:
        raise InputError(
            f"a table must be CSV text in UTF-8 or Parquet; {path} is not ({error}): save it anew"
        ) from error


def _decoded(path: Path) -> str:
    """The text of a file in UTF-8, with or without a mark, and with line breaks of any system."""
    content = path.read_bytes()
    try:
        text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.object, error.start) from error
    if "\0" in text.partition("\n")[0]:
        raise _not_utf8(path, content, content.index(0))
    return text


def _not_utf8(path: Path, content: bytes, start: int) -> InputError:
    line = content[:start].count(b"\n") + 1
    guess = "an older encoding such as Windows-1252"
    if content[:2] in _WIDE or b"\0" in content.partition(b"\n")[0]:
        guess = "UTF-16"
    elif content[start] == _SURROGATE and content[start + 1 : start + 2] >= b"\xa0":
        guess = "half of a surrogate pair"
    return InputError(
        f"a table must be CSV text in UTF-8 or Parquet; {path}, line {line}, holds the byte 0x{content[start]:02x}, "
        f"which is none ({guess}?): save it anew as UTF-8"
    )


@contextmanager
def _limit(most: int) -> Iterator[None]:
    """`csv` reads cells of up to `most` characters, and then as many as before."""
    with _reading:
        before = csv.field_size_limit(most)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _rows(path: Path, text: str, delimiter: str) -> list[tuple[str, list[str]]]:
    """Where each row that is not empty begins, and its cells; one in quotes may go over several lines."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows, line = [], 1
    try:
        for row in reader:
            if any(row):
                rows.append((f"line {line}", [cell.strip() for cell in row]))
            line = reader.line_num + 1
    except csv.Error as error:
        if _TOO_LONG not in str(error):
            raise
        raise InputError(
            f"a cell of a table has at most {MOST_OF_A_CELL:,} characters; {path}, line {line}, has one of more: "
            "shorten it, or close a quote that is left open"
        ) from error
    return rows
