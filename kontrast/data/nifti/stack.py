"""How a volume is cut into slices, and how slices become a volume again.

A volume is turned to the axes nearest to right, anterior and superior (RAS+), then cut. Every slice lies as it is
stored in RAS+ but for its rows, which run down from anterior or superior:

    axial       rows anterior to posterior, columns left to right
    coronal     rows superior to inferior, columns left to right
    sagittal    rows superior to inferior, columns posterior to anterior

So the patient's left is on the left of the image (as neurologists look, radiologists see the mirror image), and in no
plane does a column run against its axis. Slices are numbered from 0 along the axis that they are cut across.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.nifti.resample import Grid, nearest, resample
from kontrast.data.nifti.stored import Stored, needed, padded
from kontrast.data.reading import Reading
from kontrast.errors import InputError
from kontrast.files import whole_file

_ACROSS = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """The slices of one volume file: which they are, and where each of their pixels lies in the volume."""

    shape: tuple[int, ...]
    """Of the values as stored: `(x, y)`, `(x, y, z)` or `(x, y, z, t)`."""
    affine: NDArray[np.float64]
    """`(4, 4)`, from voxels as stored to mm in RAS+."""
    header: Any
    """Of NIfTI, with the geometry of the file and nothing else of it."""
    across: int
    """The axis of RAS+ that is cut across: 0, 1 or 2."""
    spacing: float | None
    """Side of a pixel in mm after resampling; None for the pixels of the file."""
    kept: tuple[tuple[int, int], ...]
    """Fourth axis and number of each slice, in their order."""

    @cached_property
    def turned_shape(self) -> tuple[int, int, int]:
        """Voxels along right, anterior and superior."""
        counts = [0, 0, 0]
        for count, (axis, _) in zip(padded(self.shape), self._orientation, strict=False):
            counts[int(axis)] = count
        return counts[0], counts[1], counts[2]

    @cached_property
    def affine_turned(self) -> NDArray[np.float64]:
        """`(4, 4)`, from voxels in RAS+ order to mm."""
        undone = needed("nibabel").orientations.inv_ornt_aff(self._orientation, padded(self.shape)[:3])
        return np.asarray(self.affine @ undone)

    @cached_property
    def own(self) -> Grid:
        """The pixels of a slice as the file has them."""
        sides = np.sqrt((self.affine_turned[:3, :3] ** 2).sum(axis=0))
        columns, rows = (axis for axis in range(3) if axis != self.across)
        return Grid((self.turned_shape[rows], self.turned_shape[columns]), (float(sides[rows]), float(sides[columns])))

    @cached_property
    def grid(self) -> Grid:
        """The pixels of a slice as it is returned."""
        return self.own if self.spacing is None else self.own.at(self.spacing)

    def turned(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values `(x, y, z, ...)` as stored, turned to RAS+; a view."""
        return np.asarray(needed("nibabel").orientations.apply_orientation(values, self._orientation))

    def plane(self, turned: NDArray[Any], number: int) -> NDArray[Any]:
        """One slice `(rows, columns, ...)` of values `(x, y, z, ...)` in RAS+, as it lies in the file; a view."""
        place: Any = (slice(None),) * self.across + (number,)
        return np.asarray(turned[place].swapaxes(0, 1)[::-1])

    def fitted(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A slice on the grid that is returned: whole numbers by the nearest pixel, others linearly, in its dtype."""
        return _moved(plane, self.own, self.grid)

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """The kept slices `(n, rows, columns)` of values of the volume's shape, fitted as `fitted` says.

        Raises:
            InputError: The values are of another shape.
        """
        self._check_shape(values.shape)
        turned = self.turned(values.reshape(padded(self.shape)))
        planes = [self.fitted(self.plane(turned[..., time], number)) for time, number in self.kept]
        return np.stack(planes) if planes else np.empty((0, *self.grid.size), values.dtype)

    def restack(self, slices: NDArray[Any], *, fill: float = 0) -> NDArray[Any]:
        """A volume in the shape and orientation of the file, of one slice for each that is kept.

        Args:
            slices: `(n, rows, columns)`. Whole numbers are labels, and each voxel takes that of the nearest pixel;
                others are interpolated linearly. Without resampling both are put back as they are.
            fill: Value of the slices that were left out.

        Raises:
            InputError: Their number or size is not that of the slices which were cut.
        """
        if slices.shape != (len(self.kept), *self.grid.size):
            raise InputError(
                f"slices of this volume are {len(self.kept)} of {self.grid.size[0]} x {self.grid.size[1]} pixels; got "
                f"an array of shape {slices.shape}: give one map for each slice that was read, of its size"
            )
        volume = np.full(padded(self.shape), fill, slices.dtype)
        turned = self.turned(volume)
        for (time, number), values in zip(self.kept, slices, strict=True):
            self.plane(turned[..., time], number)[...] = _moved(values, self.grid, self.own)
        return volume.reshape(self.shape)

    def write(self, path: Path, values: NDArray[Any]) -> None:
        """Writes values of the volume's shape as NIfTI with its affine, voxel sizes, qform and sform; whole or not.

        Raises:
            InputError: Another shape, or a name that does not end in .nii or .nii.gz.
        """
        self._check_shape(values.shape)
        if not path.name.lower().endswith((".nii", ".nii.gz")):
            raise InputError(f"a volume is written as NIfTI; got the name {path.name}: end it in .nii or .nii.gz")
        nibabel = needed("nibabel")
        kind = nibabel.Nifti2Image if isinstance(self.header, nibabel.Nifti2Header) else nibabel.Nifti1Image
        narrow = {"?": np.uint8, "e": np.float32}.get(values.dtype.char, values.dtype)
        content = kind(values.astype(narrow), None, self.header, dtype=narrow).to_bytes()
        with whole_file(path) as partial:
            partial.write_bytes(gzip.compress(content, 6, mtime=0) if path.name.lower().endswith(".gz") else content)

    @cached_property
    def _orientation(self) -> NDArray[np.float64]:
        """`(3, 2)`: for each stored axis, the axis of RAS+ and the sign."""
        return np.asarray(needed("nibabel").orientations.io_orientation(self.affine))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.shape:
            raise InputError(f"this volume has the shape {self.shape}; got {shape}: give values for each of its voxels")


def stack_of(stored: Stored, how: Reading) -> Stack:
    """All slices of a volume.

    A volume that is one voxel thick along exactly one axis is one slice, whatever axis is asked for.

    Raises:
        InputError: The spacing is not a positive number of mm.
    """
    if how.spacing is not None and not 0 < how.spacing < np.inf:
        raise InputError(f"a spacing is a positive number of mm; got {how.spacing}: write for example 1.0")
    stack = Stack(
        shape=stored.shape,
        affine=stored.affine,
        header=stored.header,
        across=_ACROSS[how.axis],
        spacing=how.spacing,
        kept=(),
    )
    if stack.turned_shape.count(1) == 1:
        stack = replace(stack, across=stack.turned_shape.index(1))
    numbers = range(stack.turned_shape[stack.across])
    return replace(stack, kept=tuple((time, number) for time in range(padded(stack.shape)[3]) for number in numbers))


def _moved(plane: NDArray[Any], old: Grid, new: Grid) -> NDArray[Any]:
    if old == new:
        return plane
    if plane.dtype.kind in "biu":
        return nearest(plane, old, new)
    return resample(plane, old, new).astype(plane.dtype)
