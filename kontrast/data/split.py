"""Which images train, which test, and which labels are drawn: by class, and never through a group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.images import ImageSet
from kontrast.data.strata import Positions, allocate, held_out, of_each, rounded, strata
from kontrast.errors import InputError

_LABELS_WAY_OUT = "label some images with sub-folders named by class or with --labels TABLE"


def hold_out(data: ImageSet, *, share: float = 0.2, seed: int = 0) -> tuple[Positions, Positions]:
    """Splits a data set into training and test images.

    Where the data come with a split, it is kept: "test" is the test part (or "validation", if there is no "test") and
    everything else trains. Otherwise `share` of the *labelled* images is held out, stratified by class (multi-label
    data at random), and by group where there are groups. No image that shares a group with a test image trains,
    labelled or not; but for data that `may_cut_groups`, whose groups play no part in this. Images without labels but
    with texts are held out likewise, from all of them.

    Returns:
        Sorted positions that train, unlabelled images among them, and sorted positions that test.

    Raises:
        InputError: Neither labels nor texts, one class only, a class that cannot be on both sides, or a given split
            that cuts a group.
    """
    if data.labels is not None:
        _refuse_one_class(data)
    if data.may_cut_groups:
        data = replace(data, groups=None)
    part = _test_part(data)
    if len(part):
        return _given(data, part)
    test = _drawn_test(data, share, seed)
    away = np.isin(np.arange(len(data)), test) if data.groups is None else np.isin(data.groups, data.groups[test])
    return np.flatnonzero(~away), test


def draw(
    labels: NDArray[Any] | None, *, fraction: float | None = None, per_class: int | None = None, seed: int
) -> Positions:
    """Draws the labels that a method may see: a share of all, in proportion to the classes, or so many a class.

    Args:
        labels: `(n,)` int64 with -1 for "no label", or `(n, classes)` in {0, 1, NaN}, drawn without regard to class.
        fraction: Share of the labelled images; rounded, with at least one of each class. 1 is all of them.
        per_class: Labels of each class.
        seed: Of the draw; the same one draws the same.

    Returns:
        Sorted positions.

    Raises:
        InputError: There are no labels, or fewer than it takes.
        ValueError: Not exactly one of `fraction` and `per_class` is given.
    """
    if (fraction is None) == (per_class is None):
        raise ValueError(f"a draw takes either a fraction or a number per class; got {fraction} and {per_class}")
    labelled = _labelled(labels)
    if labels is None or len(labelled) == 0:
        raise InputError(f"labels can only be drawn where there are some; these images have none: {_LABELS_WAY_OUT}")
    rng = np.random.default_rng([seed, 1])
    if fraction is not None:
        return labelled[_fraction(strata(labels[labelled]), fraction, rng)]
    assert per_class is not None
    if labels.ndim == 2:
        raise InputError(
            "a number of labels per class needs one class an image; these data are multi-label: use a fraction"
        )
    return labelled[_per_class(labels[labelled], per_class, rng)]


def validation_part(
    labels: NDArray[Any], *, groups: NDArray[np.int64] | None = None, share: float = 0.2, seed: int = 0
) -> tuple[Positions, Positions] | None:
    """Splits labelled images into a part to fit and a part to choose settings on, by class and never through a group.

    Args:
        labels: `(n,)` int64 without -1, or `(n, classes)`.
        groups: `(n,)` codes, if there are any.
        share: Of the validation part.
        seed: Of the split.

    Returns:
        Sorted positions of both; None where some class cannot be on both sides, as with one label a class.
    """
    codes = strata(labels)
    held = held_out(codes, groups, share, np.random.default_rng([seed, 2]))
    return None if held is None else (np.setdiff1d(np.arange(len(labels)), held), held)


def _test_part(data: ImageSet) -> Positions:
    if data.parts is None:
        return np.zeros(0, dtype=np.int64)
    test = np.flatnonzero(data.parts == "test")
    return test if len(test) else np.flatnonzero(data.parts == "validation")


def _given(data: ImageSet, part: Positions) -> tuple[Positions, Positions]:
    """What lies outside the test part, and what is labelled in it (all of it, if nothing has a label anywhere)."""
    train = np.setdiff1d(np.arange(len(data)), part)
    if len(train) == 0:
        raise InputError(
            f"some images must train; all {len(data)} of {data.name} are in the test part: change the split"
        )
    if data.groups is not None and np.isin(data.groups[train], data.groups[part]).any():
        raise _cut_group(data, train, part)
    test = part if data.labels is None else np.intersect1d(part, _labelled(data.labels))
    if len(test) == 0:
        raise InputError(f"test images must have labels; none of the {len(part)} in {data.name} has: {_LABELS_WAY_OUT}")
    return train, test


def _drawn_test(data: ImageSet, share: float, seed: int) -> Positions:
    labelled = _labelled(data.labels)
    if data.labels is not None and len(labelled):
        drawn_from, codes = labelled, strata(data.labels[labelled])
    elif data.texts is not None:
        drawn_from, codes = np.arange(len(data)), np.zeros(len(data), dtype=np.int64)
    else:
        raise InputError(f"a test part needs labels or texts; {data.name} has none: {_LABELS_WAY_OUT}")
    groups = None if data.groups is None else data.groups[drawn_from]
    held = held_out(codes, groups, share, np.random.default_rng([seed, 0]))
    if held is None:
        raise _too_few_to_split(data, labelled)
    return drawn_from[held]


def _fraction(codes: Positions, fraction: float, rng: np.random.Generator) -> Positions:
    if not 0 < fraction <= 1:
        raise InputError(
            f"a fraction of the labels lies above 0 and at most at 1; got {fraction}: 0.01 is one in a hundred"
        )
    counts = np.bincount(codes)
    total = rounded(fraction * len(codes))
    if total < len(counts):
        raise InputError(
            f"every class needs a label; {fraction:g} of {len(codes)} labels are {total} for {len(counts)} classes: "
            f"use a fraction of at least {len(counts) / len(codes):.3g}, or label more images"
        )
    return of_each(codes, allocate(counts, total, counts, rng), rng)


def _per_class(labels: Positions, per_class: int, rng: np.random.Generator) -> Positions:
    codes = strata(labels)
    counts = np.bincount(codes)
    if not 1 <= per_class <= counts.min():
        raise InputError(
            f"the labels per class are at least 1 and at most those of the rarest class; got {per_class} and the "
            f"rarest has {counts.min()}: ask for fewer, or label more images"
        )
    return of_each(codes, np.full(len(counts), per_class), rng)


def _labelled(labels: NDArray[Any] | None) -> Positions:
    if labels is None:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(labels >= 0) if labels.ndim == 1 else np.flatnonzero(~np.isnan(labels).all(axis=1))


def _refuse_one_class(data: ImageSet) -> None:
    assert data.labels is not None
    present = np.unique(data.labels[_labelled(data.labels)]) if data.labels.ndim == 1 else np.zeros(0)
    if len(present) == 1:
        raise InputError(
            f"labels must name at least two classes; all of {data.name} are {data.classes[int(present[0])]!r}: "
            "add images of another class, or check the folder or column that names the class"
        )


def _too_few_to_split(data: ImageSet, labelled: Positions) -> InputError:
    unit = "images" if data.groups is None else "groups"
    if data.labels is None or not len(labelled):
        return InputError(f"a test part needs two {unit}; {data.name} has fewer: add more, or give a column `split`")
    if data.is_multilabel:
        return InputError(f"a test part needs two labelled {unit}; {data.name} has fewer: label more, or give a split")
    labels = data.labels[labelled]
    units = labelled if data.groups is None else data.groups[labelled]
    counts = {int(code): len(np.unique(units[labels == code])) for code in np.unique(labels)}
    rarest = min(counts, key=lambda code: counts[code])
    return InputError(
        f"every class needs two labelled {unit} or more, to train and to test; class {data.classes[rarest]!r} of "
        f"{data.name} has {counts[rarest]}: label more images, leave the class out, or give a column `split`"
    )


def _cut_group(data: ImageSet, train: Positions, part: Positions) -> InputError:
    assert data.groups is not None
    one = train[np.isin(data.groups[train], data.groups[part])][0]
    other = part[data.groups[part] == data.groups[one]][0]
    return InputError(
        f"a split must not cut a group; {data.names[one]} trains and {data.names[other]} of the same group tests in "
        f"{data.name}: "
        "move the whole group to one side, or remove the split and let Kontrast make one"
    )
