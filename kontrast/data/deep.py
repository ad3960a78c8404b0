"""Pictures that Pillow would flatten: 16-bit colour, and TIFFs of any number of channels.

Every sample of a TIFF is a channel but those that say how opaque a pixel is. Of these the first counts, and further
ones, which are masks, are dropped. What is transparent shows the background in all channels; colours that are stored
multiplied by their opacity (associated alpha) are not multiplied again, extra channels, which never are, are.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kontrast.data.reading import Header, refuse_absurd
from kontrast.errors import InputError

_WHITE_IS_ZERO, _RGB = 0, 2
COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, _RGB: 3}
"""Samples of a pixel that TIFF's photometric interpretation speaks of, where their values are brightness."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
"""What TIFF calls an extra sample that is opacity, where the colours are multiplied by it already, or not."""
_ORIENTATION = 274
_LARGEST_TILE = 1 << 24
"""Values of a tile, of which even a small picture may have one."""
_AT_ONCE = 1 << 22
"""Values that are composited at a time."""


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What the first page of a TIFF says of its pixels."""

    height: int
    width: int
    dtype: np.dtype[Any]
    channels: tuple[int, ...]
    """Places of the samples that are shown."""
    opacity: int | None
    """Place of the sample that is opacity."""
    multiplied: int
    """How many of the first channels are stored multiplied by the opacity."""
    white_is_zero: bool
    orientation: int
    """As in EXIF: how rows and columns are to be turned."""


def png_pixels(content: bytes, background: int) -> NDArray[Any]:
    """Pixels `(height, width, 1 or 3)` uint16 of a 16-bit PNG; what is transparent shows the background, 0..255."""
    pixels = np.asarray(_codecs().png_decode(content))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] not in (2, 4):
        return pixels
    return _in_rows(pixels, lambda rows: _over_by_last(rows, background))


def tiff_header(content: bytes) -> Header:
    """Size, channels and depth of the first page of a TIFF.

    Raises:
        ValueError: Other values than 8 or 16 bits of brightness, or too many of them.
    """
    page = _first_page(content)
    height, width = (page.width, page.height) if page.orientation in range(5, 9) else (page.height, page.width)
    return Header(height=height, width=width, channels=len(page.channels), bits=8 * page.dtype.itemsize)


def tiff_pixels(content: bytes, background: int) -> NDArray[Any]:
    """Pixels `(height, width, channels)` uint8 or uint16 of the first page of a TIFF."""
    found = _first_page(content)
    with _tiff().TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        pixels = np.asarray(page.asarray(maxworkers=1))
        pixels = np.moveaxis(pixels, page.axes.index("S"), -1) if "S" in page.axes else pixels[..., None]
    return turned(_in_rows(pixels, lambda rows: _shown(rows, found, background)), found.orientation)


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels `(height, width, channels)` turned and mirrored as an orientation of EXIF, 1 to 8, says; others do not."""
    if orientation in range(5, 9):
        pixels = pixels.swapaxes(0, 1)
    down, across = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return pixels[::down, ::across]


def _first_page(content: bytes) -> _Page:
    """The first page, which is a picture that can be read."""
    with _tiff().TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        if sorted(page.axes.replace("S", "")) != ["X", "Y"]:
            raise ValueError(f"a page of axes {page.axes} is no picture")
        if page.dtype is None or page.dtype.name not in ("uint8", "uint16"):
            raise ValueError(f"{page.dtype} pixels have no known range; save as 8 or 16 bit")
        photometric, samples = int(page.photometric), int(page.samplesperpixel)
        if photometric not in COLOURS:
            raise ValueError("samples that are neither grey, nor red, green and blue; save as one of these")
        _refuse_huge(page.imagelength, page.imagewidth, samples, math.prod(page.chunks))
        extra = [int(kind) for kind in page.extrasamples]
        orientation = page.tags.valueof(_ORIENTATION, 1)
        kinds = _kinds(samples, extra, photometric)
        opacities = [place for place, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED)]
        is_multiplied = bool(opacities) and kinds[opacities[0]] == _ASSOCIATED
        return _Page(
            height=page.imagelength,
            width=page.imagewidth,
            dtype=page.dtype,
            channels=tuple(place for place in range(samples) if place not in opacities),
            opacity=opacities[0] if opacities else None,
            multiplied=COLOURS[photometric] if is_multiplied else 0,
            white_is_zero=photometric == _WHITE_IS_ZERO,
            orientation=orientation if isinstance(orientation, int) else 1,
        )


