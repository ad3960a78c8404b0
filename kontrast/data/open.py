"""Data of any kind, by a path, a name or an object, as one `ImageSet`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data import table
from kontrast.data.adapters import adapted, list_adapted
from kontrast.data.aliases import Aliases, is_alias
from kontrast.data.annotations import Annotations, alias_codes, group_codes, surest
from kontrast.data.arrays import ArrayListing, arranged, list_npz, read_dataset
from kontrast.data.cache import decoded
from kontrast.data.decoding import Decoded
from kontrast.data.folder import FileListing, list_file, list_folder
from kontrast.data.images import ImageSet, fingerprint
from kontrast.data.pairs import tell, with_texts_beside
from kontrast.data.reading import Reading
from kontrast.data.samples import PREFIX, SAMPLES, open_sample
from kontrast.data.shards import is_shards, list_shards, tell_dotted
from kontrast.data.tabular import Columns
from kontrast.errors import InputError

TABLES = {".csv", ".tsv", ".parquet"}
_log = logging.getLogger("kontrast")


def open(
    source: str | Path | ImageSet | Iterable[Any],
    *,
    labels: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    max_unreadable: float = 0.01,
    reading: Reading | None = None,
    group_pattern: str | None = None,
    alias_paths: bool = False,
    columns: Columns | None = None,
    texts: bool = True,
    cache: str | Path | None = None,
) -> ImageSet:
    """Opens images, decoded once into a cache on disk, or read into memory where they are arrays.

    Groups are those of `group_pattern`, else of the table; images that these leave open are grouped by the patients and
    studies of DICOM files and the subjects or volumes that slices are cut from, together with the images of the same
    patient that have a name. Names are aliases, by a key that lies in the data folder (`.kontrast-key`). Folders that
    hold one such patient or volume each are not taken for classes.

    Every image becomes a square of one side: the longest side found, but at most 8/7 of `size` (256 without).
    Smaller images are centred on black (samples of drawings on white), larger ones scaled down with their aspect kept;
    small squares stay as they are.

    Texts are those of a table's column `text` or `caption` (several rows of an image are several texts of it), or of
    `.txt` files beside the images of a folder or shard. With `texts=False` none is read, so that none can be missing,
    and the images are what they would be if there were no texts.

    Args:
        source: A folder of pictures, DICOM files or volumes (sub-folders are classes, or train/validation/test and then
            classes), one such file or DICOMDIR, a `.csv` or `.parquet` table of files, an `.npz` of arrays, a shard of
            WebDataset (`.tar`) or a folder of them, `sample:NAME`, the folder of a known data set as `NAME:FOLDER` (see
            `adapters`), an `ImageSet` (returned as it is, or without its texts), or a torch `Dataset` or sequence that
            yields image tensors or pairs of one and a label.
        labels: A table for a folder: `path`, `label` (or `label:NAME` columns of 0 and 1), maybe `group` and `split`.
            Its paths are relative to the table or to the folder. Images that it does not name have no label.
        size: Side of the crop that the encoder will see.
        channels: 1 or 3; None keeps what the files have, any number (1 if all are grey).
        max_unreadable: Share of the files that may be unreadable, and of the pairs that may lack their image or text;
            they are named in the log and skipped.
        reading: How DICOM files and volumes become images; None for the defaults.
        group_pattern: Regular expression with one pair of brackets, searched in each file's name: what the brackets
            match names its group. Files in which it finds nothing are groups of their own.
        alias_paths: Whether names of files are replaced by aliases everywhere.
        columns: What the columns of tables are called, where that is not as usual.
        texts: Whether to read texts. If not, the column of texts, `columns.text` and `.txt` files are ignored; several
            rows of an image in a table with such a column are one row then, and every file that it names must exist.
        cache: Folder of the cache, else the environment's KONTRAST_CACHE or the user's cache folder.

    Raises:
        InputError: Anything about the data that cannot be used.
    """
    if isinstance(source, ImageSet):
        return source if texts or source.texts is None else source.with_texts(None)
    if channels is not None and channels < 1:
        raise InputError(
            f"images have at least one channel; got {channels}: choose 1, 3, or none to keep what the files have"
        )
    if size is not None and size < 1:
        raise InputError(
            f"the side of the crop is at least 1 px; got {size}: choose the size that the encoder is to see"
        )
    root = None if cache is None else Path(cache)
    how = reading or Reading()
    how.check()
    found = _listing(source, root, columns or Columns(), texts=texts)
    if labels is not None:
        found = _labelled(found, source, Path(labels), columns)
    is_plain_folder = _data_folder(source) is not None and not adapted(str(source))
    if texts and isinstance(found, FileListing) and (is_plain_folder or is_shards(source)):
        found = with_texts_beside(found, max_unreadable)
    if group_pattern is not None:
        found = replace(found, annotations=_grouped(found, group_pattern))
    aliases = Aliases(_beside(source), root, name=found.name)
    shown = aliases.file if alias_paths else str
    if isinstance(found, ArrayListing):
        images = _from_arrays(found, size=size, channels=channels)
    else:
        tell_dotted(found, shown, texts=texts)
        tell(found, max_unreadable, shown)
        content = decoded(
            found,
            size=size,
            channels=channels,
            how=how,
            aliases=aliases,
            shown=shown,
            max_unreadable=max_unreadable,
            cache=root,
        )
        images = _from_files(found, content, aliases.group, shown)
        if labels is None and is_plain_folder:
            images = _without_folders_of_patients(images)
    return _aliased(images, aliases.group, shown)


def _listing(
    source: str | Path | Iterable[Any], cache: Path | None, columns: Columns, *, texts: bool
) -> FileListing | ArrayListing:
    if isinstance(source, str) and source.startswith(PREFIX):
        found = open_sample(source.removeprefix(PREFIX), cache)
        return found if texts else replace(found, annotations=replace(found.annotations, texts=None))
    if isinstance(source, str) and (known := adapted(source)):
        return list_adapted(*known)
    if isinstance(source, str | Path):
        return _from_path(Path(source).expanduser(), cache, columns, texts=texts)
    if isinstance(source, Iterable) or (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return read_dataset(source, name=type(source).__name__)
    raise InputError(
        f"data are a path, sample:NAME, or something that yields images; got {type(source).__name__}: "
        "pass a folder, a table, an .npz or a torch Dataset"
    )


def _from_path(path: Path, cache: Path | None, columns: Columns, *, texts: bool) -> FileListing | ArrayListing:
    if is_shards(path):
        return list_shards(path, cache)
    if path.is_file() and path.suffix.lower() in TABLES:
        return table.list_table(path, columns, texts=texts)
    if path.is_file():
        return list_npz(path) if path.suffix.lower() == ".npz" else list_file(path)
    if not path.exists() and str(path) in SAMPLES:
        raise InputError(
            f"data must be an existing folder or file; there is no {path}: for the sample, write {PREFIX}{path}"
        )
    return list_folder(path)


def _labelled(found: FileListing | ArrayListing, source: object, labels: Path, columns: Columns | None) -> FileListing:
    root = _data_folder(source)
    if root is None or isinstance(found, ArrayListing):
        raise InputError(
            f"a table of labels goes with a folder of images; got {labels} beside {found.name}: leave it out, "
            "since tables and arrays bring their own labels"
        )
    return table.attach(found, labels.expanduser(), root, columns)


def _grouped(found: FileListing | ArrayListing, pattern: str) -> Annotations:
    """The annotations under the groups that a pattern finds in the names."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"a group pattern is a regular expression; {pattern!r} is none ({error}): write for example 'person(\\d+)'"
        ) from error
    if compiled.groups != 1:
        raise InputError(
            f"a group pattern has one pair of brackets around what names the group; {pattern!r} has "
            f"{compiled.groups}: write for example 'person(\\d+)', and (?:...) for other brackets"
        )
    matches = [compiled.search(name) for name in found.names]
    groups, names = group_codes([match[1] or "" if match else "" for match in matches])
    if groups is None:
        raise InputError(
            f"a group pattern must fit some names; {pattern!r} fits none of the {len(found.names)} of "
            f"{found.name}: it is searched in the path relative to the data folder"
        )
    return replace(found.annotations, groups=groups, group_names=names)


