"""NIfTI-1 and NIfTI-2 in one file, compressed or not, of either byte order."""

from __future__ import annotations

import gzip
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from kontrast.data.nifti.stored import (
    DEFLATE_AT_MOST,
    GZIP,
    Stored,
    needed,
    padded,
    refuse_large,
    refuse_overclaim,
    sound_affine,
    sound_shape,
    take,
    taken_values,
)

_KINDS = {348: ("Nifti1Header", (b"n+1",)), 540: ("Nifti2Header", (b"n+2",))}
_MAX_OFFSET = 1 << 26
"""Extensions longer than this are refused: they would have to be unpacked before the values."""
_AT_ONCE = 1 << 22
"""Voxels whose opacity is applied at a time."""
_COLOURS = {128: 3, 2304: 4}
"""Type codes of red, green and blue, and of these with opacity."""
_GEOMETRY = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x",
    "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip


def open_nifti(path: Path) -> Stored:
    """Reads and checks the header.

    Raises:
        InputError: nibabel is not installed.
        Exception: The header is damaged, or the file shorter than it claims.
    """
    nibabel = needed("nibabel")
    with _unpacked(path) as file:
        header = _header(nibabel, file)
    dims = [int(size) for size in header["dim"]]
    if not 1 <= dims[0] <= 7:
        raise ValueError(f"a header of NIfTI has one to seven axes; this one claims {dims[0]}")
    shape = sound_shape(tuple(dims[1 : dims[0] + 1]))
    dtype, channels = _type(header)
    offset = _offset(header)
    count = math.prod(shape) * channels
    refuse_large(count, dtype)
    _check_length(path, offset + count * dtype.itemsize)
    with np.errstate(all="ignore"):
        affine = sound_affine(header.get_best_affine(), shape)

    def load() -> NDArray[Any]:
        return _load(path, offset, dtype, (*padded(shape), channels))

    return Stored(
        shape=shape,
        dtype=dtype,
        channels=3 if channels > 1 else 1,
        scaling=_scaling(header) if channels == 1 else None,
        affine=affine,
        header=_without_words(header),
        load=load,
    )


def _unpacked(path: Path) -> AbstractContextManager[IO[bytes]]:
    """By the content and not by the name, since both kinds bear either."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _header(nibabel: Any, file: IO[bytes]) -> Any:
    """The header as it is: nibabel's own checks would mend it, and say so in the log for every file."""
    start = bytes(take(file, 4))
    sizes = {int.from_bytes(start, order): mark for order, mark in (("little", "<"), ("big", ">"))}  # type: ignore[arg-type]
    size = next((size for size in _KINDS if size in sizes), None)
    if size is None:
        raise ValueError("no header of NIfTI")
    name, magic = _KINDS[size]
    header = getattr(nibabel, name)(start + bytes(take(file, size - 4)), sizes[size], check=False)
    if header["magic"].tobytes()[:3] not in magic:
        raise ValueError("no magic of NIfTI in one file")
    return header


def _type(header: Any) -> tuple[np.dtype[Any], int]:
    """Type and number of the values of a voxel."""
    code = int(header["datatype"])
    if code in _COLOURS:
        return np.dtype(np.uint8), _COLOURS[code]
    try:
        dtype = header.get_data_dtype()
    except KeyError:
        raise ValueError(f"a type of values, {code}, that NIfTI has not") from None
    if dtype.kind not in "iuf" or not dtype.itemsize:
        raise ValueError(f"values of type {code} of NIfTI are no grey values, integers or colours")
    return dtype, 1


def _offset(header: Any) -> int:
    offset = float(header["vox_offset"])
    if not int(header["sizeof_hdr"]) <= offset <= _MAX_OFFSET:
        raise ValueError(f"values that begin at byte {offset:g}")
    return int(offset)


def _scaling(header: Any) -> tuple[float, float] | None:
    """None where the slope is 0 or not a number, which means "unscaled", and where it changes nothing."""
    slope, inter = header.get_slope_inter()
    return None if slope is None or (slope, inter) == (1, 0) else (slope, inter)


def _check_length(path: Path, needed_bytes: int) -> None:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    refuse_overclaim(needed_bytes, path.stat().st_size, at_most=DEFLATE_AT_MOST if packed else 1)


def _load(path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Values `(x, y, z, t)` or `(x, y, z, t, 3)`; of a file that ends here, its checksum is verified too."""
    channels = shape[-1]
    with _unpacked(path) as file:
        file.seek(offset)
        values = taken_values(file, math.prod(shape) * dtype.itemsize, dtype)
        file.read(1)
    if channels == 4:
        _darken(values.reshape(-1, 4))
    values.flags.writeable = False
    if channels == 1:
        return values.reshape(shape[:-1], order="F")
    return np.moveaxis(values.reshape((channels, *shape[:-1]), order="F")[:3], 0, -1)


def _darken(voxels: NDArray[np.uint8]) -> None:
    """Puts the colours of `(n, 4)` on black by their opacity, in their place, as transparent pictures are read."""
    for start in range(0, len(voxels), _AT_ONCE):
        part = voxels[start : start + _AT_ONCE]
        part[:, :3] = (part[:, :3].astype(np.uint16) * part[:, 3:] + 127) // 255


def _without_words(header: Any) -> Any:
    """A new header of the same kind with the geometry of this one, and none of its descriptions."""
    clean = type(header)()
    for name in _GEOMETRY:
        clean[name] = header[name]
    clean["pixdim"][:4] = header["pixdim"][:4]
    if int(header["dim"][0]) > 3:
        clean["pixdim"][4] = header["pixdim"][4]
    return clean
