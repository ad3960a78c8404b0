"""Which reader opens which file."""

from __future__ import annotations

import math
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data import dicom, nifti, pictures
from kontrast.data.nifti.resample import Grid, resample
from kontrast.data.reading import Contents, Header, Reading, refuse_absurd
from kontrast.errors import InputError


@dataclass(frozen=True)
class Format:
    """How files of one kind are read; see `reading` for what both functions promise."""

    look: Callable[[Path, Reading], Contents]
    read: Callable[[Path, Reading, int, int], Iterator[NDArray[Any]]]
    """From the file, the options, the side that is enough for what follows, and the background 0..255."""


def look_at_picture(content: bytes, how: Reading) -> Contents:
    """As `look`, from the bytes of a picture."""
    if how.spacing is not None:
        raise ValueError("a picture does not say how many millimetres a pixel has, so it cannot be resampled")
    return Contents(headers=(pictures.read_header(content),))


def _read_picture(path: Path, how: Reading, side: int, background: int) -> Iterator[NDArray[Any]]:
    yield pictures.read_pixels(path.read_bytes(), side=side, background=background)


def _look_at_dicom(path: Path, how: Reading) -> Contents:
    found = dicom.look(path, how)
    if how.spacing is None:
        return found
    grids = [_grid(header).at(how.spacing) for header in found.headers]
    refuse_absurd(sum(math.prod(grid.size) for grid in grids), "the images at this spacing")
    return replace(
        found,
        headers=tuple(
            replace(header, height=grid.size[0], width=grid.size[1], spacing=grid.spacing)
            for header, grid in zip(found.headers, grids, strict=True)
        ),
    )


def _read_dicom(path: Path, how: Reading, side: int, background: int) -> Iterator[NDArray[Any]]:
    if how.spacing is None:
        yield from dicom.read(path, how)
        return
    for header, image in zip(dicom.look(path, how).headers, dicom.read(path, how), strict=True):
        old = _grid(header)
        yield np.rint(resample(image, old, old.at(how.spacing))).astype(image.dtype)


def _grid(header: Header) -> Grid:
    if header.spacing is None:
        raise ValueError("the file does not say how many millimetres a pixel has, so it cannot be resampled")
    if not _THIN < min(header.spacing) <= max(header.spacing) < _WIDE:
        raise ValueError("the file says that its pixels have no size, or are as large as a town")
    return Grid((header.height, header.width), header.spacing)


_THIN, _WIDE = 1e-6, 1e6
"""Millimetres beyond which the side of a pixel is an error of the file."""
PICTURE = Format(lambda path, how: look_at_picture(path.read_bytes(), how), _read_picture)
DICOM = Format(_look_at_dicom, _read_dicom)
VOLUME = Format(nifti.look, lambda path, how, side, background: nifti.read(path, how))

SUFFIXES = (*sorted(pictures.SUFFIXES), ".dcm", ".nii", ".nii.gz", ".nrrd")
"""For messages; DICOM files may also have other suffixes or none."""


def format_of(path: Path) -> Format | None:
    """The format of a file by its name, or by its first bytes, since DICOM often has no suffix; None if unknown."""
    if path.suffix.lower() in pictures.SUFFIXES:
        return PICTURE
    if nifti.is_volume(path):
        return VOLUME
    return DICOM if dicom.is_dicom(path) else None


def look(paths: tuple[Path, ...], how: Reading) -> Contents:
    """The images of a file, or of several files that are the channels of the same images.

    Of volumes, those slices that the first file shows something on.

    Raises:
        LeftOut: A rule leaves the file out.
        Exception: Anything, for a damaged file.
        ValueError: A file lacks an image, has it in another size, or is none.
    """
    refuse_irregular(paths)
    first, *others = paths
    found = _known(first).look(first, how)
    if not others:
        return found
    for path in others:
        _refuse_apart(first, path, how)
    headers = [found.headers, *(_matching(found, _known(path).look(path, _whole(how))) for path in others)]
    return replace(found, headers=tuple(map(_joined, zip(*headers, strict=True))))


def read(paths: tuple[Path, ...], how: Reading, *, side: int, background: int) -> Iterator[NDArray[Any]]:
    """The images that `look` found, `(height, width, channels)` uint8 or uint16.

    Raises:
        Exception: As `look`.
    """
    refuse_irregular(paths)
    first, *others = paths
    images = _known(first).read(first, how, side, background)
    if not others:
        return images
    wanted = set(_known(first).look(first, how).parts)
    further = [_read_wanted(path, _whole(how), wanted, side, background) for path in others]
    stacks = zip(images, *further, strict=True)
    return (np.concatenate([_as_16_bit(image) for image in stack], axis=2) for stack in stacks)


def refuse_irregular(paths: tuple[Path, ...]) -> None:
    """Refuses pipes, devices and the like: to open one can wait, and to read it go on, for ever.

    Raises:
        OSError: A file is not there.
        ValueError: It is something else.
    """
    for path in paths:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no regular file")


def _whole(how: Reading) -> Reading:
    return replace(how, keep_empty=True)


def _refuse_apart(first: Path, other: Path, how: Reading) -> None:
    """Refuses volumes whose voxels do not lie on each other.

    Raises:
        ValueError: They do not.
    """
    if format_of(first) is VOLUME is format_of(other):
        stacks = [nifti.open_stack(path, _whole(how)) for path in (other, first)]
        try:
            nifti.check_same(stacks[0], stacks[1], other)
        except InputError:
            raise ValueError("the channels of an image must have the same voxels in the same place") from None


def _matching(wanted: Contents, found: Contents) -> tuple[Header, ...]:
    """The headers of the same parts of another file."""
    known = dict(zip(found.parts, found.headers, strict=True))
    missing = [part for part in wanted.parts if part not in known]
    if missing:
        raise ValueError(f"the channels of an image come from files of the same slices; one lacks {missing[0]}")
    return tuple(known[part] for part in wanted.parts)


def _read_wanted(path: Path, how: Reading, wanted: set[str], side: int, background: int) -> Iterator[NDArray[Any]]:
    parts = _known(path).look(path, how).parts
    for part, image in zip(parts, _known(path).read(path, how, side, background), strict=True):
        if part in wanted:
            yield image


def _as_16_bit(image: NDArray[Any]) -> NDArray[Any]:
    return image if image.dtype == np.uint16 else image.astype(np.uint16) * 257


def _known(path: Path) -> Format:
    return format_of(path) or PICTURE


def _joined(headers: Sequence[Header]) -> Header:
    """The header of an image whose channels are these."""
    first = headers[0]
    if len({(header.height, header.width) for header in headers}) > 1:
        sizes = ", ".join(f"{header.height} x {header.width}" for header in headers)
        raise ValueError(f"the channels of an image must have one size; these have {sizes}")
    return replace(first, channels=sum(header.channels for header in headers), bits=16)
