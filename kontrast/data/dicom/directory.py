"""The files that the DICOMDIR of a medium lists."""

from __future__ import annotations

import os
from pathlib import Path

from kontrast.data.dicom.file import DicomError, guarded, opened, require_pydicom
from kontrast.data.dicom.header import items, text
from kontrast.data.dicom.rules import class_of
from kontrast.errors import InputError

_DIRECTORY = "1.2.840.10008.1.3.10"


def list_dicomdir(path: Path) -> tuple[Path, ...]:
    """The files that a DICOMDIR references, sorted, each once; names match whatever their case.

    Only the records themselves are read, not the order that their offsets give them. A name that leads out of the
    folder is passed over; one that is not there is listed all the same, so that its absence shows.

    Raises:
        InputError: It is no DICOMDIR, names no file, or pydicom is not installed.
    """
    require_pydicom()
    try:
        names = guarded(lambda: _names(path), "its records cannot be read")
    except DicomError as error:
        raise InputError(f"a DICOMDIR lists the files of a medium; {path} does not, {error}: give its folder") from None
    folder = path.parent.resolve()
    listings: dict[Path, dict[str, str]] = {}
    found = {_located(folder, name, listings) for name in names} - {None}
    if not found:
        raise InputError(f"a DICOMDIR names files in its own folder; {path} names none: give the folder instead")
    return tuple(sorted(file for file in found if file is not None))


def _names(path: Path) -> set[tuple[str, ...]]:
    """The parts of every name in the records."""
    dataset, _ = opened(path, ("SOPClassUID", "DirectoryRecordSequence"), pixels=False)
    if class_of(dataset) != _DIRECTORY and "DirectoryRecordSequence" not in dataset:
        raise DicomError("it has no records")
    names = (text(record, "ReferencedFileID") for record in items(dataset, "DirectoryRecordSequence"))
    return {tuple(name.split("\\")) for name in names if name}


def _located(folder: Path, name: tuple[str, ...], listings: dict[Path, dict[str, str]]) -> Path | None:
    """The file of a name in the folder; None where the name leads out of it."""
    if any(part.strip() in ("", ".", "..") or set(part) & set("/\\:\0") for part in name):
        return None
    place = folder
    for part in name:
        place /= _listed(place, listings).get(part.casefold(), part)
    return place if place.resolve().is_relative_to(folder) else None


def _listed(folder: Path, listings: dict[Path, dict[str, str]]) -> dict[str, str]:
    """The names in a folder by their folded case."""
    if folder not in listings:
        try:
            listings[folder] = {name.casefold(): name for name in sorted(os.listdir(folder))}
        except OSError:
            listings[folder] = {}
    return listings[folder]
