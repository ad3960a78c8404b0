"""The size that a compressed frame claims for itself, read without decoding it."""

from __future__ import annotations

from collections.abc import Iterator

from kontrast.data.dicom_file import DicomError

_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of JPEG and JPEG-LS after which the size of the image follows."""
_ALONE = frozenset(range(0xD0, 0xD9)) | {0x01}
"""Markers of JPEG without a length."""
_ENDS = {0xD9, 0xDA}
"""Markers of JPEG after which no header follows."""
_JPEG_2000 = b"\xff\x4f\xff\x51"
_WRAPPED = b"\0\0\0\x0cjP  "
"""How a JPEG 2000 file begins, where DICOM wants only the codestream in it."""


def codestream_sizes(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and values of a pixel by each header in a frame; usually one.

    Raises:
        DicomError: It is neither JPEG, nor JPEG-LS, nor JPEG 2000.
    """
    if frame.startswith(_JPEG_2000):
        yield _jpeg_2000_size(frame, 0)
    elif frame.startswith(_WRAPPED):
        start = frame.find(_JPEG_2000)
        while start >= 0:
            yield _jpeg_2000_size(frame, start)
            start = frame.find(_JPEG_2000, start + 1)
    elif frame.startswith(b"\xff\xd8"):
        yield _jpeg_size(frame)
    else:
        raise DicomError("a compressed frame is no JPEG image")


def _jpeg_2000_size(frame: bytes, start: int) -> tuple[int, int, int]:
    right, bottom, left, top = (_number(frame, start + 8 + 4 * place, 4) for place in range(4))
    return bottom - top, right - left, _number(frame, start + 40, 2)


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    place = 2
    while place + 4 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _SIZES:
            return _number(frame, place + 5, 2), _number(frame, place + 7, 2), _number(frame, place + 9, 1)
        if marker in _ENDS:
            break
        place += 1 if marker == 0xFF else 2 if marker in _ALONE else 2 + max(2, _number(frame, place + 2, 2))
    raise DicomError("a compressed frame has no header")


def _number(frame: bytes, start: int, length: int) -> int:
    return int.from_bytes(frame[start : start + length], "big")