def _data_folder(source: object) -> Path | None:
    """The folder that was named; None for anything else."""
    if not isinstance(source, str | Path) or str(source).startswith(PREFIX):
        return None
    known = adapted(str(source))
    path = known[1] if known else Path(source).expanduser()
    return path if path.is_dir() else None


def _beside(source: object) -> Path | None:
    """The folder where the key of the aliases lies: that of the data, or of their file; None for data without one."""
    if not isinstance(source, str | Path) or str(source).startswith(PREFIX):
        return None
    return _data_folder(source) or Path(source).expanduser().parent


def _from_arrays(found: ArrayListing, *, size: int | None, channels: int | None) -> ImageSet:
    pixels = arranged(found, size=size, channels=channels)
    pixels.flags.writeable = False
    rows = np.arange(len(pixels))
    return _image_set(found.name, found.annotations, found.names, pixels, rows, fingerprint(pixels, rows, found.names))


def _from_files(
    found: FileListing, content: Decoded, alias: Callable[[str], str], shown: Callable[[str], str]
) -> ImageSet:
    """The images of files, each with what is known of its file."""
    skipped, left_out = (
        tuple((found.names[position], found.with_row(position, reason)) for position, reason in reasons.items())
        for reasons in (content.skipped, content.left_out)
    )
    _tell("could not be read and are", skipped, len(found.names), shown)
    _tell("are sound but no images to learn from, so they are", left_out, len(found.names), shown)
    names = tuple(found.names[file] + part for file, part in zip(content.files, content.parts, strict=True))
    known = _with_groups_of_files(found.annotations.take(content.files), content.groups, alias)
    images = _image_set(found.name, known, names, content.pixels, content.rows, content.fingerprint)
    skipped += tuple((row.name, f"{row.where}: {row.reason}" if row.where else row.reason) for row in found.unpaired)
    return replace(images, skipped=skipped, left_out=left_out, facts=content.facts)


