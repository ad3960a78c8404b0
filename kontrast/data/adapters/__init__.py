"""Well-known data sets in the layout of their publishers: `ham10000:FOLDER` opens a user's own copy.

Each adapter knows which files are images and which are masks, what names the patient, lesion or volume that a split
must not cut, what the labels are, and the publisher's split where there is one that cuts no group.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kontrast.data.adapters.chest import iu_xray, kermany, mimic_cxr, nih_chest
from kontrast.data.adapters.skin import ham10000
from kontrast.data.adapters.volumes import acdc, brats, mmwhs
from kontrast.data.folder import FileListing
from kontrast.errors import InputError

ADAPTERS: dict[str, Callable[[Path], FileListing]] = {
    "acdc": acdc,
    "brats": brats,
    "ham10000": ham10000,
    "iu-xray": iu_xray,
    "kermany": kermany,
    "mimic-cxr": mimic_cxr,
    "mmwhs": mmwhs,
    "nih-chest": nih_chest,
}
"""By the name before the colon; the docstring of each tells the layout that it expects."""


def adapted(source: str) -> tuple[str, Path] | None:
    """Name of the adapter and folder of `NAME:FOLDER`; None for anything else."""
    name, colon, folder = source.partition(":")
    return (name, Path(folder).expanduser()) if colon and name in ADAPTERS else None


def list_adapted(name: str, folder: Path) -> FileListing:
    """The images of a data set in its publisher's layout.

    Raises:
        InputError: The folder is missing, or holds nothing of that layout.
    """
    if not folder.is_dir():
        raise InputError(f"{name}: takes the folder of the data set; there is no folder {folder}: check the path")
    return ADAPTERS[name](folder)
