"""Volumes of NIfTI and NRRD as images: every slice across one axis, on one range of grey values a volume.

The orientation of slices is that of `kontrast.data.nifti.stack`, which also puts maps of them back together. Slices are
named "#z12" (axial), "#y12" (coronal) or "#x12" (sagittal), with "#t3z12" where the file has a fourth axis, by their
number from 0 in RAS+; the slice of a file that is but one voxel thick is named "" (or "#t3").

A slice is empty when all of it is shown in one grey value. That is judged on the values of the file, before correction
and resampling, so that neither changes which slices there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.nifti.resample import MAX_PIXELS
from kontrast.data.nifti.shown import Shown
from kontrast.data.nifti.stack import Stack, stack_of
from kontrast.data.nifti.stored import TURNS, Stored, needed
from kontrast.data.nifti.stored_nifti import open_nifti
from kontrast.data.nifti.stored_nrrd import open_nrrd
from kontrast.data.reading import Contents, Header, LeftOut, Reading, refuse_absurd, shown_range
from kontrast.errors import InputError

_NIFTI, _NRRD = (".nii", ".nii.gz"), (".nrrd", ".nhdr")
_N4_BYTES = 16
"""That N4 takes for each voxel."""
_SAME = 0.05
"""Parts of the smallest side of a voxel by which corners of an image and of its mask may lie apart."""


def is_volume(path: Path) -> bool:
    """Whether a file is read here, by its name."""
    return path.name.lower().endswith(_NIFTI + _NRRD)


def look(path: Path, how: Reading) -> Contents:
    """The slices of a volume, which form one group; its values are read unless empty slices are kept.

    Raises:
        InputError: A package is missing, or `how` cannot be followed.
        LeftOut: No slice shows anything, and empty ones are not kept.
        Exception: The file is damaged.
    """
    stored = _opened(path, how)
    stack = _stack(stored, how)
    header = Header(
        height=stack.grid.size[0],
        width=stack.grid.size[1],
        channels=stored.channels,
        bits=8 if stored.dtype.kind in "iu" and stored.dtype.itemsize == 1 else 16,
        is_windowed=stored.channels == 1,
        spacing=stack.grid.spacing,
    )
    parts = tuple(_part(stack, time, number) for time, number in stack.kept)
    return Contents(headers=(header,) * len(parts), parts=parts, groups=(_group(path.resolve()),))


def read(path: Path, how: Reading) -> Iterator[NDArray[Any]]:
    """The slices that `look` names: `(rows, columns, 1)` uint16, of colour `(rows, columns, 3)` uint8.

    Raises:
        InputError: A package is missing, or `how` cannot be followed.
        LeftOut: No slice shows anything, and empty ones are not kept.
        Exception: The file is damaged.
    """
    stored = _opened(path, how)
    _check_size(stack_of(stored, how))
    with TURNS.take(_needs(stored, how)):
        values = stored.load()
        for shown, number in _shown(_kept(stored, how, values), values, stored, how):
            yield shown.slice(number)


def open_stack(path: Path, how: Reading) -> Stack:
    """The stack whose kept slices are those of `look`: it takes maps of these slices back to the volume.

    Raises:
        InputError: A package is missing, or `how` cannot be followed.
        LeftOut: No slice shows anything, and empty ones are not kept.
        Exception: The file is damaged.
    """
    return _stack(_opened(path, how), how)


def read_mask(path: Path, stack: Stack) -> NDArray[np.int32]:
    """The labels of the kept slices of an image, `(n, rows, columns)`: one map for each, by the nearest voxel.

    A mask of three axes serves every volume of an image's fourth axis. It may be stored in another orientation.

    Args:
        path: A label volume.
        stack: Of the image, by `open_stack`; of the mask itself, for the slices of a mask alone.

    Raises:
        InputError: Its shape or affine is not that of the image.
        ValueError: Its values are no whole numbers.
        Exception: The file is damaged.
    """
    stored = _opened(path, Reading())
    if stored.channels == 3:
        raise ValueError("a mask holds whole numbers; this one is in colour")
    mask = replace(stack_of(stored, Reading()), across=stack.across)
    check_same(mask, stack, path)
    times = stored.shape[3] if len(stored.shape) > 3 else 1
    labels = np.empty((len(stack.kept), *stack.grid.size), np.int32)
    with TURNS.take(stored.held):
        values = stored.load()
        for row, (time, number) in enumerate(stack.kept):
            plane = mask.plane(mask.turned(values[:, :, :, time if times > 1 else 0]), number)
            labels[row] = stack.fitted(_whole(plane, stored.scaling))
    return labels


def _group(path: Path) -> str:
    """The subject where a folder or the file is named by one, as BIDS does ("sub-07"), else the file."""
    subject = re.compile(r"sub-[A-Za-z0-9]+")
    for folder in reversed(path.parents):
        if subject.fullmatch(folder.name):
            return f"subject:{folder}"
    named = re.match(rf"({subject.pattern})_", path.name)
    return f"subject:{path.parent / named[1]}" if named else f"volume:{path}"


def _opened(path: Path, how: Reading) -> Stored:
    """The checked header; what `how` asks for can be done."""
    shown_range(how.window)
    stored = open_nrrd(path) if path.name.lower().endswith(_NRRD) else open_nifti(path)
    if how.n4:
        needed("SimpleITK")
        if stored.channels == 3:
            raise InputError(f"N4 corrects grey values; {path.name} is in colour: leave it out, or read it without N4")
    return stored


def _stack(stored: Stored, how: Reading) -> Stack:
    """As `_kept`, of a file whose values are read only if they are needed."""
    stack = stack_of(stored, how)
    _check_size(stack)
    if how.keep_empty:
        return stack
    with TURNS.take(stored.held):
        return _kept(stored, how, stored.load())


def _kept(stored: Stored, how: Reading, values: NDArray[Any]) -> Stack:
    """The stack of a file with the slices that show something, or with all of them if empty ones are kept."""
    stack = stack_of(stored, how)
    if not how.keep_empty:
        pairs = zip(_shown(stack, values, stored, replace(how, n4=False)), stack.kept, strict=True)
        stack = replace(stack, kept=tuple(position for (shown, number), position in pairs if shown.shows(number)))
        if not stack.kept:
            raise LeftOut("no slice of the volume shows anything")
    return stack


def _needs(stored: Stored, how: Reading) -> int:
    """Bytes that reading takes, where the correction of a bias field holds one volume several times over."""
    return stored.held + (_N4_BYTES * math.prod(stored.shape[:3]) if how.n4 else 0)


def _check_size(stack: Stack) -> None:
    """Refuses slices that are too large, as a header or a spacing can make them.

    Raises:
        ValueError: One has more than `MAX_PIXELS`, or all together more values than are read of one file.
    """
    for grid in (stack.own, stack.grid):
        if math.prod(grid.size) > MAX_PIXELS:
            raise ValueError(f"slices of {grid.size[0]:,} x {grid.size[1]:,} pixels, more than {MAX_PIXELS:,}")
    refuse_absurd(len(stack.kept) * math.prod(stack.grid.size), "the slices at this spacing")


def _shown(stack: Stack, values: NDArray[Any], stored: Stored, how: Reading) -> Iterator[tuple[Shown, int]]:
    """The kept slices by number, each with the volume that it is cut from; only one volume is held at a time."""
    for time, positions in groupby(stack.kept, key=itemgetter(0)):
        shown = Shown(stack, values[:, :, :, time], stored, how)
        yield from ((shown, number) for _, number in positions)


def _part(stack: Stack, time: int, number: int) -> str:
    has_times = len(stack.shape) > 3
    is_one = stack.turned_shape[stack.across] == 1
    name = (f"t{time}" if has_times else "") + ("" if is_one else f"{'xyz'[stack.across]}{number}")
    return f"#{name}" if name else ""


def _whole(plane: NDArray[Any], scaling: tuple[float, float] | None) -> NDArray[np.int32]:
    """Labels as int32.

    Raises:
        ValueError: They are no whole numbers, or too large.
    """
    with np.errstate(all="ignore"):
        meant = plane if scaling is None else plane * scaling[0] + scaling[1]
        labels = meant.astype(np.int32)
        if not (labels == meant).all():
            raise ValueError("a mask holds whole numbers; this one has values that are none")
    return labels


def check_same(mask: Stack, image: Stack, path: Path) -> None:
    """Refuses a mask that does not cover the voxels of its image one by one."""
    if mask.turned_shape != image.turned_shape or (len(mask.shape) > 3 and mask.shape[3:] != image.shape[3:]):
        raise InputError(
            f"a mask must have the voxels of its image; {path.name} has {_sizes(mask)} and the image {_sizes(image)}: "
            "resample one to the other"
        )
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(mask.turned_shape) - 1), 1]
    apart = np.abs((mask.affine_turned - image.affine_turned) @ corners.T).max()
    if apart > _SAME * np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0)).min():
        raise InputError(
            f"a mask must lie on its image; by its affine {path.name} lies {apart:.3g} mm beside it: "
            "use the mask that was drawn on this image, or resample it"
        )


def _sizes(stack: Stack) -> str:
    return " x ".join(str(size) for size in (*stack.turned_shape, *stack.shape[3:]))
