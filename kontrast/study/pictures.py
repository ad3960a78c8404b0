"""Images as a page shows them: small, 8 bit, encoded."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kontrast.data import ImageSet
from kontrast.study.contents import Picture

LOSSLESS_UP_TO = 32
"""Side of images so small that lossy compression would show, in pixels."""
QUALITY = 80


def picture(data: ImageSet, position: int, *, side: int) -> Picture:
    """One image, at most `side` pixels wide and high."""
    return encoded(shown(data.pixels[data.rows[position]], side=side))


def sheet(data: ImageSet, positions: NDArray[np.int64], *, tile: int, columns: int) -> Picture:
    """Many images of `tile` pixels each on one picture, row by row."""
    tiles = [_fitted(shown(data.pixels[data.rows[position]], side=tile), tile) for position in positions]
    rows = -(-len(tiles) // columns)
    whole = Image.new(tiles[0].mode, (columns * tile, rows * tile))
    for number, one in enumerate(tiles):
        whole.paste(one, (number % columns * tile, number // columns * tile))
    return encoded(whole, lossless=False)


def shown(pixels: NDArray[Any], *, side: int) -> Image.Image:
    """`(c, h, w)` as a picture of at most `side` pixels; 16 bits and floats are stretched over what the image holds.

    Of other than one or three channels the first three are shown as colours, or the first of two.
    """
    pixels = pixels[: 3 if len(pixels) > 2 else 1]
    if pixels.dtype != np.uint8:
        low, high = window(pixels)
        pixels = np.clip((pixels - low) / max(high - low, 1e-12) * 255, 0, 255).round().astype(np.uint8)
    whole = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if max(whole.size) > side:
        whole.thumbnail((side, side), Image.Resampling.LANCZOS)
    return whole


def window(pixels: NDArray[Any]) -> tuple[float, float]:
    """What an image shows as black and as white: 0 and 255 of 8 bits, else its 0.5th and 99.5th percentile.

    The latter is the rule of thumb of medical viewers for images that bring no window.
    """
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    low, high = np.percentile(pixels, (0.5, 99.5))
    return float(low), float(high)


def encoded(image: Image.Image, *, lossless: bool | None = None) -> Picture:
    """The picture as WebP, lossless where it is tiny or where that is asked for."""
    lossless = max(image.size) <= LOSSLESS_UP_TO if lossless is None else lossless
    file = BytesIO()
    image.convert("RGB").save(file, "WEBP", lossless=lossless, quality=QUALITY)
    return Picture(data=file.getvalue(), media="image/webp", width=image.width, height=image.height)


def _fitted(image: Image.Image, tile: int) -> Image.Image:
    return image if image.size == (tile, tile) else image.resize((tile, tile), Image.Resampling.NEAREST)
