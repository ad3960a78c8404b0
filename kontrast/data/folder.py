"""A folder of images: flat, with a sub-folder for each class, or with train/validation/test above the classes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kontrast.data.annotations import PARTS, Annotations, class_codes, part_names
from kontrast.data.dicom.directory import list_dicomdir
from kontrast.data.formats import SUFFIXES, VOLUME, format_of
from kontrast.errors import InputError

_log = logging.getLogger("kontrast")
_MASK = re.compile(r"[_-](d?seg|masks?|labels?|gt)$")
"""How the names of masks end, beside the volumes they belong to."""


@dataclass(frozen=True, kw_only=True)
class Unpaired:
    """A row of a table, or an image, that is left out since it lacks its image or text."""

    name: str
    """Of the image, as it is shown."""
    reason: str
    """In a few words, the same for all that lack the same."""
    where: str = ""
    """The row, such as "line 7"; "" for an image of a folder."""

    def __str__(self) -> str:
        return f"{self.where} ({self.name})" if self.where not in ("", self.name) else self.name


@dataclass(frozen=True, kw_only=True, eq=False)
class FileListing:
    """Image files still to be decoded, sorted by name."""

    name: str
    names: tuple[str, ...]
    """`(n,)` paths as they are shown, relative to the folder or table."""
    paths: tuple[Path, ...]
    """`(n,)` absolute paths."""
    annotations: Annotations
    channels: tuple[tuple[Path, ...], ...] = ()
    """`(n,)` further files of each image, whose content is further channels of it; empty where nothing has any."""
    background: int = 0
    """Brightness, 0..255, around smaller images and behind transparent pixels: black, or white for drawings."""
    where: tuple[str, ...] = ()
    """`(n,)` the row that first names each image, such as "line 7"; empty where there is no table."""
    unpaired: tuple[Unpaired, ...] = ()
    """What a table or folder of pairs holds besides, and why it is left out."""
    dotted: tuple[str, ...] = ()
    """Images and texts in shards that are left out, since their keys hold a dot."""

    def take(self, positions: NDArray[np.int64]) -> FileListing:
        """The images at `positions`."""
        return replace(
            self,
            names=tuple(self.names[position] for position in positions),
            paths=tuple(self.paths[position] for position in positions),
            channels=tuple(self.channels[position] for position in positions) if self.channels else (),
            where=tuple(self.where[position] for position in positions) if self.where else (),
            annotations=self.annotations.take(positions),
        )

    def files(self, position: int) -> tuple[Path, ...]:
        """All files of an image, or of the images of a volume, in the order of their channels."""
        return (self.paths[position], *(self.channels[position] if self.channels else ()))

    def with_row(self, position: int, text: str) -> str:
        """What is said of an image, after the row of the table that names it, if there is one."""
        return f"{self.where[position]}: {text}" if self.where else text

    @property
    def sources(self) -> list[tuple[Path, ...]]:
        """`files` of every position."""
        return [self.files(position) for position in range(len(self.paths))]


def list_folder(root: Path) -> FileListing:
    """All images below `root`; hidden files, files of other kinds and volumes named as masks are left out.

    Raises:
        InputError: The folder is missing or holds no image.
    """
    if not root.is_dir():
        raise InputError(f"data must be an existing folder or file; there is no folder {root}: check the path")
    found = sorted(_image_names(root))
    names = [name for name in found if not _is_mask(root / name)]
    if len(names) < len(found):
        _log.warning(
            "%d of %d files are volumes named as masks (_seg, _mask, _label, _gt) and are left out: name those that "
            "are images in a table",
            len(found) - len(names),
            len(found),
        )
    if not names:
        raise InputError(
            f"a data folder must hold images ({' '.join(SUFFIXES)}); {root} holds none: "
            "point to the folder that does, or to a table or .npz of them"
        )
    return FileListing(
        name=str(root),
        names=tuple(names),
        paths=tuple(root.absolute() / name for name in names),
        annotations=_from_folders([name.split("/")[:-1] for name in names]),
    )


def list_file(path: Path) -> FileListing:
    """One file of an image or of several (a volume, DICOM frames), or the files that a DICOMDIR names.

    Raises:
        InputError: It is no such file.
    """
    if path.name.upper() == "DICOMDIR":
        found = list_dicomdir(path)
    elif format_of(path) is not None:
        found = (path,)
    else:
        raise InputError(
            "a data file is a table (.csv .tsv .parquet), an array (.npz), a picture, a DICOM file, a DICOMDIR or a "
            f"volume; got {path}: pass the folder that holds it, or convert it"
        )
    root = path.absolute().parent
    return FileListing(
        name=str(path),
        names=tuple(file.absolute().relative_to(root).as_posix() for file in found),
        paths=tuple(file.absolute() for file in found),
        annotations=Annotations(),
    )


def _from_folders(folders: list[list[str]]) -> Annotations:
    """Class, and split where there is one, from the folders (outermost first) that each image lies in."""
    outermost = {folder[0] for folder in folders if folder}
    if outermost and all(folder and folder[0].lower() in PARTS for folder in folders):
        parts = part_names([folder[0] for folder in folders], origin="the folder")
        folders = [folder[1:] for folder in folders]
    else:
        parts = None
    labels, classes = class_codes([folder[0] if folder else "" for folder in folders])
    return Annotations(labels=labels, classes=classes, parts=parts)


def _image_names(root: Path) -> Iterator[str]:
    """Relative paths, with `/` on every system; linked folders are followed, each once."""
    seen = {os.path.realpath(root)}
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = [name for name in sorted(below) if not name.startswith(".") and _is_new(Path(folder, name), seen)]
        for name in files:
            if not name.startswith(".") and format_of(Path(folder, name)):
                yield Path(folder, name).relative_to(root).as_posix()


def _is_mask(path: Path) -> bool:
    stem = path.name.lower().removesuffix(".gz").rpartition(".")[0]
    return _MASK.search(stem) is not None and format_of(path) is VOLUME


def _is_new(folder: Path, seen: set[str]) -> bool:
    real, before = os.path.realpath(folder), len(seen)
    seen.add(real)
    return len(seen) > before
