"""Named samples: a manifest of real data that others publish, fetched on request and verified before use.

Kontrast redistributes none of it. A sample is read from the cache, or from the first of its sources that has the files:

    <root>/samples/<name>/...       its files, complete and verified or not there at all
"""

from __future__ import annotations

import difflib
import os
import tempfile
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kontrast.data.arrays import ArrayListing
from kontrast.data.cache import cache_root, explained, replacing
from kontrast.data.folder import FileListing, list_file, list_folder
from kontrast.data.samples import medmnist
from kontrast.data.samples.manifest import SAMPLES
from kontrast.data.samples.sample import Pack, Sample
from kontrast.data.samples.verify import check, has_receipt, members, verify, write_receipt
from kontrast.data.sources import Source
from kontrast.data.unpack import SourceError
from kontrast.errors import InputError

__all__ = [
    "PREFIX", "SAMPLES", "Row", "Sample", "check_apart", "fetch", "files", "find", "folder_of", "listing", "medmnist",
    "open_sample",
]  # fmt: skip

PREFIX = "sample:"
"""What the name of a sample follows where data are named."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of `kontrast data list`."""

    name: str
    sample: Sample
    is_cached: bool


def listing(cache: Path | None = None) -> list[Row]:
    """All samples, by kind and name; those of MedMNIST+ are in `medmnist.NAMES`."""
    rows = [
        Row(name=name, sample=sample, is_cached=folder_of(name, cache).is_dir()) for name, sample in SAMPLES.items()
    ]
    kinds = list(dict.fromkeys(row.sample.kind for row in rows))
    return sorted(rows, key=lambda row: (kinds.index(row.sample.kind), row.name))


def open_sample(name: str, cache: Path | None = None) -> ArrayListing | FileListing:
    """A sample as a set of images.

    As NAME/STYLE it is those of one style, as NAME/FILE one of its volumes, and as NAME/FOLDER the images of one of its
    folders, with nothing else known of them.

    Raises:
        InputError: It is no set of images, there is no such file, or as `fetch`.
    """
    name, slash, inside = name.partition("/")
    if slash and inside in find(name).styles:
        return _style(name, inside, cache)
    if slash:
        return _inside(name, inside, cache)
    sample = find(name)
    if sample.build is None:
        there = folder_of(name, cache)
        where = there if there.is_dir() else f"{there} after `kontrast data get {name}`"
        raise InputError(
            f"data must be images; sample {name} holds {sample.kind}, which are no set of images that can be opened: "
            f"its files are in {where}, and volumes and folders of images open as {PREFIX}{name}/FILE"
        )
    return sample.build(fetch(name, cache))


def _style(name: str, style: str, cache: Path | None) -> FileListing:
    """The images of one style, with all that is known of them."""
    build = find(name).build
    assert build is not None, "what has styles is a set of images"
    whole = build(fetch(name, cache))
    assert isinstance(whole, FileListing), "styles are folders"
    rows = [row for row, path in enumerate(whole.names) if path.startswith(f"{style}/")]
    return replace(whole.take(np.array(rows)), name=f"{PREFIX}{name}/{style}")


