"""A volume file as it is stored: what its header says, checked, and its values, read within bounds.

A header can claim anything. What it claims is compared with what the file can hold before anything is read, and no more
is unpacked than it claims. Nothing of a header but numbers of its geometry and its types leaves these modules.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.reading import refuse_absurd
from kontrast.errors import InputError

GZIP = b"\x1f\x8b"
DEFLATE_AT_MOST = 1040
"""Bytes that one byte of a gzip file can become, a little more than the 1032 of its method."""
MAX_SLICES = 1 << 16
"""Slices along any axis, over all volumes of a file."""
MAX_HELD = 1 << 32
"""Bytes of values, as they are stored, above which a volume is refused unread: they are held all at once."""
LARGE = 1 << 28
"""Bytes above which threads hold volumes one after the other."""
_CHUNK = 1 << 22
_NEEDS = {
    "nibabel": ("reading NIfTI and NRRD", "nibabel", "kontrast[medical]"),
    "nrrd": ("reading NRRD", "pynrrd", "kontrast[medical]"),
    "SimpleITK": ("N4 bias correction", "SimpleITK", "SimpleITK"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """A volume file whose header is sound."""

    shape: tuple[int, ...]
    """`(x, y)`, `(x, y, z)` or `(x, y, z, t)`; of NRRD, what is no axis of space comes last."""
    dtype: np.dtype[Any]
    """Of one value in the file; uint8 for colour."""
    channels: int
    """1, or 3 for colour."""
    scaling: tuple[float, float] | None
    """Slope and intercept from stored values to those meant."""
    affine: NDArray[np.float64]
    """`(4, 4)`, from voxels to mm in RAS+; finite and not singular."""
    header: Any
    """Of NIfTI, with this geometry and nothing else."""
    load: Callable[[], NDArray[Any]]
    """The values as stored, `(x, y, z, t)` or `(x, y, z, t, 3)`, read-only."""

    @property
    def held(self) -> int:
        """Bytes of the values while they are held."""
        return math.prod(self.shape) * self.channels * self.dtype.itemsize


class _Turns:
    """Lets one thread at a time hold large volumes, several if it needs them together."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._thread, self._held = 0, 0

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Inside, this thread may hold a volume of `size` bytes; any thread may leave, as by closing a generator."""
        if size <= LARGE:
            yield
            return
        thread = threading.get_ident()
        with self._change:
            self._change.wait_for(lambda: not self._held or self._thread == thread)
            self._thread, self._held = thread, self._held + 1
        try:
            yield
        finally:
            with self._change:
                self._held -= 1
                self._change.notify_all()


TURNS = _Turns()


def needed(module: str) -> Any:
    """An optional package.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what, package, install = _NEEDS[module]
        raise InputError(
            f"{what} needs {package}, which is not installed, so it cannot be done: pip install '{install}'"
        ) from error


def padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of two to four axes as `(x, y, z, t)`."""
    return shape + (1,) * (4 - len(shape))


def sound_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of a header without ones beyond the third.

    Raises:
        ValueError: Fewer than two axes, more than four, one below 1, or more values or slices than are read.
    """
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"a volume has two to four axes; the header claims {len(shape)}")
    if min(shape) < 1:
        raise ValueError(f"an axis of {min(shape)} voxels")
    refuse_absurd(math.prod(shape), "the voxels that the header claims")
    if max(shape[:3]) * math.prod(shape[3:]) > MAX_SLICES:
        raise ValueError(f"more than {MAX_SLICES:,} slices")
    return shape


def refuse_large(count: int, dtype: np.dtype[Any]) -> None:
    """Refuses to hold so many values.

    Raises:
        ValueError: They take more than `MAX_HELD` bytes.
    """
    if count * dtype.itemsize > MAX_HELD:
        raise ValueError(
            f"the voxels that the header claims take {count * dtype.itemsize:,} bytes, more than the {MAX_HELD:,} that "
            "are held of a volume"
        )


def sound_affine(affine: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """An affine that can be undone; an axis of one voxel without a direction gets one at right angles to the others.

    Raises:
        ValueError: It is not finite, or singular.
    """
    affine = np.array(affine, dtype=np.float64)
    if not np.abs(affine).max() < 1e9:
        raise ValueError("the affine of the header is not finite, or places voxels kilometres away")
    thick = shape[2] if len(shape) > 2 else 1
    if thick == 1 and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not (sides.min() > 1e-6 and sides.max() < 1e6 and abs(np.linalg.det(affine[:3, :3] / sides)) > 1e-6):
        raise ValueError("the affine of the header is singular, or has voxels of no size")
    return affine


def refuse_overclaim(needed_bytes: int, held: int, *, at_most: int = 1) -> None:
    """Refuses a header that claims more than `held` bytes can be, each of which unpacks to `at_most`.

    Raises:
        ValueError: It does.
    """
    if needed_bytes > held * at_most:
        raise ValueError(f"the header claims {needed_bytes:,} bytes of values, more than the {held:,} bytes can hold")


def taken_values(file: IO[bytes], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values that take `size` bytes, without a copy.

    Raises:
        ValueError: There are fewer.
        Exception: As the file raises, where it is compressed and damaged.
    """
    return np.frombuffer(take(file, size), dtype)


def take(file: IO[bytes], count: int) -> bytearray:
    """Exactly `count` bytes; memory grows with what is there, not with what is claimed.

    Raises:
        ValueError: There are fewer.
        Exception: As the file raises, where it is compressed and damaged.
    """
    taken = bytearray()
    while len(taken) < count and (chunk := file.read(min(_CHUNK, count - len(taken)))):
        taken += chunk
    if len(taken) < count:
        raise ValueError(f"the file ends after {len(taken):,} of the {count:,} bytes that its header claims")
    return taken


def clean_header(kind: Any, affine: NDArray[np.float64]) -> Any:
    """A header of NIfTI of that kind, whose qform and sform are an affine of the scanner in mm."""
    header = kind()
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    return header
