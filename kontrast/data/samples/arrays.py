"""Samples that are arrays: digits, clothing, and the tiny photographs of CIFAR."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kontrast.data.annotations import Annotations
from kontrast.data.arrays import ArrayListing

DIGITS = tuple(str(digit) for digit in range(10))
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def digits(folder: Path) -> ArrayListing:
    """`mnist_5k.csv.gz`: rows of 784 pixels and a label; a fifth of each class tests."""
    with gzip.open(folder / "mnist_5k.csv.gz") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    labels = table[:, -1].astype(np.int64)
    return ArrayListing(
        name="sample:digits-5k",
        names=tuple(f"digit/{row}" for row in range(len(table))),
        pixels=table[:, :-1].reshape(-1, 28, 28, 1),
        annotations=Annotations(labels=labels, classes=DIGITS, parts=fixed_parts(labels, "digits-5k", 0.2)),
    )


def mnist(folder: Path) -> ArrayListing:
    """`0.json` to `9.json`, grey values 0..1 of one digit each; in a fixed order, and a fifth of each class tests."""
    blocks = [np.asarray(json.loads((folder / f"{digit}.json").read_bytes())["data"]) for digit in DIGITS]
    images = [np.rint(block * 255).astype(np.uint8).reshape(-1, 28, 28, 1) for block in blocks]
    labels = np.repeat(np.arange(10), [len(block) for block in images])
    order = np.array(sorted(range(len(labels)), key=lambda row: _digest("mnist-10k", row)))
    labels = labels[order]
    return ArrayListing(
        name="sample:mnist-10k",
        names=tuple(f"digit/{row}" for row in range(len(labels))),
        pixels=np.concatenate(images)[order],
        annotations=Annotations(labels=labels, classes=DIGITS, parts=fixed_parts(labels, "mnist-10k", 0.2)),
    )


def fashion(folder: Path) -> ArrayListing:
    """Two idx files of images and two of labels."""
    images, labels = [], []
    for part in ("train", "t10k"):
        pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
        images.append(np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28, 1))
        codes = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
        labels.append(np.frombuffer(codes, np.uint8, offset=8))
    return _train_and_test("fashion-mnist", images, labels, FASHION)


def cifar10(folder: Path) -> ArrayListing:
    """`cifar-10-binary.tar.gz`: records of a label and 32 x 32 pixels in planes of red, green and blue."""
    batches = [f"data_batch_{number}.bin" for number in range(1, 6)]
    return _cifar("cifar10", folder / "cifar-10-binary.tar.gz", batches, ["test_batch.bin"], "batches.meta.txt", 1)


def cifar100(folder: Path) -> ArrayListing:
    """`cifar-100-binary.tar.gz`: records of a coarse label, a fine one (which is read), and pixels as CIFAR-10's."""
    archive = folder / "cifar-100-binary.tar.gz"
    return _cifar("cifar100", archive, ["train.bin"], ["test.bin"], "fine_label_names.txt", 2)


def fixed_parts(labels: NDArray[np.int64], salt: str, share: float) -> NDArray[np.str_]:
    """A stratified split `(n,)` that never changes: the order is that of SHA-256, of no library's random numbers."""
    parts = np.full(len(labels), "train", dtype="<U10")
    for code in np.unique(labels):
        rows = sorted(np.flatnonzero(labels == code).tolist(), key=lambda row: _digest(salt, row))
        parts[rows[: round(share * len(rows))]] = "test"
    return parts


def _digest(salt: str, row: int) -> bytes:
    return hashlib.sha256(f"{salt}/{row}".encode()).digest()


def _cifar(name: str, archive: Path, train: list[str], test: list[str], names: str, num_labels: int) -> ArrayListing:
    """The last of `num_labels` leading bytes of each record is the label."""
    content = _members(archive, {*train, *test, names})
    images, labels = [], []
    for part in (train, test):
        records = np.frombuffer(b"".join(content[file] for file in part), np.uint8).reshape(-1, num_labels + 3072)
        labels.append(records[:, num_labels - 1])
        images.append(records[:, num_labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return _train_and_test(name, images, labels, tuple(content[names].decode("ascii").split()))


def _members(archive: Path, wanted: set[str]) -> dict[str, bytes]:
    """Content of the files of a tar, by their last names; nothing is written."""
    found = {}
    with tarfile.open(archive, "r:gz") as opened:
        for entry in opened:
            name = entry.name.rpartition("/")[2]
            if name in wanted and entry.isreg() and (content := opened.extractfile(entry)):
                found[name] = content.read()
    assert found.keys() == wanted, "the archive is verified, so it is complete"
    return found


def _train_and_test(
    name: str, images: list[NDArray[np.uint8]], labels: list[NDArray[np.uint8]], classes: tuple[str, ...]
) -> ArrayListing:
    """The publisher's own training and test part, in that order."""
    parts = ["train"] * len(labels[0]) + ["test"] * len(labels[1])
    rows = [*range(len(labels[0])), *range(len(labels[1]))]
    return ArrayListing(
        name=f"sample:{name}",
        names=tuple(f"{part}/{row}" for part, row in zip(parts, rows, strict=True)),
        pixels=np.concatenate(images),
        annotations=Annotations(
            labels=np.concatenate(labels).astype(np.int64), classes=classes, parts=np.array(parts, dtype="<U10")
        ),
    )
