"""Opening DICOM files that may be damaged or hostile: bounded, quiet, and without telling whose they are.

pydicom quotes values of tags in its errors, warnings and log records. Here its errors are replaced by `DicomError`,
whose text holds none, and its warnings and records are dropped while files are read.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import numpy as np

from kontrast.data.reading import LeftOut
from kontrast.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset
    from pydicom.tag import BaseTag

MAX_INFLATED = 1 << 28
"""Bytes that the deflated part of a file may become."""
_SOURCES = ("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "rle")
"""Packages whose warnings and log records are dropped."""
_EXPLICIT = b"1.2.840.10008.1.2.1\0"
T = TypeVar("T")


class DicomError(ValueError):
    """A file that cannot be read as an image; the message holds nothing of what its tags say."""


class _EndlessRead(Exception):  # noqa: N818 - tells pydicom's reading of deflated files from all other
    """The rest of a file was asked for at once."""


class _Bounded:
    """A file of which never more is allocated than there is, whatever length a tag claims."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._read = file.read
        self._size = size
        self.seek = file.seek
        self.tell = file.tell

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes.

        Raises:
            _EndlessRead: No count is given, as before a deflated file is expanded without bound.
        """
        if count < 0:
            raise _EndlessRead
        return self._read(min(count, self._size))


class _Quiet:
    """While any thread is inside, warnings and log records of `_SOURCES` are dropped.

    Both settings belong to the process: the first thread that enters makes them, the last that leaves undoes them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._undo = _silenced()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.close()


_QUIET = _Quiet()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Inside, pydicom and its decoders neither warn nor log.

    Every look and read does this for itself; around a whole pool of threads it saves setting and undoing it per file.
    """
    with _QUIET:
        yield


def guarded(work: Callable[[], T], failed: str) -> T:
    """What `work` returns, quietly.

    Raises:
        DicomError: In place of any error that may quote a tag: `failed`, and the kind of the error.
        InputError: As `work` raised it; MemoryError and LeftOut too.
    """
    try:
        with _QUIET, np.errstate(all="ignore"):
            return work()
    except (DicomError, InputError, LeftOut, MemoryError):
        raise
    except OSError as error:
        kind = os.strerror(error.errno) if error.errno else type(error).__name__
    except Exception as error:
        kind = type(error).__name__
    raise DicomError(f"{failed} ({kind})")  # outside the handlers, so that it does not carry the other along


def require_pydicom() -> None:
    """Nothing, where pydicom is installed.

    Raises:
        InputError: It is not.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise InputError(
            "reading DICOM needs pydicom, which is not installed, so such files cannot be read: "
            "pip install 'kontrast[medical]'"
        ) from error


def opened(path: Path, keywords: tuple[str, ...], *, pixels: bool) -> tuple[FileDataset, int]:
    """The named tags of a file, all before the pixels or also these, and the bytes that are left behind them.

    Raises:
        DicomError: It is no ordinary file, or expands beyond `MAX_INFLATED`.
        Exception: Whatever pydicom raises for a damaged file.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise DicomError("it is no ordinary file")
    with path.open("rb") as file:
        try:
            return _dataset(_Bounded(file, state.st_size), state.st_size, keywords, pixels)
        except _EndlessRead:
            file.seek(0)
            content = _inflated(file, state.st_size)
    return _dataset(io.BytesIO(content), len(content), keywords, pixels)


def _dataset(
    file: _Bounded | io.BytesIO, size: int, keywords: tuple[str, ...], pixels: bool
) -> tuple[FileDataset, int]:
    from pydicom import dcmread

    tags = _tags(keywords)
    dataset = dcmread(cast(BinaryIO, file), force=True, stop_before_pixels=not pixels, specific_tags=tags)
    return dataset, size - file.tell()


@cache
def _tags(keywords: tuple[str, ...]) -> list[BaseTag | int]:
    from pydicom.tag import Tag

    return [Tag(keyword) for keyword in keywords]


def _inflated(file: BinaryIO, size: int) -> bytes:
    """The same file without compression of the whole."""
    from pydicom.filereader import read_dataset, read_preamble

    bounded = cast(BinaryIO, _Bounded(file, size))
    read_preamble(bounded, True)
    read_dataset(bounded, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(file.read(), MAX_INFLATED)
    if not inflater.eof:
        long = len(content) == MAX_INFLATED
        raise DicomError(
            f"it expands to more than {MAX_INFLATED:,} bytes" if long else "its deflated part is cut short"
        )
    return b"\0" * 128 + b"DICM\2\0\x10\0UI" + len(_EXPLICIT).to_bytes(2, "little") + _EXPLICIT + content


def _silenced() -> ExitStack:
    """Drops warnings and records; closing the result undoes it."""
    undo = ExitStack()
    undo.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_SOURCES)})(\.|$)")
    for name in _SOURCES:
        logger, nobody = logging.getLogger(name), logging.NullHandler()
        undo.callback(setattr, logger, "propagate", logger.propagate)
        undo.callback(logger.removeHandler, nobody)
        logger.propagate = False  # its level would not do: pydicom sets that when it is imported
        logger.addHandler(nobody)
    return undo
