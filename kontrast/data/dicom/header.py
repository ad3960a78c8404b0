"""What the tags of a DICOM file say of its image: the grid of pixels, their distance, and numbers in general."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kontrast.data.dicom.file import DicomError
from kontrast.data.reading import refuse_absurd

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

HEADER_TAGS = (
    "SOPClassUID",
    "ImageType",
    "BurnedInAnnotation",
    "Modality",
    "ConversionType",
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagerPixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""The tags that a first look reads."""
GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_MOST_FRAMES = 1 << 18
"""Frames above which a file is refused: each has a name of its own."""
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_ALLOCATED = (1, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Raster:
    """The grid of pixels that a header promises."""

    rows: int
    columns: int
    samples: int
    """Values of a pixel in the file: 1 or 3."""
    frames: int
    photometric: str
    """One of `GREY`, `PALETTE` or one of `COLOUR`."""
    planar: int
    """0 where the three values of a pixel lie together, 1 where each has a plane of its own."""
    allocated: int
    """Bits from one value to the next."""
    stored: int
    """Bits of a value that count."""
    shift: int
    """Bits below these."""
    signed: bool

    @property
    def values(self) -> int:
        """Values of all frames."""
        return self.rows * self.columns * self.samples * self.frames

    @property
    def lowest(self) -> int:
        """The lowest value that the stored bits can hold."""
        return -(1 << (self.stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The highest value that the stored bits can hold."""
        return self.lowest + (1 << self.stored) - 1

    @property
    def is_grey(self) -> bool:
        """Whether it becomes one channel."""
        return self.photometric in GREY


def raster_of(dataset: Dataset) -> Raster:
    """The grid of pixels.

    Raises:
        DicomError: A tag is missing or impossible, or there are more values than are read of one file.
    """
    if not any(keyword in dataset for keyword in ("Rows", "Columns", "BitsAllocated")):
        raise DicomError("it describes no image")
    stored, allocated = whole(dataset, "BitsStored"), whole(dataset, "BitsAllocated")
    if allocated not in _ALLOCATED or not 1 <= stored <= allocated:
        raise DicomError("BitsAllocated must be 1, 8, 16 or 32, and BitsStored no more")
    highest = whole(dataset, "HighBit", stored - 1)
    raster = Raster(
        rows=whole(dataset, "Rows"),
        columns=whole(dataset, "Columns"),
        samples=whole(dataset, "SamplesPerPixel", 1),
        frames=whole(dataset, "NumberOfFrames", 1) or 1,
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        planar=whole(dataset, "PlanarConfiguration", 0),
        allocated=allocated,
        stored=stored,
        shift=highest - stored + 1 if stored - 1 <= highest < allocated else 0,
        signed=whole(dataset, "PixelRepresentation") == 1,
    )
    _refuse_impossible(raster)
    return raster


def spacing_of(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    """Distance of rows and of columns in mm: of pixels, else on the detector, else of the frame; None if unknown."""
    for place, keyword in ((dataset, "PixelSpacing"), (dataset, "ImagerPixelSpacing")):
        found = _distances(place, keyword)
        if found is not None:
            return found
    measures = functional_group(dataset, frame, "PixelMeasuresSequence")
    return None if measures is None else _distances(measures, "PixelSpacing")


def functional_group(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """The group of an enhanced object that holds for a frame: its own, else the shared one, else None."""
    for sequence, position in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = items(dataset, sequence)
        found = items(groups[position], keyword) if position < len(groups) else []
        if found:
            return found[0]
    return None


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence, none where it is missing or no sequence."""
    from pydicom.sequence import Sequence as Items

    found, _ = _read(dataset, keyword)
    return found if isinstance(found, Items) else ()


def text(dataset: Dataset, keyword: str) -> str:
    """A text without blanks around it, several joined by a backslash; "" where there is none."""
    found, _ = _read(dataset, keyword)
    parts = [found] if isinstance(found, str) or not isinstance(found, Iterable) else found
    return "\\".join(str(part).strip(" \0") for part in parts if part is not None)


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The numbers of a tag, () where it is missing or empty.

    Raises:
        DicomError: It holds something else, or a number that is not finite.
    """
    found, is_sound = _read(dataset, keyword)
    read = _finite(found)
    is_empty = found is None or (isinstance(found, Sized) and not len(found))
    if not is_sound or not (read or is_empty):
        raise DicomError(f"{keyword} holds no number")
    return read


def whole(dataset: Dataset, keyword: str, missing: int | None = None) -> int:
    """A whole number that is not negative.

    Raises:
        DicomError: It is something else, or missing where `missing` is None.
    """
    found = numbers(dataset, keyword)
    if not found and missing is not None:
        return missing
    if len(found) != 1 or found[0] < 0 or not found[0].is_integer():
        raise DicomError(f"{keyword} is not one whole number" if found else f"{keyword} is missing")
    return int(found[0])


def _read(dataset: Dataset, keyword: str) -> tuple[Any, bool]:
    """The value of a tag, None where there is none, and whether pydicom could make sense of it."""
    try:
        return dataset.get(keyword), True
    except MemoryError:
        raise
    except Exception:  # its converters raise many kinds, and quote what they found
        return None, False


def _finite(found: Any) -> tuple[float, ...]:
    """One or several finite numbers, else ()."""
    several = found if isinstance(found, Iterable) and not isinstance(found, (str, bytes)) else [found]
    try:
        read = tuple(float(one) for one in several)
    except (TypeError, ValueError, OverflowError):
        return ()
    return read if all(math.isfinite(one) for one in read) else ()


def _distances(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    found = _finite(_read(dataset, keyword)[0])
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else None


def _refuse_impossible(raster: Raster) -> None:
    if not (0 < raster.rows < 1 << 16 and 0 < raster.columns < 1 << 16):
        raise DicomError("Rows and Columns must be from 1 to 65535")
    if raster.frames > _MOST_FRAMES:
        raise DicomError(f"it promises more than {_MOST_FRAMES:,} frames")
    if raster.samples != (3 if raster.photometric in COLOUR else 1):
        raise DicomError("SamplesPerPixel does not fit PhotometricInterpretation")
    if raster.photometric not in (*GREY, PALETTE, *COLOUR):
        raise DicomError(f"PhotometricInterpretation must be one of {', '.join((*GREY, PALETTE, *COLOUR))}")
    if raster.photometric in COLOUR and (raster.signed or raster.allocated == 1):
        raise DicomError("colours must be whole bytes without a sign")
    if raster.planar > 1:
        raise DicomError("PlanarConfiguration must be 0 or 1")
    try:
        refuse_absurd(raster.values, "its pixels")
    except ValueError as error:
        raise DicomError(str(error)) from None
