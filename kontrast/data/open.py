"""Data of any kind, by a path, a name or an object, as one `ImageSet`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kontrast.data import table
from kontrast.data.annotations import Annotations
from kontrast.data.arrays import ArrayListing, arranged, list_npz, read_dataset
from kontrast.data.cache import decoded
from kontrast.data.folder import FileListing, list_folder
from kontrast.data.images import ImageSet, fingerprint
from kontrast.data.samples import PREFIX, SAMPLES, open_sample
from kontrast.errors import InputError

READERS: dict[str, Callable[[Path], FileListing | ArrayListing]] = {
    ".csv": table.list_table,
    ".tsv": table.list_table,
    ".parquet": table.list_table,
    ".npz": list_npz,
}
"""How a file is read, by its suffix."""
_log = logging.getLogger("kontrast")


def open(
    source: str | Path | ImageSet | Iterable[Any],
    *,
    labels: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    max_unreadable: float = 0.01,
    cache: str | Path | None = None,
) -> ImageSet:
    """Opens images, decoded once into a cache on disk, or read into memory where they are arrays.

    Every image becomes a square of one side: the longest side found, but at most 8/7 of `size` (256 without).
    Smaller images are centred on black (samples of drawings on white), larger ones scaled down with their aspect kept;
    small squares stay as they are.

    Args:
        source: A folder (sub-folders are classes, or train/validation/test and then classes), a `.csv` or `.parquet`
            table, an `.npz` of arrays, `sample:NAME`, an `ImageSet` (returned as it is), or a torch `Dataset` or
            sequence that yields image tensors or pairs of one and a label.
        labels: A table for a folder: `path`, `label` (or `label:NAME` columns of 0 and 1), maybe `group` and `split`.
            Its paths are relative to the table or to the folder. Images that it does not name have no label.
        size: Side of the crop that the encoder will see.
        channels: 1 or 3; None keeps what the files have (1 if all are grey).
        max_unreadable: Share of the files that may be unreadable; they are named in the log and skipped.
        cache: Folder of the cache, else the environment's KONTRAST_CACHE or the user's cache folder.

    Raises:
        InputError: Anything about the data that cannot be used.
    """
    if isinstance(source, ImageSet):
        return source
    if channels not in (None, 1, 3):
        raise InputError(
            f"images have 1 or 3 channels; got {channels}: choose one of them, or none to keep what the files have"
        )
    if size is not None and size < 1:
        raise InputError(
            f"the side of the crop is at least 1 px; got {size}: choose the size that the encoder is to see"
        )
    root = None if cache is None else Path(cache)
    found = _listing(source, root)
    if labels is not None:
        found = _labelled(found, source, Path(labels))
    if isinstance(found, ArrayListing):
        return _from_arrays(found, size=size, channels=channels)
    return _from_files(found, size=size, channels=channels, max_unreadable=max_unreadable, cache=root)


def _listing(source: str | Path | Iterable[Any], cache: Path | None) -> FileListing | ArrayListing:
    if isinstance(source, str) and source.startswith(PREFIX):
        return open_sample(source.removeprefix(PREFIX), cache)
    if isinstance(source, str | Path):
        return _from_path(Path(source).expanduser())
    if isinstance(source, Iterable) or (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return read_dataset(source, name=type(source).__name__)
    raise InputError(
        f"data are a path, sample:NAME, or something that yields images; got {type(source).__name__}: "
        "pass a folder, a table, an .npz or a torch Dataset"
    )


def _from_path(path: Path) -> FileListing | ArrayListing:
    if path.is_file():
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise InputError(
                f"a data file is one of {' '.join(READERS)}; got {path}: pass the folder that holds it, or convert it"
            )
        return reader(path)
    if not path.exists() and str(path) in SAMPLES:
        raise InputError(
            f"data must be an existing folder or file; there is no {path}: for the sample, write {PREFIX}{path}"
        )
    return list_folder(path)


def _labelled(found: FileListing | ArrayListing, source: object, labels: Path) -> FileListing:
    root = Path(source).expanduser() if isinstance(source, str | Path) else None
    if root is None or not root.is_dir() or isinstance(found, ArrayListing):
        raise InputError(
            f"a table of labels goes with a folder of images; got {labels} beside {found.name}: leave it out, "
            "since tables and arrays bring their own labels"
        )
    return table.attach(found, labels.expanduser(), root)


def _from_arrays(found: ArrayListing, *, size: int | None, channels: int | None) -> ImageSet:
    pixels = arranged(found, size=size, channels=channels)
    pixels.flags.writeable = False
    rows = np.arange(len(pixels))
    return _image_set(found.name, found.annotations, found.names, pixels, fingerprint(pixels, rows, found.names))


def _from_files(
    found: FileListing, *, size: int | None, channels: int | None, max_unreadable: float, cache: Path | None
) -> ImageSet:
    content = decoded(found, size=size, channels=channels, max_unreadable=max_unreadable, cache=cache)
    everything = _image_set(found.name, found.annotations, found.names, content.pixels, content.fingerprint)
    if not content.skipped:
        return everything
    skipped = tuple((found.names[position], reason) for position, reason in content.skipped.items())
    _log.warning(
        "%d of %d images could not be read and are skipped: %s",
        len(skipped),
        len(found.names),
        "; ".join(f"{name} ({reason})" for name, reason in skipped),
    )
    kept = np.setdiff1d(np.arange(len(found.names)), list(content.skipped))
    return replace(everything.take(kept), skipped=skipped)


def _image_set(name: str, known: Annotations, names: tuple[str, ...], pixels: Any, digest: str) -> ImageSet:
    return ImageSet(
        name=name,
        pixels=pixels,
        rows=np.arange(len(names)),
        names=names,
        labels=known.labels,
        classes=known.classes,
        groups=known.groups,
        parts=known.parts,
        skipped=(),
        fingerprint=digest,
    )
