"""From stored colours to RGB with 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kontrast.data.dicom.header import PALETTE, Raster
from kontrast.data.dicom.lookup import palette_of
from kontrast.data.dicom.pixels import stored_values

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset
    from pydicom.pixels.decoders.base import Decoder


def colour_frames(dataset: FileDataset, raster: Raster, decoder: Decoder) -> Iterator[NDArray[np.uint8]]:
    """Every frame as `(rows, columns, 3)`.

    Raises:
        Exception: Whatever is raised for damaged pixels or palettes.
    """
    palette = palette_of(dataset) if raster.photometric == PALETTE else None
    for stored in stored_values(dataset, raster, decoder):
        if palette is not None:
            yield palette(stored)
        elif stored.dtype == np.uint8:
            yield stored
        else:
            yield np.rint(stored * (255 / raster.highest)).astype(np.uint8)