def _kinds(samples: int, extra: list[int], photometric: int) -> list[int]:
    """The kind of every sample, 0 where TIFF gives none; a fourth one beside RGB of which it says nothing is opacity.

    Raises:
        ValueError: More extra samples than there can be.
    """
    if photometric == _RGB and samples == 4 and not extra:
        extra = [_UNASSOCIATED]
    if len(extra) > samples - COLOURS[photometric]:
        raise ValueError(f"{len(extra)} extra samples of {samples} in all")
    return [0] * (samples - len(extra)) + extra


def _refuse_huge(height: int, width: int, samples: int, tile: int) -> None:
    """Refuses what Pillow would call a decompression bomb, and tiles that are larger than the picture.

    Raises:
        ValueError: The picture has too many pixels, or values, or a tile has.
    """
    if tile > max(height * width * samples, _LARGEST_TILE):
        raise ValueError(f"tiles of {tile:,} values")
    refuse_absurd(height * width * samples, "pixels")
    if Image.MAX_IMAGE_PIXELS is not None and height * width > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{height:,} x {width:,} pixels, more than {Image.MAX_IMAGE_PIXELS:,}")


def _shown(pixels: NDArray[Any], page: _Page, background: int) -> NDArray[Any]:
    """The channels of pixels with all their samples, bright where the picture is, over the background."""
    top = np.iinfo(pixels.dtype).max
    values = pixels[..., page.channels]
    if page.opacity is None:
        return top - values if page.white_is_zero else values
    opacity = _share(pixels[..., page.opacity, None])
    is_multiplied = np.arange(len(page.channels)) < page.multiplied
    bright = np.where(is_multiplied, opacity, 1) * top - values if page.white_is_zero else values
    return _over(bright, np.where(is_multiplied, 1, opacity), opacity, background, pixels.dtype)


def _over_by_last(pixels: NDArray[Any], background: int) -> NDArray[Any]:
    """Pixels over the background, without their last channel, which is their opacity."""
    opacity = _share(pixels[..., -1:])
    return _over(pixels[..., :-1], opacity, opacity, background, pixels.dtype)


def _share(opacity: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(opacity / np.iinfo(opacity.dtype).max, dtype=np.float64)


def _over(
    values: NDArray[Any], factor: NDArray[Any], opacity: NDArray[Any], background: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Values times a factor, and as much of the background, of brightness 0..255, as their opacity lets through."""
    top = np.iinfo(dtype).max
    mixed = values * factor + background / 255 * top * (1 - opacity)
    return np.asarray(np.rint(np.clip(mixed, 0, top)), dtype=dtype)


def _in_rows(pixels: NDArray[Any], work: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """`work` on some rows after others, so that what it needs in between stays small."""
    parts = np.array_split(pixels, min(len(pixels), -(-pixels.size // _AT_ONCE)))
    return np.concatenate([work(rows) for rows in parts])


def _codecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise _missing("imagecodecs") from error
    return imagecodecs


def _tiff() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise _missing("tifffile") from error
    return tifffile


def _missing(package: str) -> InputError:
    return InputError(
        f"pictures of 16-bit colour, or of many channels, need {package}, which is not installed, since others would "
        "drop half of their bits: pip install 'kontrast[medical]'"
    )
