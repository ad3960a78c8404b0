"""Pictures that Pillow would flatten: 16-bit colour, and TIFFs of any number of channels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.reading import Header, refuse_absurd
from kontrast.errors import InputError

_ALPHA = {1, 2}
"""What TIFF calls an extra sample that is transparency, multiplied in already or not."""


def png_pixels(content: bytes, background: int) -> NDArray[Any]:
    """Pixels `(height, width, 1 or 3)` uint16 of a 16-bit PNG; what is transparent shows the background, 0..255."""
    pixels = np.asarray(_codecs().png_decode(content))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return _composited(pixels, background) if pixels.shape[2] in (2, 4) else pixels


def tiff_header(content: bytes) -> Header:
    """Size, channels and depth of the first page of a TIFF.

    Raises:
        ValueError: Other values than 8 or 16 bits, or too many of them.
    """
    height, width, samples, alpha, dtype = _first_page(content)
    if dtype not in ("uint8", "uint16"):
        raise ValueError(f"{dtype} pixels have no known range; save as 8 or 16 bit")
    refuse_absurd(height * width * samples, "pixels")
    bits = 8 * np.dtype(dtype).itemsize
    return Header(height=height, width=width, channels=samples - alpha, bits=bits)


def tiff_pixels(content: bytes, background: int) -> NDArray[Any]:
    """Pixels `(height, width, channels)` uint8 or uint16 of the first page of a TIFF."""
    tiff_header(content)
    *_, alpha, _ = _first_page(content)
    with _tiff().TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        pixels = np.asarray(page.asarray())
        pixels = np.moveaxis(pixels, page.axes.index("S"), -1) if "S" in page.axes else pixels[..., None]
    return _composited(pixels, background) if alpha else pixels


def _first_page(content: bytes) -> tuple[int, int, int, int, str]:
    """Height, width, samples a pixel, how many of them are transparency, and the type of the values."""
    with _tiff().TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        if sorted(page.axes.replace("S", "")) != ["X", "Y"]:
            raise ValueError(f"a page of axes {page.axes} is no picture")
        alpha = sum(int(kind) in _ALPHA for kind in page.extrasamples)
        return page.imagelength, page.imagewidth, page.samplesperpixel, alpha, page.dtype.name


def _composited(pixels: NDArray[Any], background: int) -> NDArray[Any]:
    """Pixels without their last channel, transparency, over a background of brightness 0..255."""
    top = np.iinfo(pixels.dtype).max
    opacity = pixels[..., -1:] / top
    mixed = pixels[..., :-1] * opacity + background / 255 * top * (1 - opacity)
    return np.rint(mixed).astype(pixels.dtype)


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
