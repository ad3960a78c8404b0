"""The values of NRRD: behind the header or in a file beside it; raw, as text, or packed by gzip or bzip2."""

from __future__ import annotations

import bz2
import gzip
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from kontrast.data.nifti.stored import DEFLATE_AT_MOST, refuse_overclaim, take, taken_values

_ENCODINGS = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
    "ascii": "text",
    "text": "text",
    "txt": "text",
}
_MAX_SKIP, _MAX_LINES, _MAX_LINE = 1 << 26, 10_000, 1 << 16
_MAX_TEXT = 1 << 26
"""Bytes of values written as text."""
_WORDS = 1 << 20
"""Words of a text that are held at a time: each takes many times its letters."""


def encoding_of(header: dict[str, Any]) -> str:
    """raw, gzip, bzip2 or text.

    Raises:
        ValueError: Another.
    """
    found = _ENCODINGS.get(header["encoding"].lower())
    if found is None:
        raise ValueError("an encoding other than raw, gzip, bzip2 and text")
    return found


@dataclass(frozen=True, kw_only=True)
class NrrdValues:
    """Where the values are and how they are written."""

    path: Path
    start: int
    encoding: str
    lines: int
    skip: int
    count: int
    dtype: np.dtype[Any]

    def check_length(self) -> None:
        """Refuses values that claim more than their file can hold.

        Raises:
            ValueError: They do.
        """
        held = self.path.stat().st_size - self.start
        size = self.count * self.dtype.itemsize
        if self.encoding in ("raw", "gzip"):
            refuse_overclaim(size, held, at_most=1 if self.encoding == "raw" else DEFLATE_AT_MOST)
        if self.encoding == "text":
            refuse_overclaim(self.count * 2 - 1, held)
            if held > _MAX_TEXT:
                raise ValueError(f"values as text in more than {_MAX_TEXT:,} bytes")

    def read(self) -> NDArray[Any]:
        """All values `(count,)`, in the order of the file.

        Raises:
            Exception: The file is damaged, or ends too early.
        """
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(self.path.open("rb"))
            file.seek(self.start)
            for _ in range(self.lines):
                file.readline(_MAX_LINE)
            if self.encoding == "text":
                return _as_numbers(file.read(_MAX_TEXT), self.count, self.dtype)
            if self.encoding == "gzip":
                file = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=file)))
            if self.encoding == "bzip2":
                file = cast(IO[bytes], stack.enter_context(bz2.BZ2File(file)))
            return self._unpacked(file)

    def _unpacked(self, file: IO[bytes]) -> NDArray[Any]:
        """Of a file that ends behind the values, its checksum is verified too."""
        size = self.count * self.dtype.itemsize
        if self.skip == -1:
            file.seek(-size, os.SEEK_END)
        else:
            take(file, self.skip)
        values = taken_values(file, size, self.dtype)
        file.read(1)
        values.flags.writeable = False
        return values


def locate(path: Path, header: dict[str, Any], start: int, count: int, dtype: np.dtype[Any]) -> NrrdValues:
    """Where `count` values are, of a header that ends at byte `start`.

    Raises:
        ValueError: Outside the folder of the header, or written in a way that is not read.
    """
    lines = int(header.get("lineskip", header.get("line skip", 0)))
    skip = int(header.get("byteskip", header.get("byte skip", 0)))
    encoding = encoding_of(header)
    if not 0 <= lines <= _MAX_LINES or not -1 <= skip <= _MAX_SKIP or (skip == -1 and encoding != "raw"):
        raise ValueError(f"{lines} lines or {skip} bytes to be skipped")
    named = header.get("datafile", header.get("data file"))
    if named is not None:
        path, start = _beside(path, named), 0
    return NrrdValues(path=path, start=start, encoding=encoding, lines=lines, skip=skip, count=count, dtype=dtype)


def _beside(path: Path, named: str) -> Path:
    """The file of the values, which must lie in the folder of its header or below.

    Raises:
        ValueError: It does not, or there is none, or there are several.
    """
    if named.upper().startswith("LIST") or "%" in named:
        raise ValueError("values in several files")
    folder = path.parent.resolve()
    if "://" in named or "\\" in named or "\0" in named or Path(named).is_absolute() or ".." in Path(named).parts:
        raise ValueError("the values must lie in the folder of their header, and this header names another place")
    found = (folder / named).resolve()
    if not found.is_relative_to(folder):
        raise ValueError("the values must lie in the folder of their header, and this header names another place")
    if not found.is_file():
        raise ValueError("the file of the values is not there")
    return found


def _as_numbers(text: bytes, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    numbers = np.empty(count)
    for start in range(0, count, _WORDS):
        part = numbers[start : start + _WORDS]
        words = text.split(None, len(part))
        text = words.pop() if len(words) > len(part) else b""
        if len(words) < len(part):
            raise ValueError(
                f"the file ends after {start + len(words):,} of the {count:,} values that its header claims"
            )
        try:
            part[:] = np.array(words, dtype=np.float64)
        except ValueError:
            raise ValueError("values as text that are no numbers") from None
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not (np.isfinite(numbers).all() and numbers.min() >= limits.min and numbers.max() <= limits.max):
            raise ValueError("values as text that do not fit their type")
    with np.errstate(all="ignore"):
        return numbers.astype(dtype)