def _inside(name: str, inside: str, cache: Path | None) -> FileListing:
    """The images of a file or folder of a sample; "." is the whole folder."""
    folder = fetch(name, cache)
    path = folder / inside
    if not path.resolve().is_relative_to(folder.resolve()) or not path.exists():
        known = ", ".join(sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")))
        raise InputError(
            f"a file of a sample is one of its own; {name} has no {inside!r}: choose from "
            f"{textwrap.shorten(known, 200)}"
        )
    found = list_folder(path) if path.is_dir() else list_file(path)
    return replace(found, name=f"{PREFIX}{name}/{inside}")


def find(name: str) -> Sample:
    """The sample of that name.

    Raises:
        InputError: There is none; names near ones. Or it is of MedMNIST+, whose package is not installed.
    """
    if name in SAMPLES:
        return SAMPLES[name]
    if medmnist.is_name(name):
        return medmnist.sample(name)
    near = difflib.get_close_matches(name, [*SAMPLES, *medmnist.NAMES], n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`kontrast data list` shows them"
    raise InputError(f"a sample is one of {', '.join(sorted(SAMPLES))} or of MedMNIST+; there is no {name!r}: {hint}")


def files(name: str, cache: Path | None = None) -> dict[str, Path]:
    """The verified files of a sample, fetched if need be: absolute paths by path relative to the sample's folder.

    Raises:
        InputError: As `fetch`.
    """
    folder = fetch(name, cache).absolute()
    found = [path for pack in find(name).packs for path in members(pack, folder / pack.into)]
    return {path.relative_to(folder).as_posix(): path for path in found}


def fetch(name: str, cache: Path | None = None) -> Path:
    """The folder of a sample's verified files; what was not in the cache is now.

    Raises:
        InputError: No such sample, no source has it, a file is not the one of the manifest, or no space for it.
    """
    sample, folder = find(name), folder_of(name, cache)
    if not folder.is_dir():
        needed = round(3e6 * sample.megabytes + 2e7)  # the package, and what comes out of it
        with explained(folder.parent, needed, f"the files of sample {name}"), replacing(folder) as temporary:
            for pack in sample.packs:
                _take(name, pack, temporary)
            _prepare(sample, temporary)
    elif not has_receipt(sample, folder):
        verify(sample, folder)
        _prepare(sample, folder)
    return folder


def folder_of(name: str, cache: Path | None = None) -> Path:
    """Where the files of a sample are, once they are fetched."""
    return cache_root(cache) / "samples" / name


def check_apart(first: str, second: str) -> None:
    """Refuses two samples that show the same objects on two sides of an experiment; other data pass.

    Args:
        first: Data as `--data` and `config.yaml` name them, such as "sample:digits-5k".
        second: Other data; the same name again passes, since a sample's own split keeps its images apart, and so does
            another style of it, since that has the same split.

    Raises:
        InputError: They are two samples of one origin.
    """
    if first == second or not (first.startswith(PREFIX) and second.startswith(PREFIX)):
        return
    if is_other_style(first, second):
        return
    names = [data.removeprefix(PREFIX) for data in (first, second)]
    origins = {_origin(name) for name in names}
    if len(origins) == 1:
        raise InputError(
            f"{names[0]} and {names[1]} hold the same images or subjects ({origins.pop()}), so one cannot train and "
            "the other test: use one of them for both, whose own split keeps them apart, or data of another origin"
        )


def is_other_style(first: str, second: str) -> bool:
    """Whether both are styles of one sample, such as "sample:emoji/google" and "sample:emoji/twitter"."""
    if first == second or not (first.startswith(PREFIX) and second.startswith(PREFIX)):
        return False
    names = [data.removeprefix(PREFIX) for data in (first, second)]
    return _is_style(names[0]) and _is_style(names[1]) and _origin(names[0]) == _origin(names[1])


def _is_style(name: str) -> bool:
    name, _, inside = name.partition("/")
    return name in SAMPLES and inside in SAMPLES[name].styles


def _origin(name: str) -> str:
    name = name.partition("/")[0]
    known = SAMPLES.get(name)
    return (known.origin if known else medmnist.origin(name)) or name


def _take(name: str, pack: Pack, folder: Path) -> None:
    """Moves the files of a pack, from the first source that has them, into the sample's new folder."""
    failures = []
    for source in pack.sources:
        with tempfile.TemporaryDirectory(dir=folder) as taken:
            try:
                source.take(pack.wanted, Path(taken))
            except SourceError as error:
                failures.append(f"{source} ({error})")
                continue
            _move(pack, source, Path(taken, pack.root), folder / pack.into)
            return
    raise InputError(
        f"sample {name} must come from one of its sources; none had it: {'; '.join(failures)}: "
        "connect to a network, install the client that is missing, or use a copy of your own"
    )


def _move(pack: Pack, source: Source, taken: Path, target: Path) -> None:
    for file in pack.files:
        check(file, taken, f"{file.member} from {source}", "fetch it anew")
    target.mkdir(parents=True, exist_ok=True)
    for path in taken.iterdir():
        os.replace(path, target / path.name)


def _prepare(sample: Sample, folder: Path) -> None:
    if sample.prepare is not None:
        sample.prepare(folder)
    write_receipt(sample, folder)
