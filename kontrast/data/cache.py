"""Decode once: pixels of image files in a memory-mapped cache, keyed by their content.

    <root>/images/<key>/pixels.npy, facts.npy, index.json    key: file contents, names, layout, options of reading,
                                                             and of the aliases, where files know patients
    <root>/memo/<listing>                                    text, the key of a listing of paths, sizes and times

A second run finds its key through the memo and reads no file. Where only times or places changed, the files are hashed
again and the same pixels are found. A folder appears under its key complete or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kontrast.data.decode import plan
from kontrast.data.decoding import INDEX, Decoded, Decoding, headers, load, reasons
from kontrast.data.folder import FileListing
from kontrast.data.formats import PICTURE, format_of
from kontrast.data.reading import Reading
from kontrast.data.scan import refuse_too_many, scan
from kontrast.errors import InputError

if TYPE_CHECKING:
    from kontrast.data.aliases import Aliases

VERSION = 3
_ABANDONED_AFTER = 48 * 3600
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def cache_root(cache: Path | None = None) -> Path:
    """`cache` if given, else the environment's KONTRAST_CACHE, else the user's cache folder."""
    if cache is not None:
        return cache
    chosen = os.environ.get("KONTRAST_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kontrast"


def decoded(
    listing: FileListing,
    *,
    size: int | None,
    channels: int | None,
    how: Reading,
    aliases: Aliases,
    shown: Callable[[str], str],
    max_unreadable: float,
    cache: Path | None = None,
) -> Decoded:
    """The images of a listing, from the cache or decoded into it.

    Args:
        listing: The files.
        size: Side of the crop; None for the images' own, up to a limit.
        channels: Channels of all images; None keeps what they have.
        how: How medical formats become images.
        aliases: Of patients and volumes; the cache never holds their names.
        shown: What stands for a file in messages.
        max_unreadable: Share of the files that may be unreadable.
        cache: Root of the cache.

    Raises:
        InputError: Too many files are unreadable or none is an image, an image is smaller than the crop, or the cache
            cannot be written.
    """
    root, names = cache_root(cache), [shown(name) for name in listing.names]
    key = aliases.fingerprint if any(format_of(path) is not PICTURE for path in listing.paths) else ""
    memo = root / "memo" / _listing_digest(listing, size, channels, how, key)
    folder = _remembered(memo, root)
    if folder is None:
        scans = scan(listing.sources, how)
        _refuse(listing, names, reasons(scans, is_left_out=False), reasons(scans, is_left_out=True), max_unreadable)
        layout = plan(headers(names, scans), size=size, channels=channels, background=listing.background)
        decoding = Decoding(listing=listing, scans=scans, layout=layout, how=how)
        folder = _found_or_decoded(decoding, root, aliases, key)
        _write_text(memo, folder.name)
    found = load(folder)
    _refuse(listing, names, found.skipped, found.left_out, max_unreadable)
    return found


def _refuse(
    listing: FileListing, names: Sequence[str], skipped: dict[int, str], left_out: dict[int, str], share: float
) -> None:
    """Raises when too many files are unreadable, or when rules leave out all others."""
    total = len(names) - len(left_out)
    if left_out and not total:
        first = next(iter(left_out))
        raise InputError(
            f"data must hold images; all {len(left_out)} files are left out by rule ({names[first]}: "
            f"{left_out[first]}): point to files that are images to learn from"
        )
    bad = [(names[position], listing.with_row(position, reason)) for position, reason in skipped.items()]
    refuse_too_many(bad, total, share)


def _found_or_decoded(decoding: Decoding, root: Path, aliases: Aliases, key: str) -> Path:
    folder = root / "images" / _content_key(decoding, key)
    if not (folder / INDEX).is_file():
        needed = int(np.prod(decoding.shape)) * np.dtype(decoding.layout.dtype).itemsize
        with explained(root, needed, "the decoded images"), replacing(folder) as temporary:
            decoding.write(temporary, aliases.group)
    return folder


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary sibling that takes the name of `folder` at the end, and is removed if anything goes wrong before.

    What is complete holds an `index.json`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    temporary = folder.parent / f".unfinished-{uuid.uuid4().hex}"
    temporary.mkdir()  # not tempfile's, which nobody else may read: a cache may be shared
    try:
        yield temporary
        try:
            os.replace(temporary, folder)
        except OSError:
            if not (folder / INDEX).is_file():  # else another process finished the same images first
                raise
            shutil.rmtree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove_abandoned(images: Path) -> None:
    """Removes what killed processes left, once it is so old that none can still be writing."""
    for left in images.glob(".unfinished-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_AFTER:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def explained(root: Path, needed: int, what: str) -> Iterator[None]:
    """Turns a disk too full for `needed` bytes of `what`, or a read-only one, into one sentence."""
    megabytes = max(1, round(needed / 1e6))
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB free")
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise InputError(
                f"{what} need {megabytes} MB of disk; there is no space left for them in {root} "
                f"({error.strerror}): free some, or set KONTRAST_CACHE to a folder on a larger disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise InputError(
                f"the cache for {what} ({megabytes} MB) must be a folder that can be written; {root} is not "
                f"({error.strerror}): set KONTRAST_CACHE to one that is"
            ) from error
        raise


def _content_key(decoding: Decoding, key: str) -> str:
    layout, names = decoding.layout, decoding.listing.names
    files = [(name, entry.digest) for name, entry in zip(names, decoding.scans, strict=True)]
    return _digest([VERSION, vars(layout), vars(decoding.how), key, files])


def _listing_digest(listing: FileListing, size: int | None, channels: int | None, how: Reading, key: str) -> str:
    states = [
        (name, [_state(path) for path in files]) for name, files in zip(listing.names, listing.sources, strict=True)
    ]
    return _digest([VERSION, size, channels, listing.background, vars(how), key, states])


def _state(path: Path) -> tuple[str, int, int]:
    """Path, size and time of a file; -1 where there is none."""
    try:
        state = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), state.st_size, state.st_mtime_ns


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()


def _remembered(memo: Path, root: Path) -> Path | None:
    try:
        folder = root / "images" / memo.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return folder if (folder / INDEX).is_file() else None


def _write_text(path: Path, text: str) -> None:
    """Atomic; a memo that cannot be written costs a second reading of the files and nothing else."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="ascii")
        os.replace(temporary, path)
