"""NRRD: one file, or a header with its values beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.nifti.nrrd_values import encoding_of, locate
from kontrast.data.nifti.stored import Stored, clean_header, needed, padded, refuse_large, sound_affine, sound_shape

_FIELDS = {
    "type", "dimension", "sizes", "encoding", "endian", "space", "space directions", "space origin", "spacings",
    "kinds", "byteskip", "byte skip", "lineskip", "line skip", "datafile", "data file",
}  # fmt: skip
"""All that is read of a header; comments, contents and key/value pairs can name people."""
_MAX_LINE, _MAX_LINES = 1 << 16, 10_000
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_SIGNS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
"""From the space of the header to RAS+; another, or none, is taken for left-posterior-superior, as ITK does."""
_COLOURS = {"rgb-color", "3-color", "vector", "3-vector"}
_NOT_SPACE = _COLOURS | {"list", "time", "rgba-color", "4-color", "4-vector", "2-vector", "scalar", "point"}


def open_nrrd(path: Path) -> Stored:
    """Reads and checks the header.

    Raises:
        InputError: nibabel or pynrrd is not installed.
        Exception: The header is damaged, or its values are shorter than it claims, or lie outside its folder.
    """
    nibabel = needed("nibabel")
    header, start = _header(path)
    sizes = tuple(int(size) for size in header["sizes"])
    if len(sizes) != header["dimension"]:
        raise ValueError(f"{header['dimension']} axes and {len(sizes)} sizes")
    dtype = _type(header)
    directions = _directions(header, len(sizes))
    order = [axis for axis, direction in enumerate(directions) if direction is not None]
    others = [axis for axis in range(len(sizes)) if axis not in order]
    if not 2 <= len(order) <= 3 or len(others) > 1:
        raise ValueError(
            f"a volume has two or three axes of space and one more; this one has {len(order)} of {len(sizes)}"
        )
    in_colour = bool(others) and _is_colour(header, others[0], sizes[others[0]], dtype)
    shape = sound_shape(_shape([sizes[axis] for axis in order], [] if in_colour else [sizes[axis] for axis in others]))
    affine = sound_affine(_affine(header, [directions[axis] for axis in order]), shape)
    refuse_large(math.prod(sizes), dtype)
    written = locate(path, header, start, math.prod(sizes), dtype)
    written.check_length()

    def load() -> NDArray[Any]:
        values = written.read().reshape(sizes, order="F").transpose(*order, *others)
        return values.reshape(*padded(shape), 3) if in_colour else values.reshape(padded(shape))

    return Stored(
        shape=shape,
        dtype=dtype,
        channels=3 if in_colour else 1,
        scaling=None,
        affine=affine,
        header=clean_header(nibabel.Nifti1Header, affine),
        load=load,
    )


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The fields that are read, by pynrrd, and where the header ends; an error of it could quote names."""
    with path.open("rb") as file:
        lines = list(_lines(file))
        start = file.tell()
    nrrd = needed("nrrd")
    try:
        with np.errstate(all="raise"):
            header = dict(nrrd.read_header(lines))
    except (ValueError, TypeError, ArithmeticError, StopIteration, IndexError) as error:
        raise ValueError(f"the header of NRRD is damaged ({type(error).__name__})") from None
    except Exception as error:
        if type(error).__name__ != "NRRDError":
            raise
        raise ValueError("the header of NRRD is damaged") from None
    missing = {"type", "dimension", "sizes", "encoding"} - header.keys()
    if missing:
        raise ValueError(f"the header of NRRD has no {', '.join(sorted(missing))}")
    return header, start


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Lines of a header up to the empty one: the magic, and the fields that are read."""
    for number in range(_MAX_LINES):
        line = file.readline(_MAX_LINE).decode("ascii", "ignore").rstrip()
        field, colon, value = line.partition(":")
        if not line:
            return
        if number == 0:
            yield line
        elif colon and not value.startswith("=") and field.strip().lower() in _FIELDS:
            yield f"{field.strip().lower()}:{value}"
    raise ValueError(f"a header of more than {_MAX_LINES:,} lines")


def _type(header: dict[str, Any]) -> np.dtype[Any]:
    code = next((code for code, names in _TYPES.items() if header["type"].lower() in names), None)
    if code is None:
        raise ValueError("a type of values that NRRD has not, or that is no number")
    order = header.get("endian", "").lower()
    if code.endswith("1") or encoding_of(header) == "text":
        return np.dtype(code)
    if order not in ("little", "big"):
        raise ValueError("neither little nor big endian")
    return np.dtype(("<" if order == "little" else ">") + code)


def _directions(header: dict[str, Any], dimension: int) -> list[NDArray[np.float64] | None]:
    """A vector for each axis of space, None for others."""
    rows = header.get("space directions")
    if rows is not None:
        vectors = [None if row is None or np.isnan(row).all() else np.asarray(row, np.float64) for row in rows]
    else:
        vectors = _from_spacings(header, dimension)
    if len(vectors) != dimension:
        raise ValueError(f"{len(vectors)} directions for {dimension} axes")
    return vectors


def _from_spacings(header: dict[str, Any], dimension: int) -> list[NDArray[np.float64] | None]:
    """Right angles; the first three axes that are not said to be something else are those of space."""
    kinds = _kinds(header, dimension)
    spacings = header.get("spacings", [math.nan] * dimension)
    spatial = [axis for axis in range(dimension) if kinds[axis] not in _NOT_SPACE][:3]
    vectors: list[NDArray[np.float64] | None] = [None] * dimension
    for direction, axis in zip(np.eye(3), spatial, strict=False):
        vectors[axis] = direction * (1.0 if math.isnan(spacings[axis]) else spacings[axis])
    return vectors


def _kinds(header: dict[str, Any], dimension: int) -> list[str]:
    kinds = [kind.lower() for kind in header.get("kinds", [])]
    return kinds if len(kinds) == dimension else [""] * dimension


def _is_colour(header: dict[str, Any], axis: int, size: int, dtype: np.dtype[Any]) -> bool:
    return size == 3 and dtype == np.uint8 and _kinds(header, len(header["sizes"]))[axis] in _COLOURS


def _shape(spatial: list[int], others: list[int]) -> tuple[int, ...]:
    if others and len(spatial) == 2:
        spatial = [*spatial, 1]
    return (*spatial, *others)


def _affine(header: dict[str, Any], directions: list[Any]) -> NDArray[np.float64]:
    """From voxels to mm in RAS+."""
    affine = np.eye(4)
    affine[:3, 2] = 0
    for axis, vector in enumerate(directions):
        affine[: len(vector), axis] = vector
        affine[len(vector) : 3, axis] = 0
    origin = header.get("space origin")
    if origin is not None and np.isfinite(origin).all():
        affine[: len(origin), 3] = origin
    signs = _SIGNS.get(header.get("space", "").lower(), (-1, -1, 1))
    affine[:3] *= np.array(signs)[:, None]
    return affine
