"""What a reader of one file format promises, and what the readers of medical formats share.

A reader is a module with two functions, which may raise any exception for a damaged file:

    look(path, how) -> Contents              without decoding pixels where the format allows that
    read(path, how) -> Iterator[NDArray]     the images of `look`, in that order: `(height, width, channels)`,
                                             uint8 or uint16
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kontrast.errors import InputError

Axis = Literal["axial", "coronal", "sagittal"]

WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (-150, 250),
    "bone": (-500, 1300),
    "brain": (0, 80),
    "liver": (-20, 180),
    "lung": (-1350, 150),
    "mediastinum": (-125, 225),
    "soft-tissue": (-160, 240),
    "stroke": (24, 56),
    "subdural": (-50, 200),
}
"""Named ranges of Hounsfield units that are shown from black to white; customary values, which differ between sites."""
MAX_VALUES = 1 << 30
"""Pixel values of one file above which it is refused unread: a header can claim any size."""
_LOOKED_AT = 1 << 24
"""Values of which percentiles are taken."""
ROBUST = (0.5, 99.5)
"""Percentiles that become black and white where a file says nothing of how it is shown."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files of medical formats become images."""

    window: str = "auto"
    """auto, full, percentile, a name of `WINDOWS`, or LOW:HIGH."""
    axis: Axis = "axial"
    """Volumes are cut across this axis."""
    spacing: float | None = None
    """Side of a pixel in mm after resampling; None keeps what the file has."""
    keep_empty: bool = False
    """Whether slices of a volume that show nothing are kept."""
    keep_captures: bool = False
    """Whether secondary captures of DICOM are images: some collections of radiographs are stored as such."""
    n4: bool = False
    """Whether the bias field of volumes is corrected first (N4, needs SimpleITK)."""

    def check(self) -> None:
        """Refuse what no file could be read with.

        Raises:
            InputError: An unknown window, or a spacing that is no length.
        """
        shown_range(self.window)
        if self.spacing is not None and not 0 < self.spacing < math.inf:
            raise InputError(f"a spacing is a length in millimetres; got {self.spacing}: give one above 0, such as 1.0")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of one image before it is decoded."""

    height: int
    width: int
    channels: int
    bits: int
    """Significant bits of a value in the file, at most 16."""
    is_windowed: bool = False
    """Whether values are shown through a window, which takes 16 bits however many they have."""
    spacing: tuple[float, float] | None = None
    """Distance of rows and of columns in mm, where it is known."""
    has_burnt_in_text: bool = False
    """Whether the file says so (BurnedInAnnotation); many that have it do not."""

    @property
    def dtype(self) -> Literal["uint8", "uint16"]:
        """Type of the pixels that are read."""
        return "uint16" if self.bits > 8 or self.is_windowed else "uint8"

    @property
    def longest(self) -> int:
        """The longer side in pixels."""
        return max(self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The images of one file."""

    headers: tuple[Header, ...]
    parts: tuple[str, ...] = ("",)
    """What follows the file's name in the name of each: "" for the only one, "#3" for a frame, "#z12" for a slice."""
    groups: tuple[str, ...] = ()
    """What the images belong to, the surest first, such as a patient and a study, in clear: to be replaced by aliases
    at once and never stored."""


class LeftOut(Exception):  # noqa: N818 - a rule, not an error
    """The file is sound but no image to learn from; the message says which rule leaves it out."""


def shown_range(window: str) -> tuple[float, float] | None:
    """The values that a window shows as black and white; None for auto, full and percentile, which depend on the file.

    Raises:
        InputError: Neither a known name nor LOW:HIGH.
    """
    if window in ("auto", "full", "percentile"):
        return None
    if window in WINDOWS:
        return WINDOWS[window]
    low, _, high = window.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        found = math.nan, math.nan
    if not (math.isfinite(found[0]) and math.isfinite(found[1]) and found[0] < found[1]):
        raise InputError(
            f"a window is auto, full, percentile, {', '.join(WINDOWS)}, or LOW:HIGH; got {window!r}: "
            "write for example -160:240"
        )
    return found


def robust_range(values: NDArray[Any]) -> tuple[float, float]:
    """The `ROBUST` percentiles of the finite values above the lowest one, which is taken for the background.

    Of very many values, evenly spaced ones are looked at. Of a constant image the range begins at its value, so that
    it becomes black.

    Raises:
        ValueError: No value is finite.
    """
    seen = values.reshape(-1)[:: -(-values.size // _LOOKED_AT) or 1]
    finite = seen[np.isfinite(seen)]
    if not finite.size:
        raise ValueError("no finite value")
    lowest = float(finite.min())
    above = finite[finite > lowest]
    if not above.size:
        return lowest, max(lowest + 1, math.nextafter(lowest, math.inf))
    low, high = (float(value) for value in np.percentile(above, ROBUST))
    return (low, high) if low < high else (lowest, float(above.max()))


def as_shown(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint16]:
    """Values as uint16: `low` and less is 0, `high` and more 65535, rounded between; what is not a number is 0."""
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low) - low) * (65535 / (high - low))
    return np.rint(np.clip(scaled, 0, 65535)).astype(np.uint16)


def refuse_absurd(count: int, what: str) -> None:
    """Refuses to read more than `MAX_VALUES` values.

    Raises:
        ValueError: They are more.
    """
    if count > MAX_VALUES:
        raise ValueError(f"{what} hold {count:,} values, more than the {MAX_VALUES:,} that are read of one file")
