"""What two sides of a split, or all images of a set, have in common: the same pixels, or near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kontrast.data.audit.duplicates import Pairs, clusters, copies, near, near_across
from kontrast.data.audit.likeness import LEAST_CONTRAST, Looks, Positions, looks
from kontrast.data.images import ImageSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """Which images of a set are copies of which."""

    exact: Positions
    """`(n,)` codes, the same for the same pixels."""
    pairs: Pairs
    """Near-duplicates, between the first image of each code."""
    looks: Looks
    """Of all images."""

    def joined(self) -> Positions:
        """`(n,)` codes, the same for all that are copies of any kind, in however many steps."""
        first = firsts(self.exact)
        owner = first[self.exact]
        away = np.flatnonzero(owner != np.arange(len(owner)))
        return clusters(
            len(owner),
            np.concatenate([self.pairs.first, away]),
            np.concatenate([self.pairs.second, owner[away]]),
        )


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """What two sides of a split have in common."""

    exact: int
    """Test images whose very pixels are among the training images."""
    near: int
    """Further test images that a training image is a near-duplicate of."""
    groups: int
    """Groups that are on both sides."""

    def __bool__(self) -> bool:
        return bool(self.exact or self.near or self.groups)

    def __str__(self) -> str:
        """One sentence."""
        if not self:
            return "No test image is a copy or near-duplicate of a training image, and no group is on both sides."
        return (
            f"Of the test images, {self.exact:,} are exact copies of training images and {self.near:,} more "
            f"near-duplicates, and {self.groups:,} groups are on both sides, so scores may be too high: `kontrast data "
            "check` names them."
        )


def leaks(train: ImageSet, test: ImageSet) -> Leaks:
    """What the training and the test images have in common; groups only where both have codes of one set."""
    codes = copies(train, test)
    seen, asked = codes[: len(train)], codes[len(train) :]
    is_exact = np.isin(asked, seen)
    bank = np.unique(seen, return_index=True)[1]
    rest = np.flatnonzero(~is_exact)
    num_near = _num_near(looks(test.take(rest)), looks(train.take(bank))) if len(rest) else 0
    groups = 0
    if train.groups is not None and test.groups is not None and train.fingerprint == test.fingerprint:
        groups = len(np.intersect1d(train.groups, test.groups))
    return Leaks(exact=int(is_exact.sum()), near=num_near, groups=groups)


def find_copies(data: ImageSet, *, turned: bool = False, also: Positions | None = None) -> Copies:
    """Exact copies and near-duplicates of a whole set.

    Args:
        data: The images.
        turned: Whether to find mirrored and turned ones as well.
        also: `(n, k)` positions of further candidates of each image, -1 for none.
    """
    exact = copies(data)
    first = firsts(exact)
    seen = looks(data)
    textured = first[seen.contrast[first] >= LEAST_CONTRAST]
    candidates = None
    if also is not None:
        place = np.full(len(data) + 1, -1)
        place[textured] = np.arange(len(textured))
        candidates = place[np.where(also >= 0, first[exact[also]], len(data))][textured]
        candidates[candidates == np.arange(len(textured))[:, None]] = -1  # named by an exact copy of the image
    found = near(seen.take(textured), turned=turned, also=candidates)
    pairs = Pairs(first=textured[found.first], second=textured[found.second], unlike=found.unlike, turned=found.turned)
    return Copies(exact=exact, pairs=pairs, looks=seen)


def firsts(codes: Positions) -> Positions:
    """Position of the first image of each code; codes are 0, 1, 2 ... without a gap."""
    return np.unique(codes, return_index=True)[1]


def _num_near(queries: Looks, bank: Looks) -> int:
    """How many of the queries have a near-duplicate in the bank; constant images have none."""
    shown, known = (each.take(np.flatnonzero(each.contrast >= LEAST_CONTRAST)) for each in (queries, bank))
    return len(np.unique(near_across(shown, known).first))
