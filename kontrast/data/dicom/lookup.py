"""Lookup tables of DICOM files: of grey values, and of the colours of a palette."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.dicom.file import DicomError
from kontrast.data.dicom.header import Raster, items, numbers

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_MOST = 1 << 16
"""Entries of a table: its length is written with 16 bits, 0 for this."""
_COLOURS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2
"""Kinds of segments of a palette."""


@dataclass(frozen=True, eq=False)
class Lookup:
    """A table; what lies before it has its first value, what lies behind it its last."""

    table: NDArray[Any]
    first: int
    """The value that the first entry is for."""
    bits: int

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """The entries for values, which are rounded down."""
        whole = values.astype(np.int64) if values.dtype.kind in "iu" else np.floor(values)
        return np.asarray(self.table[np.clip(whole - self.first, 0, len(self.table) - 1).astype(np.intp)])

    def span(self, _: Raster) -> tuple[float, float]:
        """All that an entry can hold, whatever the pixels can."""
        return 0, self.highest

    @property
    def highest(self) -> int:
        """The highest value that an entry can hold."""
        return (1 << self.bits) - 1


def first_lookup(dataset: Dataset, keyword: str) -> Lookup | None:
    """The table in the first item of a sequence; None where there is none.

    Raises:
        DicomError: It is damaged.
    """
    found = items(dataset, keyword)
    if not found or "LUTDescriptor" not in found[0] or "LUTData" not in found[0]:
        return None
    count, first, bits = _descriptor(found[0], "LUTDescriptor")
    return Lookup(_entries(found[0], "LUTData", count), first, bits)


def palette_of(dataset: FileDataset) -> Lookup:
    """The colours of a palette, `(entries, 3)` uint8.

    Entries are taken for 16 bit where any is above 255, whatever the file says of them: files often say it wrongly.

    Raises:
        DicomError: It is missing or damaged.
    """
    count, first, bits = _descriptor(dataset, "RedPaletteColorLookupTableDescriptor")
    tables = []
    for colour in _COLOURS:
        segments = f"Segmented{colour}PaletteColorLookupTableData"
        if segments in dataset:
            tables.append(_expanded(_words(dataset, segments, 1 if bits == 8 else 2), count, 1 if bits == 8 else 2))
        else:
            tables.append(_entries(dataset, f"{colour}PaletteColorLookupTableData", count))
    table = np.stack(tables, axis=-1)
    return Lookup((np.rint(table / 257) if table.max() > 255 else table).astype(np.uint8), first, 8)


def _descriptor(dataset: Dataset, keyword: str) -> tuple[int, int, int]:
    """Entries, the value of the first, and bits of an entry."""
    found = numbers(dataset, keyword)
    if len(found) != 3 or not 1 <= found[2] <= 16:
        raise DicomError(f"{keyword} is missing or impossible")
    return int(found[0]) % _MOST or _MOST, int(found[1]), int(found[2])


def _entries(dataset: Dataset, keyword: str, count: int) -> NDArray[np.uint16]:
    """The entries of a table, in bytes if there are too few of these for words."""
    data = dataset.get(keyword)
    width = 1 if isinstance(data, bytes) and len(data) < 2 * count else 2
    words = _words(dataset, keyword, width)
    if len(words) < count:
        raise DicomError(f"{keyword} is missing or too short")
    return words[:count]


def _words(dataset: Dataset, keyword: str, width: int) -> NDArray[np.uint16]:
    """Unsigned numbers of 1 or 2 bytes."""
    data: Any = dataset.get(keyword)
    if not isinstance(data, bytes):
        return np.array([int(number) for number in numbers(dataset, keyword)]).astype(np.uint16)
    is_little = dataset.original_encoding[1]
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if is_little else ">u2").astype("<u2")
    return (words.view(np.uint8) if width == 1 else words).astype(np.uint16)


def _expanded(data: NDArray[np.uint16], count: int, width: int) -> NDArray[np.uint16]:
    """The table that segments stand for; `width` is the bytes of a number in `data`."""
    table: list[int] = []
    place = 0
    while place + 1 < len(data) and len(table) < count:
        if data[place] == _INDIRECT:
            offset = data[place + 2 : place + 2 + 4 // width].astype("<u2" if width == 2 else np.uint8)
            _repeat(data, int.from_bytes(offset.tobytes(), "little") // width, int(data[place + 1]), table, count)
            place += 2 + 4 // width
        else:
            place = _append(data, place, table)
    if len(table) < count:
        raise DicomError("a palette in segments is too short")
    return np.array(table[:count], np.uint16)


def _repeat(data: NDArray[np.uint16], place: int, segments: int, table: list[int], count: int) -> None:
    """Appends segments that stand elsewhere."""
    for _ in range(segments):
        if place + 1 >= len(data) or len(table) >= count:
            return
        place = _append(data, place, table)


def _append(data: NDArray[np.uint16], place: int, table: list[int]) -> int:
    """Appends the segment at a place and returns the place behind it."""
    kind, length = int(data[place]), int(data[place + 1])
    if kind == _DISCRETE:
        table.extend(data[place + 2 : place + 2 + length].tolist())
        return place + 2 + length
    if kind != _LINEAR or not table or place + 2 >= len(data):
        raise DicomError("a palette in segments is damaged")
    last = int(data[place + 2])
    table.extend(np.rint(np.linspace(table[-1], last, length + 1)[1:]).astype(int).tolist())
    return place + 3
