"""The first look at image files: a digest of the content, the header, and whether they can be read at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kontrast.data.decode import Header, read_header, strict_pillow
from kontrast.data.progress import progress
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
    header: Header | None
    reason: str
    """Why there is no header, else ""."""


def scan(paths: Sequence[Path]) -> list[Scan]:
    """Reads every file once, in threads."""
    return list(in_threads(_scan_one, paths, title="Reading images"))


def in_threads(work: Callable[[T], R], items: Sequence[T], *, title: str) -> Iterator[R]:
    """`work` on images, in order, with a progress bar; an interrupt cancels what has not begun."""
    with (
        strict_pillow(),
        ThreadPoolExecutor(min(8, allowed_cores())) as pool,
        progress(title, total=len(items)) as advance,
    ):
        for start in range(0, len(items), _CHUNK):
            for result in pool.map(work, items[start : start + _CHUNK]):
                advance(1)
                yield result


def why_unreadable(error: Exception) -> str:
    """A short reason, without line breaks, for a file that Pillow or the system refused."""
    text = " ".join(str(error).split()).replace("<_io.BytesIO object at", "<file at")
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


def _scan_one(path: Path) -> Scan:
    digest = ""
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return Scan(digest=digest, header=read_header(content), reason="")
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds, from SyntaxError to struct.error, for damaged files
        return Scan(digest=digest, header=None, reason=why_unreadable(error))
