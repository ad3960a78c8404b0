"""From stored grey values to the brightness they are shown with: rescaled, windowed, inverted, padding black.

The order is that of the standard and of pydicom's documentation: modality (lookup table, or slope and intercept), then
values of interest (lookup table, or window), then MONOCHROME1 is inverted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.dicom.file import DicomError
from kontrast.data.dicom.header import Raster, functional_group, items, numbers, text
from kontrast.data.dicom.lookup import Lookup, first_lookup
from kontrast.data.dicom.pixels import stored_values
from kontrast.data.reading import Reading, as_shown, robust_range, shown_range

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset
    from pydicom.pixels.decoders.base import Decoder

Range = tuple[float, float]
CT_RANGE: Range = (-1024, 3071)
"""Hounsfield units shown of a CT that says nothing of how it is shown: all that 12 bits hold."""
_THIN = 1e-9
"""Width of a window that shows nothing."""
_SAMPLE = 1 << 24
"""Values above which percentiles are of evenly spaced ones."""
_KEPT = 1 << 25
"""Values of a file up to which its frames are kept, rather than decoded again after their percentiles are known."""


@dataclass(frozen=True)
class Rescale:
    """Slope and intercept."""

    slope: float = 1
    intercept: float = 0

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Stored values in the unit of the modality."""
        return values.astype(np.float64) * self.slope + self.intercept

    def span(self, raster: Raster) -> Range:
        """The rescaled values of all that the stored bits can hold."""
        ends = [raster.lowest * self.slope + self.intercept, raster.highest * self.slope + self.intercept]
        return min(ends), max(ends)


@dataclass(frozen=True)
class Sigmoid:
    """A window with soft ends."""

    center: float
    width: float

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Brightness from 0 to 1."""
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - self.center) / self.width, -700, 700))))


@dataclass(frozen=True)
class Padding:
    """Stored values around the image that are none of it."""

    low: int
    high: int

    def __call__(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Which values are padding."""
        return np.asarray((stored >= self.low) & (stored <= self.high))


@dataclass(frozen=True)
class Shade:
    """How the stored values of one frame become brightness."""

    modality: Lookup | Rescale
    shown: Lookup | Sigmoid | Range | None
    """None until the percentiles of all frames are known."""
    padding: Padding | None
    inverted: bool

    def __call__(self, stored: NDArray[Any]) -> NDArray[np.uint16]:
        """Brightness, 0 to 65535, of stored values of any shape."""
        bright = _brightness(self.modality(stored), self.shown)
        if self.inverted:
            bright = 65535 - bright
        if self.padding is not None:
            bright[self.padding(stored)] = 0
        return bright


def grey_frames(dataset: FileDataset, raster: Raster, decoder: Decoder, how: Reading) -> Iterator[NDArray[np.uint16]]:
    """Every frame as brightness `(rows, columns, 1)`.

    Raises:
        Exception: Whatever is raised for damaged pixels or tags.
    """
    shades = _shades(dataset, raster, how)
    frames: Iterable[NDArray[Any]] = stored_values(dataset, raster, decoder)
    if any(shade.shown is None for shade in shades):
        kept = list(frames) if raster.values <= _KEPT else None
        spread = _spread(frames if kept is None else kept, shades, ceil(raster.values / _SAMPLE))
        shades = [shade if shade.shown is not None else replace(shade, shown=spread) for shade in shades]
        frames = stored_values(dataset, raster, decoder) if kept is None else kept
    several = raster.values // len(set(shades))
    done: Shade | None = None
    for index, stored in enumerate(frames):
        shade = shades[index % len(shades)]
        if shade != done:
            done, table = shade, _table(shade, raster) if raster.stored <= 16 and several >> raster.stored else None
        yield (shade(stored) if table is None else table[stored])[..., None]


