"""From the bytes of an image file to pixels of the one shape that a whole set shares.

Depth is kept: 8 bit stays uint8, 16-bit grey stays uint16 (Pillow itself reads 16-bit *colour* as 8 bit). Transparent
pixels are composited on black, as padding is black; for drawings both may be white. Only images larger than the store
are scaled, and only down; of a large JPEG the decoder itself leaves out the detail that scaling would remove.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from kontrast.errors import InputError

MARGIN = 8 / 7
"""Side of a stored image over side of the crop that the encoder sees."""
DEFAULT_CROP = 224
_GAP = 1.5
"""A JPEG is decoded at no less than this times the stored side, so that a filter does the last of the scaling."""
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""The only formats tried, whatever a file is called: Pillow would hand others, such as EPS, to programs outside."""
_SIXTEEN_BIT = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
_GREY = {"1", "L", "LA", "La"} | _SIXTEEN_BIT


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an image file says of itself before its pixels are decoded."""

    longest: int
    """The longer side in pixels."""
    is_grey: bool
    bits: int
    """8 or 16."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape and type that all images of a set are stored in."""

    store: int
    """Side in pixels."""
    channels: int
    dtype: str
    background: int = 0
    """Brightness, 0..255, of padding and behind transparent pixels."""


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Inside, an image that looks like a decompression bomb is an error, and remarks on odd metadata are silent.

    Warning filters belong to the process, so this wraps a whole pool of decoding threads, never one image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_header(content: bytes) -> Header:
    """Size, depth and colour of an image file, without decoding it.

    Raises:
        Exception: Whatever Pillow raises for what is not an image.
        ValueError: Floating-point pixels, whose range is unknown.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        if image.mode == "F":
            raise ValueError("floating-point pixels have no known range; save as 8 or 16 bit")
        return Header(longest=max(image.size), is_grey=_is_grey(image), bits=16 if image.mode in _SIXTEEN_BIT else 8)


def plan(headers: Mapping[str, Header], *, size: int | None, channels: int | None, background: int = 0) -> Layout:
    """The layout for a set of images, from the header of each (by name).

    The side is the longest side found, but at most 8/7 of the crop (256 without `size`): small squares stay untouched.

    Raises:
        InputError: An image is smaller than the crop.
    """
    small = [name for name, header in headers.items() if size is not None and header.longest < size]
    if small:
        raise smaller_than_crop(small[0], headers[small[0]].longest, size, count=len(small))
    return Layout(
        store=min(max(header.longest for header in headers.values()), largest_store(size)),
        channels=channels or (1 if all(header.is_grey for header in headers.values()) else 3),
        dtype="uint16" if any(header.bits == 16 for header in headers.values()) else "uint8",
        background=background,
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


def decode(content: bytes, layout: Layout) -> NDArray[Any]:
    """Pixels `(channels, store, store)` of an image file.

    Raises:
        Exception: Whatever Pillow raises for a damaged file.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        _shrink_jpeg(image, layout.store)
        ImageOps.exif_transpose(image, in_place=True)
        return arrange(_to_array(image, layout.background), layout)


def arrange(pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Pixels `(height, width, 1 or 3)` as `(channels, store, store)`: channels matched, shrunk, centred on black."""
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


def _shrink_jpeg(image: Image.Image, side: int) -> None:
    """Have a JPEG's decoder leave out what scaling would remove, at 1/2, 1/4 or 1/8 of the size; a filter ends it.

    Ink (CMYK) is left alone: its mixtures are not those of light.
    """
    if isinstance(image, JpegImageFile) and image.mode in ("L", "RGB"):
        image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=_GAP)


def _thumbnail(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(image)


def _is_grey(image: Image.Image) -> bool:
    if image.mode != "P":
        return image.mode in _GREY
    palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _to_array(image: Image.Image, background: int) -> NDArray[Any]:
    """Pixels `(height, width, 1 or 3)`, uint8 or uint16; what is transparent shows the background."""
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"values {values.min()} to {values.max()} do not fit 16 bit")
        return values.astype(np.uint16)[..., None]
    mode = "L" if _is_grey(image) else "RGB"
    if image.has_transparency_data:
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, (background, background, background)), image.convert("RGBA")
        )
    array = np.asarray(image.convert(mode))
    return array[..., None] if array.ndim == 2 else array
