"""What the manifest says of a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kontrast.data.arrays import ArrayListing
from kontrast.data.folder import FileListing
from kontrast.data.sources import Source
from kontrast.data.unpack import Selection


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """One file of a package, or all files that match a pattern, and their digest."""

    member: str
    """Path below the pack's root; `*` stands for any characters, `/` too."""
    digest: str
    """SHA-256 (hex), or MD5 where the publisher gives no other.

    Of a file: of its content, decompressed where the name ends in .gz (but not .tar.gz). Of a pattern: of the lines
    "path SHA-256" of its files, sorted.
    """
    but: tuple[str, ...] = ()
    """Patterns of files that the pattern leaves out."""
    what: str = ""
    """What the file holds, in words."""

    @property
    def selection(self) -> Selection:
        """Which files these are, below the pack's root."""
        return Selection(self.member, self.but)

    @property
    def is_pattern(self) -> bool:
        """Whether these are all files that match, however many."""
        return "*" in self.member


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Files that come from one package."""

    sources: tuple[Source, ...]
    """Tried in this order."""
    files: tuple[Pinned, ...]
    root: str = ""
    """Folder inside the package; what lies below it lies below the sample's folder in the cache."""
    into: str = ""
    """Sub-folder of the sample's folder in the cache."""

    @property
    def wanted(self) -> tuple[Selection, ...]:
        """The files, by their paths inside the package."""
        prefix = f"{self.root}/" if self.root else ""
        return tuple(
            Selection(prefix + file.member, tuple(prefix + pattern for pattern in file.but)) for file in self.files
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a sample is, who made it, and where its files come from."""

    kind: str
    """images, volumes, masks, DICOM, reports or weights."""
    title: str
    count: int
    """Images that open as one set, else files."""
    licence: str
    citation: str
    caveat: str
    """What it must not be used to claim."""
    megabytes: float
    """Size of the download."""
    packs: tuple[Pack, ...]
    origin: str = ""
    """Family whose members show the same objects, so that one must not test what another trained; "" for its own."""
    styles: tuple[str, ...] = ()
    """Folders that show the same objects in the same order, each a set by itself: a split of one is that of all."""
    prepare: Callable[[Path], None] | None = None
    """Writes tables into the folder of verified files, once."""
    build: Callable[[Path], ArrayListing | FileListing] | None = None
    """Opens the folder as a set of images; None where it is none."""
