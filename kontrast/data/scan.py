"""The first look at image files: a digest of the content, the headers, and whether they can be read at all."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from kontrast.data import formats
from kontrast.data.dicom.file import quiet_pydicom
from kontrast.data.pictures import strict_pillow
from kontrast.data.progress import progress
from kontrast.data.reading import Contents, LeftOut, Reading
from kontrast.distributed import allowed_cores
from kontrast.errors import InputError

_CHUNK = 512
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is known of one file before it is decoded."""

    digest: str
    """SHA-256 (hex) of the content, "" if it could not be read."""
    contents: Contents | None
    reason: str = ""
    """Why there are no contents, else ""."""
    is_left_out: bool = False
    """Whether that is a rule, and not damage."""


def scan(sources: Sequence[tuple[Path, ...]], how: Reading) -> list[Scan]:
    """Looks into every file, or set of files whose content is the channels of one image, in threads."""
    return list(in_threads(partial(_scan_one, how), sources, title="Reading images"))


def in_threads(work: Callable[[T], R], items: Sequence[T], *, title: str) -> Iterator[R]:
    """`work` on images, in order, with a progress bar; an interrupt cancels what has not begun."""
    with (
        strict_pillow(),
        quiet_pydicom(),
        ThreadPoolExecutor(min(8, allowed_cores())) as pool,
        progress(title, total=len(items)) as advance,
    ):
        for start in range(0, len(items), _CHUNK):
            for result in pool.map(partial(_let_go, work), items[start : start + _CHUNK]):
                advance(1)
                yield result


def _let_go(work: Callable[[T], R], item: T) -> R:
    """`work` on an item, whose error holds nothing of what was read: other threads may wait for their turn to."""
    try:
        return work(item)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def why_unreadable(error: Exception) -> str:
    """A short reason, without line breaks, for a file that a decoder or the system refused."""
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)  # without the path
    text = " ".join(told.split()).replace("<_io.BytesIO object at", "<file at")
    return f"{type(error).__name__}: {text.partition(' <file at')[0]}" if text else type(error).__name__


def refuse_too_many(skipped: Sequence[tuple[str, str]], total: int, share: float) -> None:
    """Raises when more than `share` of `total` files could not be read.

    Raises:
        InputError: Names the first three and the flag.
    """
    if len(skipped) < total and len(skipped) <= share * total + 1e-9:
        return
    first = "; ".join(f"{name} ({reason})" for name, reason in skipped[:3])
    raise InputError(
        f"at most {share:.2%} of the images may be unreadable; {len(skipped)} of {total} are ({first}"
        f"{'; ...' if len(skipped) > 3 else ''}): repair or remove them, or allow more with --max-unreadable"
    )


def _scan_one(how: Reading, paths: tuple[Path, ...]) -> Scan:
    digest = ""
    try:
        formats.refuse_irregular(paths)
        if len(paths) == 1 and formats.format_of(paths[0]) is formats.PICTURE:  # read once: it may lie far away
            content = paths[0].read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            return Scan(digest=digest, contents=formats.look_at_picture(content, how))
        digest = _digest(paths)
        return Scan(digest=digest, contents=formats.look(paths, how))
    except (MemoryError, InputError):
        raise
    except LeftOut as rule:
        return Scan(digest=digest, contents=None, reason=str(rule), is_left_out=True)
    except Exception as error:  # decoders raise dozens of kinds, from SyntaxError to struct.error, for damaged files
        return Scan(digest=digest, contents=None, reason=why_unreadable(error))


def _digest(paths: tuple[Path, ...]) -> str:
    """Of one file that of its content, as every tool prints it; of several that of their digests."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
