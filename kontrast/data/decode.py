"""From pixels as they were read to the one shape and type that a whole set shares.

Depth is kept: a set is uint16 as soon as one image is deeper than 8 bit. Only images larger than the store are scaled,
and only down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kontrast.data.reading import Header
from kontrast.errors import InputError

MARGIN = 8 / 7
"""Side of a stored image over side of the crop that the encoder sees."""
DEFAULT_CROP = 224


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape and type that all images of a set are stored in."""

    store: int
    """Side in pixels."""
    channels: int
    dtype: str
    background: int = 0
    """Brightness, 0..255, of padding and behind transparent pixels."""


def plan(headers: Mapping[str, Header], *, size: int | None, channels: int | None, background: int = 0) -> Layout:
    """The layout for a set of images, from the header of each (by name).

    The side is the longest side found, but at most 8/7 of the crop (256 without `size`): small squares stay untouched.

    Raises:
        InputError: An image is smaller than the crop, or numbers of channels that cannot become one.
    """
    small = [name for name, header in headers.items() if size is not None and header.longest < size]
    if small:
        raise smaller_than_crop(small[0], headers[small[0]].longest, size, count=len(small))
    return Layout(
        store=min(max(header.longest for header in headers.values()), largest_store(size)),
        channels=_common_channels(headers, channels),
        dtype="uint16" if any(header.dtype == "uint16" for header in headers.values()) else "uint8",
        background=background,
    )


def _common_channels(headers: Mapping[str, Header], wanted: int | None) -> int:
    """The channels of all images: 1 and 3 become each other, other numbers must be the same everywhere."""
    found = {header.channels: name for name, header in headers.items()}
    if wanted is None and len(found) == 1:
        return next(iter(found))
    wanted = wanted or 3
    strange = {count: name for count, name in found.items() if count != wanted and {count, wanted} - {1, 3}}
    if strange:
        count, name = next(iter(strange.items()))
        raise cannot_convert(name, count, wanted)
    return wanted


def cannot_convert(name: str, channels: int, wanted: int) -> InputError:
    """The error for images whose channels cannot become others."""
    return InputError(
        f"only images of 1 and of 3 channels can become each other; {name} has {channels} where {wanted} are wanted: "
        "leave --channels away where all images have the same number, or keep images of other kinds apart"
    )


def largest_store(size: int | None) -> int:
    """Side above which images are scaled down: 8/7 of the crop."""
    return round(MARGIN * (size or DEFAULT_CROP))


def smaller_than_crop(name: str, longest: int, size: int | None, *, count: int) -> InputError:
    """The error for images that the crop does not fit into."""
    others = f" ({count} images are too small)" if count > 1 else ""
    return InputError(
        f"no image may be smaller than the crop; {name} has {longest} px and the crop {size} px{others}: "
        f"choose --size {longest} or less, or leave such images out"
    )


def arrange(pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Pixels `(height, width, channels)` as `(channels, store, store)`: channels matched, shrunk, centred on black.

    Raises:
        ValueError: The pixels are deeper than the layout, whose header was another one's.
    """
    if pixels.dtype == np.uint16 and layout.dtype == "uint8":
        raise ValueError("pixels of 16 bits where 8 were announced")
    square = pad(shrink(match_channels(pixels, layout.channels), layout.store), layout.store, layout.background)
    if square.dtype == np.uint8 and layout.dtype == "uint16":
        square = square.astype(np.uint16) * 257
    return square.transpose(2, 0, 1)


def match_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """Pixels `(..., 1 or 3)` with other channels: grey is repeated, colour becomes luma (ITU-R 601, as Pillow)."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.dtype.kind == "f":
        weights = np.array([0.299, 0.587, 0.114], pixels.dtype)
        return np.asarray(pixels @ weights)[..., None]
    luma = (pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + np.uint32(0x8000)) >> 16
    return luma.astype(pixels.dtype)[..., None]


def shrink(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    """Pixels `(height, width, channels)` with the longer side at most `side`, antialiased; smaller ones as they are."""
    if max(pixels.shape[:2]) <= side:
        return pixels
    if pixels.dtype == np.uint8:
        small = _thumbnail(pixels[..., 0] if pixels.shape[2] == 1 else pixels, side)
        return small.reshape(*small.shape[:2], pixels.shape[2])
    planes = [_thumbnail(pixels[..., channel].astype(np.float32), side) for channel in range(pixels.shape[2])]
    small = np.stack(planes, axis=-1)
    top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    clipped = np.clip(small, 0, top)
    return np.asarray(clipped if pixels.dtype.kind == "f" else np.rint(clipped)).astype(pixels.dtype)


def pad(pixels: NDArray[Any], side: int, background: int = 0) -> NDArray[Any]:
    """Pixels `(height, width, channels)` in the middle of a square of that side, black or of another brightness."""
    height, width = pixels.shape[:2]
    if height == width == side:
        return pixels
    top_value = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    square = np.full((side, side, pixels.shape[2]), background / 255 * top_value, pixels.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _thumbnail(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)
