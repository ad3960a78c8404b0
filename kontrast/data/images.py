"""ImageSet: decoded images of one size, with what is known of each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kontrast.batch import Batch
from kontrast.data.reading import Header

SCALES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
_BLOCK = 128
_STATISTICS_FROM = 2000


@dataclass(frozen=True, eq=False)
class Facts:
    """What the files said of their images before anything was scaled."""

    table: NDArray[np.float64]
    """`(n, 7)`: height, width, channels, significant bits, distance of rows and of columns in mm (NaN where it is
    unknown), and 1 where the file says that text is burnt in."""

    @classmethod
    def of(cls, headers: Sequence[Header]) -> Facts:
        """The facts of images with these headers."""
        unknown = (math.nan, math.nan)
        rows = [(h.height, h.width, h.channels, h.bits, *(h.spacing or unknown), h.has_burnt_in_text) for h in headers]
        return cls(np.array(rows, dtype=np.float64).reshape(len(rows), 7))

    @property
    def shape(self) -> NDArray[np.int64]:
        """`(n, 2)` height and width in pixels."""
        return self.table[:, :2].astype(np.int64)

    @property
    def channels(self) -> NDArray[np.int64]:
        """`(n,)`."""
        return self.table[:, 2].astype(np.int64)

    @property
    def bits(self) -> NDArray[np.int64]:
        """`(n,)` significant bits of a value."""
        return self.table[:, 3].astype(np.int64)

    @property
    def spacing(self) -> NDArray[np.float64]:
        """`(n, 2)` distance of rows and of columns in mm, NaN where it is unknown."""
        return self.table[:, 4:6]

    @property
    def has_burnt_in_text(self) -> NDArray[np.bool_]:
        """`(n,)` whether the file says that text is burnt into the pixels."""
        return np.asarray(self.table[:, 6] == 1)

    def take(self, positions: NDArray[np.integer[Any]]) -> Facts:
        """The facts of the images at `positions`."""
        return Facts(self.table[positions])


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Decoded images of one size, with what is known of each; subsets share the pixels."""

    name: str
    """What the user called it."""
    pixels: NDArray[Any]
    """`(m, channels, side, side)` uint8, uint16 or float32 in 0..1; usually a memory map, read-only, shared."""
    rows: NDArray[np.int64]
    """`(n,)`, which rows of `pixels` these images are. The other fields are in this order, already subset."""
    names: tuple[str, ...]
    """`(n,)` relative paths, or "train/17" for the rows of an array."""
    labels: NDArray[Any] | None
    """`(n,)` int64 with -1 for "no label", or `(n, classes)` float64 in {0, 1, NaN} for multi-label data."""
    classes: tuple[str, ...]
    """Names of the classes, sorted (integers by value); empty without labels."""
    groups: NDArray[np.int64] | None
    """`(n,)` codes of the patient, lesion or volume that a split must not cut; one without is its own."""
    parts: NDArray[np.str_] | None
    """`(n,)` of "train", "validation", "test" or "", where the data come with a split."""
    skipped: tuple[tuple[str, str], ...]
    """Name and reason of each file that could not be read."""
    fingerprint: str
    """SHA-256 (hex) over the pixels and names of the whole set; the same for all subsets."""
    group_names: tuple[str, ...] = ()
    """Alias of each code in `groups`; "" for an image that is a group of its own."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Name of each file that is sound but no image to learn from, and the rule that says so."""
    facts: Facts | None = None
    """What the files said of each image; None for images that came as arrays."""
    texts: tuple[tuple[str, ...], ...] | None = None
    """`(n,)` one or more texts of each image; None where the data have none."""
    may_cut_groups: bool = False
    """Whether images of one group may come to lie on both sides of a split, because the user wants it so."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour, or any other number."""
        return int(self.pixels.shape[1])

    @property
    def size(self) -> int:
        """Side of every image, in pixels."""
        return int(self.pixels.shape[2])

    @property
    def is_multilabel(self) -> bool:
        """Whether an image may belong to several classes at once."""
        return self.labels is not None and self.labels.ndim == 2

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Positions of the images that have a label; of multi-label data, one for any class."""
        if self.labels is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(self.labels >= 0 if self.labels.ndim == 1 else ~np.isnan(self.labels).all(axis=1))

    def take(self, positions: NDArray[np.integer[Any]]) -> ImageSet:
        """The images at `positions` (`(k,)` integers within this set, in that order), over the same pixels."""
        chosen = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            rows=self.rows[chosen],
            names=tuple(self.names[position] for position in chosen),
            labels=None if self.labels is None else self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            parts=None if self.parts is None else self.parts[chosen],
            facts=None if self.facts is None else self.facts.take(chosen),
            texts=None if self.texts is None else tuple(self.texts[position] for position in chosen),
        )

    def batch(self, positions: NDArray[np.integer[Any]]) -> Batch:
        """The images at `positions` as tensors, integers as stored, and the first text of each.

        `index` holds their rows in the whole set.
        """
        chosen = np.asarray(positions, dtype=np.int64)
        rows = self.rows[chosen]
        label = None if self.labels is None else torch.from_numpy(self.labels[chosen])
        if label is not None and label.is_floating_point():
            label = label.float()
        text = None if self.texts is None else tuple(self.texts[position][0] for position in chosen)
        return Batch(image=torch.from_numpy(self.pixels[rows]), label=label, index=torch.from_numpy(rows), text=text)

    def with_labels(self, labels: NDArray[Any] | None, classes: tuple[str, ...]) -> ImageSet:
        """The same images under other labels.

        Raises:
            ValueError: There is not one label an image, or one column a class.
        """
        if labels is not None and len(labels) != len(self):
            raise ValueError(f"every image has one label or -1; got {len(labels)} labels for {len(self)} images")
        if labels is not None and labels.ndim == 2 and labels.shape[1] != len(classes):
            raise ValueError(f"every column is a class; got {labels.shape[1]} columns for {len(classes)} classes")
        return replace(self, labels=labels, classes=classes)

    def with_texts(self, texts: Sequence[Sequence[str]] | None) -> ImageSet:
        """The same images with other texts, one or more of each, or with none.

        Raises:
            ValueError: An image has none, or there are more or fewer than images.
        """
        if texts is None:
            return replace(self, texts=None)
        if len(texts) != len(self):
            raise ValueError(f"every image has its own texts; got texts of {len(texts)} for {len(self)} images")
        bad = [row for row, known in enumerate(texts) if isinstance(known, str) or not known or not all(known)]
        if bad:
            raise ValueError(f"every image has a sequence of one or more texts; image {bad[0]} has {texts[bad[0]]!r}")
        return replace(self, texts=tuple(map(tuple, texts)))

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel on the scale 0..1, from at most 2,000 evenly spaced images."""
        chosen = np.linspace(0, len(self) - 1, min(len(self), _STATISTICS_FROM)).round().astype(np.int64)
        total, squares, count = np.zeros(self.channels), np.zeros(self.channels), 0
        for block in blocks(self.pixels, self.rows[chosen]):
            values = block.astype(np.float64) / SCALES[self.pixels.dtype.name]
            total += values.sum(axis=(0, 2, 3))
            squares += (values**2).sum(axis=(0, 2, 3))
            count += values.shape[0] * values.shape[2] * values.shape[3]
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return tuple(mean.tolist()), tuple(std.tolist())


def blocks(pixels: NDArray[Any], rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """The images at `rows`, some at a time, so that a memory map larger than the memory can be walked."""
    for start in range(0, len(rows), _BLOCK):
        yield pixels[rows[start : start + _BLOCK]]


def fingerprint(pixels: NDArray[Any], rows: NDArray[np.int64], names: tuple[str, ...]) -> str:
    """SHA-256 (hex) over the type, shape, values and names of the images at `rows`."""
    digest = hashlib.sha256(f"{pixels.dtype.name} {pixels.shape[1:]}".encode())
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    for block in blocks(pixels, rows):
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()
