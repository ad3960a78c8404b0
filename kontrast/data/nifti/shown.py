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

_SAMPLE = 1 << 24
"""Values of which percentiles are taken."""
_AT_ONCE = 1 << 22
"""Values that are scaled at a time."""


class Shown:
    """One volume of a file, ready to be cut. Colours are shown as they are."""

    def __init__(self, stack: Stack, values: NDArray[Any], stored: Stored, how: Reading) -> None:
        """Takes the values `(x, y, z)` or `(x, y, z, 3)` of one volume as they are stored, and keeps them so."""
        self._stack, self._in_colour, self._scaling = stack, stored.channels == 3, stored.scaling
        if how.n4:
            sides = np.sqrt((stack.affine[:3, :3] ** 2).sum(axis=0))
            meant = _finite(_meant(values, stored.scaling), *_range(values, stored.scaling, "full"))
            values, self._scaling = corrected(meant, (sides[0], sides[1], sides[2])), None
        self._range = (0.0, 255.0) if self._in_colour else _range(values, self._scaling, how.window)
        self._turned = stack.turned(values)

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
        plane = self._stack.plane(self._turned, number)
        return plane if self._in_colour else _finite(_meant(plane, self._scaling), *self._range)


def _meant(values: NDArray[Any], scaling: tuple[float, float] | None) -> NDArray[Any]:
    """Values after scaling: integers as they are where there is none, else a new array of float32."""
    if scaling is None and values.dtype.kind in "iu":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        found = values.astype(np.float32)
        return found if scaling is None else found * np.float32(scaling[0]) + np.float32(scaling[1])


def _range(values: NDArray[Any], scaling: tuple[float, float] | None, window: str) -> tuple[float, float]:
    """What becomes black and white of values after scaling, both within what float32 can be.

    Raises:
        ValueError: The values, or the window, are beyond that.
    """
    low, high = shown_range(window) or _own_range(np.ravel(values, order="K"), scaling, window)
    limit = float(np.finfo(np.float32).max)
    low, high = max(low, -limit), min(high, limit)
    if not low < high:
        raise ValueError("values too large to be shown on a range of grey values")
    return low, high


def _own_range(values: NDArray[Any], scaling: tuple[float, float] | None, window: str) -> tuple[float, float]:
    """A range by the values themselves, `(n,)`; without a finite one all is black, as it is where all are the same.

    Percentiles are those of evenly spaced values where there are very many.
    """
    if window == "full":
        parts = [values[start : start + _AT_ONCE] for start in range(0, values.size, _AT_ONCE)]
    else:
        parts = [values[:: -(-values.size // _SAMPLE)]]
    with np.errstate(all="ignore"):
        ends = [_ends(found, window) for found in (_finite_of(_meant(part, scaling)) for part in parts) if found.size]
    low, high = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0.0, 1.0)
    return low, low + max(1, abs(low)) if low == high else high


def _ends(finite: NDArray[Any], window: str) -> tuple[float, float]:
    return (float(finite.min()), float(finite.max())) if window == "full" else robust_range(finite)


def _finite_of(values: NDArray[Any]) -> NDArray[Any]:
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _finite(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """In their place, what is not a number becomes black, what is infinite black or white."""
    if values.dtype.kind != "f":
        return values
    return np.asarray(np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low))