def _shades(dataset: FileDataset, raster: Raster, how: Reading) -> list[Shade]:
    """One for every frame, or one for all where none has tags of its own."""
    modality, shown = first_lookup(dataset, "ModalityLUTSequence"), first_lookup(dataset, "VOILUTSequence")
    padding = _padding(dataset, raster)
    shades = []
    for frame in range(raster.frames if items(dataset, "PerFrameFunctionalGroupsSequence") else 1):
        unit = modality or _rescale(dataset, frame)
        seen = shown if shown and how.window == "auto" else _shown(dataset, frame, unit.span(raster), how)
        shades.append(Shade(unit, seen, padding, inverted=raster.photometric == "MONOCHROME1"))
    return shades


def _rescale(dataset: FileDataset, frame: int) -> Rescale:
    place = functional_group(dataset, frame, "PixelValueTransformationSequence")
    place = dataset if place is None else place
    slope, intercept = numbers(place, "RescaleSlope"), numbers(place, "RescaleIntercept")
    if not slope or not intercept:
        return Rescale()
    if not 1e-30 < abs(slope[0]) < 1e30 or abs(intercept[0]) > 1e30:
        raise DicomError("RescaleSlope is 0, or the rescaled values have no bounds")
    return Rescale(slope[0], intercept[0])


def _shown(dataset: FileDataset, frame: int, span: Range, how: Reading) -> Sigmoid | Range | None:
    """What is shown of the rescaled values; None for their percentiles."""
    if how.window == "full":
        return span
    if how.window != "auto":
        return shown_range(how.window)
    group = functional_group(dataset, frame, "FrameVOILUTSequence")
    window = (_window(group) if group is not None else None) or _window(dataset)
    return window or (CT_RANGE if text(dataset, "Modality").upper() == "CT" else None)


def _window(place: Dataset) -> Sigmoid | Range | None:
    """The first window; None where there is none, or one of no width."""
    centers, widths = numbers(place, "WindowCenter"), numbers(place, "WindowWidth")
    if not centers or not widths:
        return None
    center, width = centers[0], widths[0]
    function = text(place, "VOILUTFunction").upper() or "LINEAR"
    if function == "LINEAR" and width >= 1:
        return center - width / 2, center + width / 2 - 1
    if function == "LINEAR_EXACT" and width > _THIN:
        return center - width / 2, center + width / 2
    return Sigmoid(center, width) if function == "SIGMOID" and width > _THIN else None


def _padding(dataset: FileDataset, raster: Raster) -> Padding | None:
    """By the bits of these values that count: a negative one is often written as if it had no sign."""
    ends = [*numbers(dataset, "PixelPaddingValue")[:1], *numbers(dataset, "PixelPaddingRangeLimit")[:1]]
    if not ends or not numbers(dataset, "PixelPaddingValue"):
        return None
    within = [((int(end) - raster.lowest) & ((1 << raster.stored) - 1)) + raster.lowest for end in ends]
    return Padding(min(within), max(within))


def _spread(frames: Iterable[NDArray[Any]], shades: Sequence[Shade], step: int) -> Range:
    """The range of all frames without padding, from every `step`th value."""
    parts = []
    for index, stored in enumerate(frames):
        shade, some = shades[index % len(shades)], stored.ravel()[::step]
        parts.append(shade.modality(some if shade.padding is None else some[~shade.padding(some)]))
    values = np.concatenate(parts)
    return robust_range(values) if values.size else (0, 1)


def _table(shade: Shade, raster: Raster) -> NDArray[np.uint16]:
    """The brightness of every stored value at its place, of negative ones counted from the end."""
    return shade(np.concatenate([np.arange(raster.highest + 1), np.arange(raster.lowest, 0)]))


def _brightness(values: NDArray[Any], shown: Lookup | Sigmoid | Range | None) -> NDArray[np.uint16]:
    if isinstance(shown, Lookup):
        return as_shown(shown(values), 0, shown.highest)
    if isinstance(shown, Sigmoid):
        return as_shown(shown(values), 0, 1)
    assert shown is not None
    low, high = shown
    return as_shown(values, low, high) if low < high else np.where(values > low, 65535, 0).astype(np.uint16)
