"""Choosing among images so that every class has its share: the arithmetic under the splits and draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.errors import InputError

Positions = NDArray[np.int64]


def strata(labels: NDArray[Any]) -> Positions:
    """Codes 0, 1, ... of the classes that occur; multi-label data are one stratum."""
    if labels.ndim == 2:
        return np.zeros(len(labels), dtype=np.int64)
    return np.asarray(np.unique(labels, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def held_out(
    codes: Positions, groups: NDArray[np.int64] | None, share: float, rng: np.random.Generator
) -> Positions | None:
    """Sorted positions of about `share` of the images; None unless every class is on both sides."""
    if not 0 < share < 1:
        raise InputError(f"the share of images to hold out lies between 0 and 1; got {share}: try 0.2")
    counts = np.bincount(codes)
    if len(counts) == 0 or counts.min() < 2:
        return None
    if groups is not None:
        return _held_groups(codes, groups, share, rng)
    total = int(np.clip(rounded(share * len(codes)), len(counts), len(codes) - len(counts)))
    return of_each(codes, allocate(counts, total, counts - 1, rng), rng)


def allocate(
    counts: NDArray[np.int64], total: int, most: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """`total` shared out in proportion to `counts` by largest remainders, 1 to `most` each; ties are broken by lot."""
    quota = total * counts / counts.sum()
    taken = np.clip(np.floor(quota).astype(np.int64), 1, most)
    lot = rng.random(len(counts)) * 1e-9
    while missing := int(total - taken.sum()):
        step = 1 if missing > 0 else -1
        movable = taken < most if step > 0 else taken > 1
        taken[np.where(movable, step * (quota - taken) + lot, -np.inf).argmax()] += step
    return np.asarray(taken)


def of_each(codes: Positions, numbers: NDArray[np.int64], rng: np.random.Generator) -> Positions:
    """Sorted positions, `numbers[c]` of each class drawn at random."""
    drawn = [rng.permutation(np.flatnonzero(codes == code))[:number] for code, number in enumerate(numbers)]
    return np.asarray(np.sort(np.concatenate(drawn)))


def rounded(value: float) -> int:
    """The nearest integer, halves up, as people count labels (Python's `round` takes 2.5 to 2)."""
    return int(np.floor(value + 0.5))


def _held_groups(
    codes: Positions, groups: NDArray[np.int64], share: float, rng: np.random.Generator
) -> Positions | None:
    """Whole groups in random order, each taken if it brings the classes nearer to their share; then what is missing.

    scikit-learn's StratifiedGroupKFold promises neither every class on both sides nor the same folds in later versions.
    """
    member = np.unique(groups, return_inverse=True)[1].reshape(-1)
    table = np.zeros((member.max() + 1, codes.max() + 1))
    np.add.at(table, (member, codes), 1)
    totals, taken = table.sum(axis=0), np.zeros(len(table), dtype=bool)
    held = np.zeros(table.shape[1])

    def distance(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((((counts - share * totals) / totals) ** 2).sum(axis=-1))

    order = rng.permutation(len(table))
    for group in order:
        leaves_all = (totals - held - table[group] > 0).all()
        if leaves_all and distance(held + table[group]) < distance(held):
            taken[group], held = True, held + table[group]
    for missing in np.flatnonzero(held == 0):
        fits = [group for group in order if table[group, missing] and (totals - held - table[group] > 0).all()]
        if held[missing] == 0 and fits:
            best = fits[int(distance(held + table[fits]).argmin())]
            taken[best], held = True, held + table[best]
    return np.flatnonzero(taken[member]) if (held > 0).all() else None
