"""The size that a compressed frame claims for itself, read without decoding it."""

from __future__ import annotations

from kontrast.data.dicom.file import DicomError

_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of JPEG and JPEG-LS after which the size of the image follows."""
_ALONE = frozenset(range(0xD0, 0xD9)) | {0x01}
"""Markers of JPEG without a length."""
_ENDS = {0xD9, 0xDA}
"""Markers of JPEG after which no header follows."""
_JPEG_2000 = b"\xff\x4f\xff\x51"
_WRAPPED = b"\0\0\0\x0cjP  "
"""How a JPEG 2000 file begins, where DICOM wants only the codestream in it."""
_LEAST_BOX = 8
"""Bytes of a box with nothing in it."""


def codestream_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and values of a pixel by the header of a frame.

    Raises:
        DicomError: It is neither JPEG, nor JPEG-LS, nor JPEG 2000, or its header is damaged.
    """
    if frame.startswith(b"\xff\xd8"):
        return _jpeg_size(frame)
    start = _unwrapped(frame) if frame.startswith(_WRAPPED) else 0
    if not frame.startswith(_JPEG_2000, start):
        raise DicomError("a compressed frame is no JPEG image")
    right, bottom, left, top = (_number(frame, start + 8 + 4 * place, 4) for place in range(4))
    return bottom - top, right - left, _number(frame, start + 40, 2)


def _unwrapped(frame: bytes) -> int:
    """Where the codestream begins in the boxes of a file; none may be empty, over which decoders loop for ever."""
    place = len(_WRAPPED) + 4
    while frame[place + 4 : place + 8] != b"jp2c":
        length = _number(frame, place, 4)
        if length < _LEAST_BOX:
            raise DicomError("a compressed frame has no header")
        place += length
    return place + 8


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
