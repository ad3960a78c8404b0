"""From the bytes of a DICOM file to its stored values: frame by frame, decompressed, without bits that do not count."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.dicom.codestream import codestream_size
from kontrast.data.dicom.file import DicomError
from kontrast.data.dicom.header import HEADER_TAGS, Raster, text

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

PIXEL_TAGS = (
    *HEADER_TAGS,
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "VOILUTSequence",
    *(
        f"{prefix}{colour}PaletteColorLookupTable{what}"
        for colour in ("Red", "Green", "Blue")
        for prefix, what in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
    "PixelData",
)
"""The tags that reading needs."""
_SMALLEST_FRAME = 8
"""Bytes that even an empty compressed frame takes."""
_EASY = 1 << 24
_PER_BYTE = 4096
"""A compressed frame of more than `_EASY` values has at least one byte for so many of them."""


def decoder_of(dataset: FileDataset, raster: Raster, size: int) -> Decoder:
    """What turns the pixels, which take at most `size` bytes of the file, into values.

    Raises:
        DicomError: No installed package can, or the file is too short for the pixels that it promises.
    """
    syntax = _syntax_of(dataset)
    decoder = _known_decoder(syntax)
    if decoder is None:
        name = syntax.name if syntax.name != str(syntax) else "an unknown transfer syntax"
        raise DicomError(f"its pixels are encoded as {name}, which cannot be read")
    if not decoder.is_available:
        raise DicomError(
            f"its pixels are encoded as {syntax.name}, and no decoder for that is installed: "
            "pip install 'kontrast[medical]'"
        )
    if _least_bytes(raster, decoder) > size:
        raise DicomError("the file is too short for the pixels that it promises")
    return decoder


def stored_values(dataset: FileDataset, raster: Raster, decoder: Decoder) -> Iterator[NDArray[Any]]:
    """Every frame as integers from `raster.lowest` to `raster.highest`: `(rows, columns)`, or with 3 values RGB.

    Raises:
        DicomError: There are fewer frames than promised, or one has another size.
        Exception: Whatever pydicom and its decoders raise for damaged pixels.
    """
    shape = (raster.rows, raster.columns, 3) if raster.samples == 3 else (raster.rows, raster.columns)
    frames = _decoded(dataset, raster, decoder)
    for _ in range(raster.frames):
        frame = next(frames, None)
        if frame is None:
            raise DicomError("it holds fewer frames than promised")
        if frame.shape != shape or frame.dtype.kind not in "iu":
            raise DicomError("a frame has another size than the header says")
        yield _significant(frame, raster, decoder)


def _decoded(dataset: FileDataset, raster: Raster, decoder: Decoder) -> Iterator[NDArray[Any]]:
    options: Any = {"allow_excess_frames": False, "correct_unused_bits": False, "planar_configuration": raster.planar}
    options |= {"number_of_frames": raster.frames, "photometric_interpretation": raster.photometric}
    if decoder.is_native:
        for index in range(raster.frames):
            yield decoder.as_array(dataset, index=index, **options)[0]
        return
    _refuse_other_sizes(dataset, raster, decoder)
    plugin = "pydicom" if _is_rle(decoder) else ""  # the faster one panics over damaged frames
    for frame, _ in decoder.iter_array(dataset, decoding_plugin=plugin, **options):
        yield frame


def _significant(frame: NDArray[Any], raster: Raster, decoder: Decoder) -> NDArray[Any]:
    """Values by their stored bits alone: others, such as overlays, are cut off.

    JPEG 2000 and JPEG-LS code values of a depth of their own, without other bits: what is too large is clipped.
    """
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

    if raster.stored == frame.itemsize * 8 and raster.signed == (frame.dtype.kind == "i"):
        return frame
    wide: NDArray[Any] = frame.astype(np.int64 if frame.itemsize > 2 else np.int32)
    if decoder.UID in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes):
        return np.asarray(np.clip(wide, raster.lowest, raster.highest))
    if decoder.is_native or _is_rle(decoder):
        wide = wide >> raster.shift
    return np.asarray(((wide - raster.lowest) & ((1 << raster.stored) - 1)) + raster.lowest)


def _syntax_of(dataset: FileDataset) -> UID:
    """The transfer syntax, guessed from how the tags are written where the file says none."""
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    named = text(dataset.file_meta, "TransferSyntaxUID")
    if named:
        return UID(named)
    is_implicit, is_little = dataset.original_encoding
    return ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def _known_decoder(syntax: UID) -> Decoder | None:
    from pydicom.pixels import get_decoder

    try:
        return get_decoder(syntax)
    except NotImplementedError:
        return None


def _is_rle(decoder: Decoder) -> bool:
    from pydicom.uid import RLELossless

    return decoder.UID in (RLELossless,)


def _least_bytes(raster: Raster, decoder: Decoder) -> int:
    if decoder.is_encapsulated:
        return raster.frames * _SMALLEST_FRAME
    bits = raster.values * raster.allocated
    return (bits * 2 // 3 if raster.photometric == "YBR_FULL_422" else bits) // 8


def _refuse_other_sizes(dataset: FileDataset, raster: Raster, decoder: Decoder) -> None:
    """Looks into every compressed frame before a decoder believes what it says of its size.

    Raises:
        DicomError: It is not the size in the tags, or has far too few bytes for it.
    """
    from pydicom.encaps import generate_frames

    promised = (raster.rows, raster.columns, raster.samples)
    values = raster.rows * raster.columns * raster.samples
    for frame in islice(generate_frames(dataset.PixelData, number_of_frames=raster.frames), raster.frames):
        if values > max(_EASY, _PER_BYTE * len(frame)):
            raise DicomError("it promises far more pixels than its bytes can hold")
        if not _is_rle(decoder) and codestream_size(frame) != promised:
            raise DicomError("a compressed frame has another size than the header says")
