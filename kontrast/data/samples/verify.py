"""Whether files are those of the manifest, and a receipt so that they need not be read again each time.

The receipt, `index.json`, holds sizes and times of verified files. While these stay the same the files are trusted, as
the cache of decoded images trusts its sources; when one has changed, all are hashed again.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

from kontrast.data.samples.sample import Pack, Pinned, Sample
from kontrast.errors import InputError

RECEIPT = "index.json"
_VERSION = 1
"""Of the tables that are made of the files; they are made anew when it changes."""
_ALGORITHMS = {64: "sha256", 32: "md5"}
"""By the length of the digest in hex."""
_SHOWN = {"sha256": "SHA-256", "md5": "MD5"}


def verify(sample: Sample, folder: Path) -> None:
    """Hashes every file of a sample.

    Raises:
        InputError: One is not that of the manifest; names both digests.
    """
    for pack in sample.packs:
        for file in pack.files:
            check(file, folder / pack.into, f"{folder / pack.into / file.member}", f"remove {folder} and fetch it anew")


def check(file: Pinned, root: Path, origin: str, way_out: str) -> None:
    """Compares what lies below `root` with what is pinned.

    Raises:
        InputError: It is missing or another; names both digests, and `way_out`.
    """
    algorithm = _ALGORITHMS[len(file.digest)]
    found = _of_set(file, root) if file.is_pattern else _of_file(root / file.member, algorithm, origin, way_out)
    if found != file.digest:
        raise InputError(
            f"{origin} must have {_SHOWN[algorithm]} {file.digest}, and has {found}, so it is not used: "
            f"{way_out}, and report it if that does not help"
        )


def members(pack: Pack, root: Path) -> list[Path]:
    """The files of a pack below `root`, sorted."""
    found = {path for file in pack.files for path in _matching(file, root)}
    return sorted(found)


def write_receipt(sample: Sample, folder: Path) -> None:
    """Notes sizes and times of everything in the folder; if it cannot be written, files are hashed again next time."""
    states = {path.relative_to(folder).as_posix(): _state(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    states.pop(RECEIPT, None)
    temporary = folder / f".{RECEIPT}.{os.getpid()}"
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps({"pins": _pins(sample), "files": states}, indent=0), encoding="utf-8")
        os.replace(temporary, folder / RECEIPT)


def has_receipt(sample: Sample, folder: Path) -> bool:
    """Whether all files are as they were when they were verified against these pins."""
    try:
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        return receipt["pins"] == _pins(sample) and all(
            _state(folder / name) == state for name, state in receipt["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _of_file(path: Path, algorithm: str, origin: str, way_out: str) -> str:
    unpack = path.name.endswith(".gz") and not path.name.endswith(".tar.gz")
    try:
        with gzip.open(path) if unpack else path.open("rb") as content:
            return hashlib.file_digest(content, algorithm).hexdigest()
    except FileNotFoundError:
        return "no content, since there is no such file"
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path.name} must be a gzip file; {origin} is not ({error}): {way_out}") from error


def _of_set(file: Pinned, root: Path) -> str:
    digest = hashlib.sha256()
    for path in _matching(file, root):
        with path.open("rb") as content:
            of_one = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {of_one}\n".encode())
    return digest.hexdigest()


def _matching(file: Pinned, root: Path) -> list[Path]:
    """In the order of their relative paths, by code point on every system."""
    if not file.is_pattern:
        return [root / file.member]
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return [found[name] for name in sorted(found) if file.selection.matches(name)]


def _pins(sample: Sample) -> str:
    """Changes with the manifest and with the tables that are made of the files."""
    pins: list[Any] = [[pack.into, file.member, file.but, file.digest] for pack in sample.packs for file in pack.files]
    return hashlib.sha256(json.dumps([_VERSION, pins]).encode()).hexdigest()


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
