"""DICOM files: what they hold, and their images as they are meant to be shown.

Needs the extra `medical` (pydicom, and its decoders for compressed pixels). Nothing that identifies a patient is
logged, warned of or part of an error; the only tag that is passed on in clear is the group of `look`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from kontrast.data.dicom.colour import colour_frames
from kontrast.data.dicom.file import DicomError, guarded, opened, require_pydicom
from kontrast.data.dicom.grey import grey_frames
from kontrast.data.dicom.header import HEADER_TAGS, Raster, items, raster_of, spacing_of, text
from kontrast.data.dicom.pixels import PIXEL_TAGS, decoder_of
from kontrast.data.dicom.rules import groups_of, refuse_left_out
from kontrast.data.reading import WINDOWS, Contents, Header, Reading

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_SUFFIXES = {".dcm", ".dicom", ".ima"}
_DIRECTORY = "DICOMDIR"


def is_dicom(path: Path) -> bool:
    """Whether a file is taken for DICOM: by its suffix, or by its content where it has none, or is named by a UID."""
    if path.suffix.lower() in _SUFFIXES:
        return True
    if path.name.upper() == _DIRECTORY or path.suffix.strip(".0123456789"):
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def look(path: Path, how: Reading) -> Contents:
    """What a file holds, from its tags; pixels are not read.

    A file with several frames has a part for each. Distances are of rows first.

    Raises:
        LeftOut: A rule leaves it out.
        DicomError: It cannot be read.
        InputError: pydicom is not installed, or nothing can be read so.
    """
    _check(path, how)
    return guarded(lambda: _contents(path, how), "its tags cannot be read")


def read(path: Path, how: Reading) -> Iterator[NDArray[Any]]:
    """Every frame: grey `(height, width, 1)` uint16, colour `(height, width, 3)` uint8.

    Raises:
        LeftOut: A rule leaves it out.
        DicomError: It cannot be read.
        InputError: pydicom is not installed, or nothing can be read so.
    """
    _check(path, how)
    frames = guarded(lambda: _frames(path, how), "its pixels cannot be read")
    while (frame := guarded(lambda: next(frames, None), "its pixels cannot be read")) is not None:
        yield frame


def _check(path: Path, how: Reading) -> None:
    require_pydicom()
    how.check()


def _contents(path: Path, how: Reading) -> Contents:
    dataset, left = opened(path, HEADER_TAGS, pixels=False)
    refuse_left_out(dataset, keep_captures=how.keep_captures)
    _refuse_window(dataset, how.window)
    raster = raster_of(dataset)
    decoder_of(dataset, raster, left)
    return Contents(
        headers=_headers(dataset, raster),
        parts=("",) if raster.frames == 1 else tuple(f"#{frame}" for frame in range(raster.frames)),
        groups=groups_of(dataset),
    )


def _refuse_window(dataset: FileDataset, window: str) -> None:
    """Refuses to show anything but CT in a named window, which is of Hounsfield units.

    Raises:
        DicomError: The file is of another kind.
    """
    if window in WINDOWS and text(dataset, "Modality").upper() not in ("CT", ""):
        raise DicomError(f"{window} is a window of CT, which this file is not: use auto, percentile or LOW:HIGH")


def _frames(path: Path, how: Reading) -> Iterator[NDArray[Any]]:
    dataset, _ = opened(path, PIXEL_TAGS, pixels=True)
    refuse_left_out(dataset, keep_captures=how.keep_captures)
    raster = raster_of(dataset)
    decoder = decoder_of(dataset, raster, len(dataset.get("PixelData") or b""))
    if raster.is_grey:
        yield from grey_frames(dataset, raster, decoder, how)
    else:
        yield from colour_frames(dataset, raster, decoder)


def _headers(dataset: FileDataset, raster: Raster) -> tuple[Header, ...]:
    if not items(dataset, "PerFrameFunctionalGroupsSequence"):
        return (_header(dataset, raster, 0),) * raster.frames
    return tuple(_header(dataset, raster, frame) for frame in range(raster.frames))


def _header(dataset: FileDataset, raster: Raster, frame: int) -> Header:
    return Header(
        height=raster.rows,
        width=raster.columns,
        channels=1 if raster.is_grey else 3,
        bits=min(16, raster.stored) if raster.is_grey else 8,
        is_windowed=raster.is_grey,
        spacing=spacing_of(dataset, frame),
        has_burnt_in_text=text(dataset, "BurnedInAnnotation").upper() == "YES",
    )