def _with_groups_of_files(
    known: Annotations, groups: tuple[tuple[str, ...], ...], alias: Callable[[str], str]
) -> Annotations:
    """Groups of the images that have none yet, by what their files know; names are aliases then."""
    named = [""] * len(groups) if known.groups is None else [known.group_names[code] for code in known.groups]
    if all(named) or not any(groups):
        return known
    keys = [(alias(name), *others) if name else others for name, others in zip(named, groups, strict=True)]
    codes, names = alias_codes(surest(keys))
    return replace(known, groups=codes, group_names=names)


def _without_folders_of_patients(images: ImageSet) -> ImageSet:
    """Without labels, where every folder that would be a class is one patient, subject or volume."""
    if images.labels is None or images.groups is None or images.facts is None:
        return images
    is_one = [len(np.unique(images.groups[images.labels == code])) == 1 for code in range(len(images.classes))]
    if not all(is_one) or not all(images.group_names[code] for code in images.groups):
        return images
    _log.warning(
        "each of the %d folders holds one patient, subject or volume, so folders are not taken for classes: give "
        "labels by a table with --labels",
        len(images.classes),
    )
    return images.with_labels(None, ())


def _tell(what: str, files: Sequence[tuple[str, str]], total: int, shown: Callable[[str], str]) -> None:
    if files:
        named = "; ".join(f"{_printable(shown(name))} ({reason})" for name, reason in files)
        _log.warning("%d of %d files %s skipped: %s", len(files), total, what, named)


def _printable(name: str) -> str:
    """A file's name without characters that would steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _aliased(images: ImageSet, alias: Callable[[str], str], shown: Callable[[str], str]) -> ImageSet:
    """Groups under their aliases, and files too where that is asked for."""
    skipped, left_out = (
        tuple((shown(name), reason) for name, reason in files) for files in (images.skipped, images.left_out)
    )
    return replace(
        images,
        names=tuple(map(shown, images.names)),
        group_names=tuple(name if is_alias(name) else alias(name) for name in images.group_names),
        skipped=skipped,
        left_out=left_out,
    )


def _image_set(
    name: str, known: Annotations, names: tuple[str, ...], pixels: Any, rows: NDArray[np.int64], digest: str
) -> ImageSet:
    return ImageSet(
        name=name,
        pixels=pixels,
        rows=rows,
        names=names,
        labels=known.labels,
        classes=known.classes,
        groups=known.groups,
        group_names=known.group_names,
        parts=known.parts,
        texts=known.texts,
        skipped=(),
        fingerprint=digest,
    )
