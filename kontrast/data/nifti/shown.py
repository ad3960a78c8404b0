"""Values of a volume as they are shown: scaled, corrected, and on one range from black to white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.nifti.bias import corrected
from kontrast.data.nifti.resample import resample
from kontrast.data.nifti.stack import Stack
from kontrast.data.nifti.stored import Stored
from kontrast.data.reading import Reading, as_shown, robust_range, shown_range


class Shown:
    """One volume of a file, ready to be cut. Colours are shown as they are."""

    def __init__(self, stack: Stack, values: NDArray[Any], stored: Stored, how: Reading) -> None:
        """Takes the values `(x, y, z)` or `(x, y, z, 3)` of one volume as they are stored."""
        self._stack, self._in_colour = stack, stored.channels == 3
        meant = values if self._in_colour else _meant(values, stored.scaling)
        if how.n4:
            sides = np.sqrt((stack.affine[:3, :3] ** 2).sum(axis=0))
            meant = corrected(_finite(meant, *_range(meant, "full")), (sides[0], sides[1], sides[2]))
        self._range = (0.0, 255.0) if self._in_colour else _range(meant, how.window)
        self._turned = stack.turned(meant)

    def slice(self, number: int) -> NDArray[Any]:
        """A slice on the grid of the stack, `(rows, columns, 1)` uint16 or `(rows, columns, 3)` uint8."""
        plane = self._plane(number)
        if self._stack.grid != self._stack.own:
            plane = resample(plane, self._stack.own, self._stack.grid)
        plane = np.clip(plane, *self._range)
        return np.rint(plane).astype(np.uint8) if self._in_colour else as_shown(plane, *self._range)[..., None]

    def shows(self, number: int) -> bool:
        """Whether a slice has more than one grey value or colour, before resampling."""
        plane = self._plane(number)
        extremes = np.clip(np.stack([plane.min(axis=(0, 1)), plane.max(axis=(0, 1))]), *self._range)
        return bool(np.ptp(as_shown(extremes, *self._range), axis=0).any())

    def _plane(self, number: int) -> NDArray[Any]:
        return _finite(self._stack.plane(self._turned, number), *self._range)


def _meant(values: NDArray[Any], scaling: tuple[float, float] | None) -> NDArray[Any]:
    """Values after scaling: integers as they are where there is none, else float32."""
    if scaling is None and values.dtype.kind in "iu":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        found = values.astype(np.float32)
        return found if scaling is None else found * np.float32(scaling[0]) + np.float32(scaling[1])


def _range(values: NDArray[Any], window: str) -> tuple[float, float]:
    """What becomes black and white, both within what float32 can be.

    Raises:
        ValueError: The values, or the window, are beyond that.
    """
    low, high = shown_range(window) or _own_range(values, window)
    limit = float(np.finfo(np.float32).max)
    low, high = max(low, -limit), min(high, limit)
    if not low < high:
        raise ValueError("values too large to be shown on a range of grey values")
    return low, high


def _own_range(values: NDArray[Any], window: str) -> tuple[float, float]:
    """A range by the values themselves; without a finite one all is black, as it is where all are the same."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.reshape(-1)
    if not finite.size:
        return 0.0, 1.0
    with np.errstate(all="ignore"):
        low, high = (float(finite.min()), float(finite.max())) if window == "full" else robust_range(finite)
    return low, low + max(1, abs(low)) if low == high else high


def _finite(plane: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """What is not a number becomes black, what is infinite black or white."""
    return np.nan_to_num(plane, nan=low, posinf=high, neginf=low) if plane.dtype.kind == "f" else plane
