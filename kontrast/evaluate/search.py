"""What of a data set is nearest to a text or an image, by the cosine of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from kontrast.data import ImageSet

DIGITS = 6
"""Decimals of a cosine. Those of equal images can differ behind them, by the block of images that each came in."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """An image or a text that was found."""

    kind: Literal["image", "text"]
    rank: int
    """1 for the nearest of its kind."""
    cosine: float
    """With what was asked for, -1..1, to `DIGITS` decimals."""
    path: str
    """Name of the image; of a text, that of the first image that has it."""
    text: str
    """The text; of an image, its first, or "" without one."""
    position: int
    """Of that image in the data."""


def nearest_images(query: Tensor, bank: Tensor, data: ImageSet, *, top: int) -> tuple[Hit, ...]:
    """The images nearest to a query, the nearest first; equally near ones in the order of the data.

    Args:
        query: `(d,)` of length 1.
        bank: `(n, d)` of length 1, those of the images.
        data: The images.
        top: So many, or all where there are fewer.
    """
    firsts = [""] * len(data) if data.texts is None else [texts[0] for texts in data.texts]
    return tuple(
        Hit(kind="image", rank=rank, cosine=cosine, path=data.names[at], text=firsts[at], position=at)
        for rank, (at, cosine) in enumerate(_nearest(query, bank, top), start=1)
    )


def nearest_texts(
    query: Tensor, bank: Tensor, texts: Sequence[tuple[str, int]], data: ImageSet, *, top: int
) -> tuple[Hit, ...]:
    """The texts nearest to a query, likewise.

    Args:
        query: `(d,)` of length 1.
        bank: `(n, d)` of length 1, those of the texts.
        texts: Those of `different_texts`.
        data: The images.
        top: So many, or all where there are fewer.
    """
    ranked = enumerate(_nearest(query, bank, top), start=1)
    found = [(rank, cosine, *texts[row]) for rank, (row, cosine) in ranked]
    return tuple(
        Hit(kind="text", rank=rank, cosine=cosine, path=data.names[at], text=text, position=at)
        for rank, cosine, text, at in found
    )


def different_texts(data: ImageSet) -> list[tuple[str, int]]:
    """Every text of the images once, in their order, with the position of the first image that has it."""
    first: dict[str, int] = {}
    for position, texts in enumerate(data.texts or ()):
        for text in texts:
            first.setdefault(text, position)
    return list(first.items())


def _nearest(query: Tensor, bank: Tensor, top: int) -> list[tuple[int, float]]:
    """Rows and cosines, the largest first, ties by row."""
    cosine = np.round((bank @ query).double().cpu().numpy(), DIGITS) + 0.0  # no -0.0
    order = np.argsort(-cosine, kind="stable")[:top]
    return list(zip(order.tolist(), cosine[order].tolist(), strict=True))
