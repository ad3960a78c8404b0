"""Labels that an encoder doubts: the nearest images of other groups nearly all have another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kontrast.evaluate.neighbours import nearest

NEIGHBOURS = 20
"""That vote."""
LOOKED_AT = 60
"""Nearest images among which so many of other groups are looked for."""
DOUBTED = 0.1
"""Share of the votes up to which a label is doubted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Doubts:
    """Labelled images whose label few neighbours share, the most doubtful first."""

    positions: NDArray[np.int64]
    own: NDArray[np.float64]
    """Share of the neighbours with the image's own label, 0..1."""
    other: NDArray[np.int64]
    """The label that most neighbours have."""
    share: NDArray[np.float64]
    """Theirs."""


def neighbours(features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the nearest other images by cosine, `(n, k)` or all there are."""
    table = torch.from_numpy(features)
    rows = nearest(table, table, min(k + 1, len(table)))[1].numpy()
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True  # a copy of it took its place
    return np.asarray(rows[~own].reshape(len(rows), -1), dtype=np.int64)


def doubts(near: NDArray[np.int64], labels: NDArray[np.int64], groups: NDArray[np.int64] | None) -> Doubts:
    """Which labels are doubted, leaving out each image's own group.

    Args:
        near: `(n, k)` positions of each image's nearest others, the nearest first.
        labels: `(n,)` integers, -1 for none.
        groups: `(n,)` codes, if there are any.
    """
    counted = labels[near] >= 0
    if groups is not None:
        counted &= groups[near] != groups[:, None]
    counted &= np.cumsum(counted, axis=1) <= NEIGHBOURS
    votes = np.zeros((len(near), int(labels.max(initial=0)) + 1))
    row, column = np.nonzero(counted)
    np.add.at(votes, (row, labels[near[row, column]]), 1)
    votes /= np.maximum(votes.sum(axis=1, keepdims=True), 1)
    own = votes[np.arange(len(votes)), np.maximum(labels, 0)]
    there = np.flatnonzero((labels >= 0) & (counted.sum(axis=1) >= NEIGHBOURS // 2) & (own <= DOUBTED))
    there = there[votes.max(axis=1)[there] >= 0.5]
    there = there[np.lexsort((-votes.max(axis=1)[there], own[there]))]
    return Doubts(positions=there, own=own[there], other=votes.argmax(axis=1)[there], share=votes.max(axis=1)[there])
