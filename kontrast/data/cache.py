"""Decode once: pixels of image files in a memory-mapped cache, keyed by their content.

    <root>/images/<key>/pixels.npy, index.json      key: file contents, names, layout
    <root>/memo/<listing>                           text, the key of a listing of paths, sizes and times

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.decode import Layout, decode, plan
from kontrast.data.folder import FileListing
from kontrast.data.images import fingerprint
from kontrast.data.scan import Scan, in_threads, refuse_too_many, scan, why_unreadable
from kontrast.errors import InputError

VERSION = 2
_ABANDONED_AFTER = 48 * 3600
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """The pixels of a listing."""

    pixels: NDArray[Any]
    """`(n, channels, side, side)`, a read-only memory map; rows of skipped files are black."""
    skipped: dict[int, str]
    """Position and reason of each file that could not be read."""
    fingerprint: str


def cache_root(cache: Path | None = None) -> Path:
    """`cache` if given, else the environment's KONTRAST_CACHE, else the user's cache folder."""
    if cache is not None:
        return cache
    chosen = os.environ.get("KONTRAST_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kontrast"


def decoded(
    listing: FileListing, *, size: int | None, channels: int | None, max_unreadable: float, cache: Path | None = None
) -> Decoded:
    """The pixels of a listing, from the cache or decoded into it.

    Raises:
        InputError: Too many files are unreadable, an image is smaller than the crop, or the cache cannot be written.
    """
    root = cache_root(cache)
    memo = root / "memo" / _listing_digest(listing, size, channels)
    folder = _remembered(memo, root)
    if folder is None:
        folder = _found_or_decoded(listing, root, size=size, channels=channels, max_unreadable=max_unreadable)
        _write_text(memo, folder.name)
    found = _load(folder)
    refuse_too_many(_named(listing, found.skipped), len(listing.names), max_unreadable)
    return found


def _found_or_decoded(
    listing: FileListing, root: Path, *, size: int | None, channels: int | None, max_unreadable: float
) -> Path:
    scans = scan(listing.paths)
    skipped = {position: entry.reason for position, entry in enumerate(scans) if entry.header is None}
    refuse_too_many(_named(listing, skipped), len(listing.names), max_unreadable)
    headers = {name: entry.header for name, entry in zip(listing.names, scans, strict=True) if entry.header is not None}
    layout = plan(headers, size=size, channels=channels, background=listing.background)
    folder = root / "images" / _content_key(listing, scans, layout)
    if not (folder / "index.json").is_file():
        shape = (len(listing.names), layout.channels, layout.store, layout.store)
        needed = int(np.prod(shape)) * np.dtype(layout.dtype).itemsize
        with explained(root, needed, "the decoded images"), replacing(folder) as temporary:
            _write(listing, scans, layout, temporary / "pixels.npy", shape)
    return folder


def _write(listing: FileListing, scans: list[Scan], layout: Layout, target: Path, shape: tuple[int, ...]) -> None:
    """Decodes into `target` and writes `index.json` beside it."""
    pixels = _allocated(target, shape, layout.dtype)
    positions = [position for position, entry in enumerate(scans) if entry.header is not None]
    work = partial(_decode_into, pixels, listing.paths, layout)
    reasons = list(in_threads(work, positions, title="Decoding images"))
    skipped = {position: entry.reason for position, entry in enumerate(scans) if entry.header is None}
    skipped |= {position: reason for position, reason in zip(positions, reasons, strict=True) if reason}
    kept = np.array([position for position in positions if position not in skipped], dtype=np.int64)
    index = {
        "version": VERSION,
        "skipped": sorted(skipped.items()),
        "fingerprint": fingerprint(pixels, kept, tuple(listing.names[position] for position in kept)),
    }
    pixels.flush()
    target.with_name("index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _decode_into(pixels: NDArray[Any], paths: Sequence[Path], layout: Layout, position: int) -> str:
    """Decodes one file into its row and returns "", or the reason why it could not be."""
    try:
        image = decode(paths[position].read_bytes(), layout)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds, from SyntaxError to struct.error, for damaged files
        return why_unreadable(error)
    pixels[position] = image
    return ""


def _load(folder: Path) -> Decoded:
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    pixels = np.asarray(np.load(folder / "pixels.npy", mmap_mode="r"))
    return Decoded(pixels=pixels, skipped=dict(index["skipped"]), fingerprint=index["fingerprint"])


def _allocated(path: Path, shape: tuple[int, ...], dtype: str) -> np.memmap[Any, Any]:
    """A new memory map whose space is really there: writing to a sparse one on a full disk would kill the process."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    assert isinstance(pixels, np.memmap)
    return pixels


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
            if not (folder / "index.json").is_file():  # else another process finished the same images first
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


def _content_key(listing: FileListing, scans: list[Scan], layout: Layout) -> str:
    files = [(name, entry.digest) for name, entry in zip(listing.names, scans, strict=True)]
    return _digest([VERSION, layout.store, layout.channels, layout.dtype, layout.background, files])


def _listing_digest(listing: FileListing, size: int | None, channels: int | None) -> str:
    states = []
    for path, name in zip(listing.paths, listing.names, strict=True):
        try:
            state = path.stat()
            states.append((str(path), name, state.st_size, state.st_mtime_ns))
        except OSError:
            states.append((str(path), name, -1, -1))
    return _digest([VERSION, size, channels, listing.background, states])


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()


def _remembered(memo: Path, root: Path) -> Path | None:
    try:
        folder = root / "images" / memo.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return folder if (folder / "index.json").is_file() else None


def _write_text(path: Path, text: str) -> None:
    """Atomic; a memo that cannot be written costs a second reading of the files and nothing else."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="ascii")
        os.replace(temporary, path)


def _named(listing: FileListing, skipped: dict[int, str]) -> list[tuple[str, str]]:
    return [(listing.names[position], reason) for position, reason in skipped.items()]
