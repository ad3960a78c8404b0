"""Take chosen files out of an archive or a folder, and nothing else: no links, no path that leads out of the target."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import IO

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, EOFError, NotImplementedError, KeyError)
"""What damaged archives raise; an OSError is the disk's, and goes on."""


class SourceError(Exception):
    """A source that does not have the files; the next one is tried."""


@dataclass(frozen=True)
class Selection:
    """A file by its path, or all files that match a pattern, in which `*` stands for any characters, `/` too."""

    pattern: str
    but: tuple[str, ...] = ()
    """Patterns of files to leave out."""

    def matches(self, path: str) -> bool:
        """Whether the file of that path, with `/` on every system, is wanted."""
        return fnmatchcase(path, self.pattern) and not any(fnmatchcase(path, pattern) for pattern in self.but)


def unpack_zip(archive: Path, wanted: Sequence[Selection], into: Path) -> None:
    """Writes the files wanted of a zip (a wheel is one) below `into`, under their paths in it.

    Raises:
        SourceError: Not a zip, a path that leads out of it, or a selection that matches nothing.
    """
    chosen = _Chosen(wanted, into)
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if _is_file(entry) and chosen.wants(entry.filename):
                    with opened.open(entry) as content:
                        chosen.write(entry.filename, content)
    except _DAMAGED as error:
        raise SourceError(f"the zip cannot be read: {error}") from error
    chosen.refuse_missing()


def unpack_tar(archive: IO[bytes], wanted: Sequence[Selection], into: Path) -> None:
    """Writes the files wanted of a tar, compressed or not, below `into`; it is read once, from front to end.

    Raises:
        SourceError: As `unpack_zip`.
    """
    chosen = _Chosen(wanted, into)
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as opened:
            for entry in opened:
                name = entry.name.removeprefix("./")
                if entry.isreg() and chosen.wants(name):
                    content = opened.extractfile(entry)
                    assert content is not None, "a regular file has content"
                    chosen.write(name, content)
    except _DAMAGED as error:
        raise SourceError(f"the tar cannot be read: {error}") from error
    chosen.refuse_missing()


def copy_files(root: Path, wanted: Sequence[Selection], into: Path) -> None:
    """Copies the files wanted below `root` to below `into`; a link that leads out of `root` is not taken.

    Raises:
        SourceError: As `unpack_zip`.
    """
    chosen = _Chosen(wanted, into)
    for path in _candidates(root, wanted):
        name = path.relative_to(root).as_posix()
        is_inside = path.is_file() and path.resolve().is_relative_to(root.resolve())
        if is_inside and chosen.wants(name):
            with path.open("rb") as content:
                chosen.write(name, content)
    chosen.refuse_missing()


def leads_out(name: str) -> bool:
    """Whether the path of a file in an archive may lead out of the folder that it is unpacked in, on some system."""
    return name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name


def _candidates(root: Path, wanted: Sequence[Selection]) -> list[Path]:
    """Files that may be wanted: of a pattern, all below the last folder that it names outright."""
    found = set()
    for selection in wanted:
        fixed = selection.pattern.partition("*")[0]
        found |= {root / fixed} if fixed == selection.pattern else set((root / fixed.rpartition("/")[0]).rglob("*"))
    return sorted(found)


class _Chosen:
    """Writes what is wanted, and keeps account of what was found."""

    def __init__(self, wanted: Sequence[Selection], into: Path) -> None:
        self.wanted, self.into = wanted, into
        self.missing = set(wanted)

    def wants(self, name: str) -> bool:
        """Whether any selection matches.

        Raises:
            SourceError: One does, and the path leads out of the archive.
        """
        matching = {selection for selection in self.wanted if selection.matches(name)}
        if matching and leads_out(name):
            raise SourceError(f"files stay below the folder that they are unpacked in; the archive has {name}")
        self.missing -= matching
        return bool(matching)

    def write(self, name: str, content: IO[bytes]) -> None:
        path = self.into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)

    def refuse_missing(self) -> None:
        if self.missing:
            raise SourceError(f"it has no file {sorted(selection.pattern for selection in self.missing)[0]}")


def _is_file(entry: zipfile.ZipInfo) -> bool:
    """Neither a folder nor a link; a zip keeps the mode of the file in the upper half of its attributes."""
    mode = entry.external_attr >> 16
    return not entry.is_dir() and (mode == 0 or stat.S_IFMT(mode) in (0, stat.S_IFREG))
