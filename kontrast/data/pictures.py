"""From the bytes of a picture file (PNG, JPEG, TIFF, ...) to its pixels, at their own depth.

8 bit stays uint8 and 16 bit uint16, colour too. Transparent pixels are composited on black, as padding is black; for
drawings both may be white. Of a large JPEG the decoder itself leaves out the detail that scaling would remove.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from kontrast.data import deep
from kontrast.data.reading import Header

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
_GAP = 1.5
"""A JPEG is decoded at no less than this times the stored side, so that a filter does the last of the scaling."""
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""The only formats tried, whatever a file is called: Pillow would hand others, such as EPS, to programs outside."""
_SIXTEEN_BIT = {"I", "I;16", "I;16B", "I;16L", "I;16N"}
_GREY = {"1", "L", "LA"} | _SIXTEEN_BIT
_TIFF = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _PLANAR, _EXTRA = 258, 262, 274, 284, 338
_OPACITY = {1, 2}
_PNG_EXIF = {"exif", "Raw profile type exif"}
_TALKATIVE = ("PIL", "tifffile")
"""Packages that log what they find odd in a file, and quote it."""


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Inside, an image that looks like a decompression bomb is an error, and remarks on odd metadata are silent.

    Warning filters and loggers belong to the process, so this wraps a whole pool of decoding threads, never one image.
    """
    with warnings.catch_warnings(), ExitStack() as undo:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for logger in map(logging.getLogger, _TALKATIVE):
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
        yield


def read_header(content: bytes) -> Header:
    """Size, depth and colour of a picture, without decoding it.

    Raises:
        Exception: Whatever Pillow raises for what is not a picture.
        ValueError: Floating-point pixels, whose range is unknown.
        InputError: It takes a package that is not installed.
    """
    if _is_deep_tiff(content):
        return deep.tiff_header(content)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        if image.mode == "F":
            raise ValueError("floating-point pixels have no known range; save as 8 or 16 bit")
        size = (image.height, image.width)
        height, width = size[::-1] if _orientation(image) in range(5, 9) else size
        return Header(
            height=height,
            width=width,
            channels=1 if _is_grey(image) else 3,
            bits=16 if image.mode in _SIXTEEN_BIT or _is_deep_png(image) else 8,
        )


def read_pixels(content: bytes, *, side: int, background: int = 0) -> NDArray[Any]:
    """Pixels `(height, width, channels)` uint8 or uint16; a JPEG may be smaller, but not below `side`.

    Raises:
        Exception: Whatever Pillow raises for a damaged file.
    """
    if _is_deep_tiff(content):
        return deep.tiff_pixels(content, background)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        if _is_deep_png(image):
            orientation = _orientation(image)
            image.verify()
            return deep.turned(deep.png_pixels(content, background), orientation)
        _shrink_jpeg(image, side)
        ImageOps.exif_transpose(image, in_place=True)
        return _to_array(image, background)


def _orientation(image: Image.Image) -> int:
    """That of EXIF, where it comes before the pixels, but of a TIFF, which Pillow turns itself."""
    is_looked_for = not isinstance(image, PngImageFile) or not _PNG_EXIF.isdisjoint(image.info)
    if isinstance(image, TiffImageFile) or not is_looked_for:  # of a PNG without any, Pillow would decode the pixels
        return 1
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) else 1


def _is_deep_png(image: Image.Image) -> bool:
    """Whether Pillow would drop half the bits of a PNG's colours or transparency."""
    return isinstance(image, PngImageFile) and image.mode not in _SIXTEEN_BIT and ";16" in str(image.tile)


def _is_deep_tiff(content: bytes) -> bool:
    """Whether it is a TIFF that Pillow does not read, or not in full, or not rightly."""
    if content[:4] not in _TIFF:
        return False
    try:
        with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
            assert isinstance(image, TiffImageFile)
            return _is_flattened(image) or _has_mistaken_opacity(image)
    except UnidentifiedImageError:
        return True


def _is_flattened(image: TiffImageFile) -> bool:
    """Whether Pillow would drop bits of several samples a pixel, or samples that are channels."""
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
    is_bright = image.tag_v2.get(_PHOTOMETRIC, 0) in deep.COLOURS
    return len(bits) > 1 and (max(bits) > 8 or (is_bright and len(bits) > len(image.getbands())))


def _has_mistaken_opacity(image: TiffImageFile) -> bool:
    """Whether Pillow mixes up opacity with other samples, as in planes, or cannot undo that grey is multiplied."""
    is_transparent = not _OPACITY.isdisjoint(image.tag_v2.get(_EXTRA, ()))
    return is_transparent and (image.mode == "La" or image.tag_v2.get(_PLANAR) == 2)


def _shrink_jpeg(image: Image.Image, side: int) -> None:
    """Have a JPEG's decoder leave out what scaling would remove, at 1/2, 1/4 or 1/8 of the size; a filter ends it.

    Ink (CMYK) is left alone: its mixtures are not those of light.
    """
    if isinstance(image, JpegImageFile) and image.mode in ("L", "RGB"):
        image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=_GAP)


def _is_grey(image: Image.Image) -> bool:
    if "LA;16" in str(getattr(image, "tile", "")):  # the mode of grey of 16 bit with opacity says RGBA
        return True
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
        grey = values.astype(np.uint16)[..., None]
        return 65535 - grey if _is_white_zero(image) else grey
    mode = "L" if _is_grey(image) else "RGB"
    if image.has_transparency_data:
        image = Image.alpha_composite(
            Image.new("RGBA", image.size, (background, background, background)), image.convert("RGBA")
        )
    array = np.asarray(image.convert(mode))
    return array[..., None] if array.ndim == 2 else array


def _is_white_zero(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF, as it is where the tag is missing; of 8 bit, Pillow turns that round itself."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC, 0) == 0
