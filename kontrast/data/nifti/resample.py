"""Other pixel sizes for slices of volumes: grids in mm that share their middle, linear values, and nearest labels.

A grid of another spacing has the spacing asked for exactly, and as many pixels as come nearest to the old extent. Its
middle is the middle of the old grid, so its edges differ from the old ones by at most a quarter of a new pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MAX_PIXELS = 1 << 25
"""Of an image that is resampled, or cut from a volume."""
MAX_SIDE = 1 << 16
"""Pixels of a side after resampling."""
Axis = tuple[int, float, int, float]
"""Count and step of the pixels that are, count and step of those to be."""


@dataclass(frozen=True)
class Grid:
    """The pixels of a slice."""

    size: tuple[int, int]
    """Rows and columns."""
    spacing: tuple[float, float]
    """Distance of rows and of columns in mm."""

    def at(self, spacing: float) -> Grid:
        """The grid of square pixels of that side in mm over the same extent.

        Raises:
            ValueError: It has more than `MAX_PIXELS`, or a side of more than `MAX_SIDE`.
        """
        extent = [count * step / spacing for count, step in zip(self.size, self.spacing, strict=True)]
        if not (max(extent) <= MAX_SIDE and extent[0] * extent[1] <= MAX_PIXELS):
            raise ValueError(
                f"at {spacing:g} mm images or slices of {extent[0]:,.0f} x {extent[1]:,.0f} pixels, more than "
                f"{MAX_PIXELS:,}, or {MAX_SIDE:,} along a side"
            )
        rows, columns = (max(1, round(count)) for count in extent)
        return Grid((rows, columns), (spacing, spacing))


def resample(plane: NDArray[Any], old: Grid, new: Grid) -> NDArray[np.float32]:
    """A slice `(rows, columns)` or `(rows, columns, channels)` on another grid, as float32.

    Linear where the new pixels are smaller; where they are larger, a triangle over two of them, against aliasing.
    """
    if plane.ndim == 3:
        channels = [resample(plane[..., channel], old, new) for channel in range(plane.shape[2])]
        return np.stack(channels, axis=-1)
    down, across = (_weights(axis) for axis in _axes(old, new))
    values = plane.astype(np.float32)
    if new.size[0] * old.size[1] > old.size[0] * new.size[1]:  # the smaller one of both ways in between
        return np.asarray(down @ (across @ values.T).T, dtype=np.float32)
    return np.asarray((across @ (down @ values).T).T, dtype=np.float32)


def nearest(plane: NDArray[Any], old: Grid, new: Grid) -> NDArray[Any]:
    """A slice `(rows, columns, ...)` on another grid, in its dtype: each value is that of the nearest pixel."""
    rows, columns = (
        np.clip(np.floor(_centres(axis) + 0.5).astype(np.intp), 0, axis[0] - 1) for axis in _axes(old, new)
    )
    return plane[rows[:, None], columns[None, :]]


def _axes(old: Grid, new: Grid) -> tuple[Axis, Axis]:
    first, second = ((old.size[axis], old.spacing[axis], new.size[axis], new.spacing[axis]) for axis in (0, 1))
    return first, second


def _centres(axis: Axis) -> NDArray[np.float64]:
    """Where the new pixels lie, counted in old ones."""
    count, step, new_count, new_step = axis
    middle = np.arange(new_count, dtype=np.float64) - (new_count - 1) / 2
    return np.asarray(middle * (new_step / step) + (count - 1) / 2)


@lru_cache(maxsize=64)
def _weights(axis: Axis) -> Any:
    """A sparse matrix `(new count, old count)` of float32, whose rows sum to 1; beyond the edge its values repeat."""
    count, step, new_count, new_step = axis
    centres = _centres(axis)[:, None]
    reach = min(max(1.0, new_step / step), float(count))
    taps = np.arange(int(np.ceil(2 * reach)) + 1)
    positions = np.floor(centres - reach) + 1 + taps
    weights = np.maximum(0, 1 - np.abs(positions - centres) / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(new_count), len(taps))
    columns = np.clip(positions, 0, count - 1).astype(np.intp).ravel()
    return sparse.csr_array((weights.ravel().astype(np.float32), (rows, columns)), shape=(new_count, count))
