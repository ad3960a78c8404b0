"""Scores of class probabilities, each in 0..1: accuracy, balanced accuracy, macro-F1, AUROC.

Every metric is written once, for weighted images and many sets of weights at a time, because that is what a bootstrap
asks for; called without weights it is the plain score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of probabilities against labels; call it on `labels` and `probabilities` for one float.

    `labels` are `(n,)` integers in 0..classes-1, or `(n, classes)` in {0, 1, NaN} for multi-label data, where NaN cells
    are left out and a class is predicted from 0.5 on. `probabilities` are `(n, classes)`. A score that the data do not
    define is NaN.
    """

    weighted: Callable[[Array, Floats, Floats], Floats]
    """From labels, probabilities and weights `(n, b)` to `(b,)` scores, one a column of weights; nothing is checked."""
    by_class: bool
    """Whether the metric averages over classes, so that a rare class decides its precision."""

    def __call__(self, labels: Array, probabilities: Array) -> float:
        """Score all images, each with weight 1.

        Raises:
            ValueError: Shapes do not fit, a label is outside its range, or a probability is not finite.
        """
        labels, probabilities = checked(labels, probabilities)
        return float(self.weighted(labels, probabilities, np.ones((len(labels), 1)))[0])


def checked(labels: Array, probabilities: Array) -> tuple[Array, Floats]:
    """Labels and float64 probabilities, or the reason why they cannot be scored.

    Raises:
        ValueError: As `Metric.__call__` says.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    expected = probabilities.shape if labels.ndim == 2 else probabilities.shape[:1]
    if probabilities.ndim != 2 or labels.shape != expected or len(labels) == 0:
        raise ValueError(
            "labels are (n,) or (n, classes) beside probabilities (n, classes), n at least 1; "
            f"got {labels.shape} and {probabilities.shape}"
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities are finite; got NaN or infinity, so look at the model that made them")
    check_labels(labels, probabilities.shape[1])
    return labels, probabilities


def check_labels(labels: Array, num_classes: int) -> None:
    """Nothing, if every label is one of the classes.

    Raises:
        ValueError: A label outside 0..num_classes-1, or a multi-label cell that is none of 0, 1 and NaN.
    """
    if labels.ndim == 2:
        if not np.all((labels == 0) | (labels == 1) | np.isnan(labels)):
            raise ValueError("multi-label cells are 0, 1 or NaN for unknown; got other values")
    elif not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are integers; got {labels.dtype}")
    elif len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels are 0..{num_classes - 1} for {num_classes} classes, unlabelled images left out; "
            f"got {labels.min()}..{labels.max()}"
        )


class Outcomes(NamedTuple):
    """Labels and predictions as three `(n, classes)` tables of 0 and 1; all three are 0 in a cell that is not known."""

    true: Floats
    predicted: Floats
    known: Floats


def _outcomes(labels: Array, probabilities: Floats) -> Outcomes:
    if labels.ndim == 2:
        known = ~np.isnan(labels)
        tables = (labels == 1, known & (probabilities >= 0.5), known)
    else:
        classes = np.arange(probabilities.shape[1])
        predicted = probabilities.argmax(1)[:, None] == classes
        tables = (labels[:, None] == classes, predicted, np.ones_like(predicted))
    return Outcomes(*(table.astype(np.float64) for table in tables))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Their quotient, NaN where the denominator is 0."""
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _mean_of_defined(scores: Floats) -> Floats:
    """Mean over classes `(classes, b)` that are not NaN: `(b,)`."""
    defined = ~np.isnan(scores)
    return _ratio(np.where(defined, scores, 0).sum(0), defined.sum(0).astype(np.float64))


def weighted_accuracy(labels: Array, probabilities: Floats, weights: Floats) -> Floats:
    """Share of images whose most probable class is right; for multi-label data, of known cells that are right."""
    if labels.ndim == 1:
        right, of = (probabilities.argmax(1) == labels).astype(np.float64), np.ones(len(labels))
    else:
        true, predicted, known = _outcomes(labels, probabilities)
        right, of = (known * (true == predicted)).sum(1), known.sum(1)
    return _ratio(right @ weights, of @ weights)


def weighted_balanced_accuracy(labels: Array, probabilities: Floats, weights: Floats) -> Floats:
    """Mean recall of the classes that occur.

    For multi-label data, mean of (sensitivity + specificity) / 2 over classes with both outcomes.
    """
    true, predicted, known = _outcomes(labels, probabilities)
    recall = _ratio((true * predicted).T @ weights, true.T @ weights)
    if labels.ndim == 1:
        return _mean_of_defined(recall)
    false = known - true
    specificity = _ratio((false * (1 - predicted)).T @ weights, false.T @ weights)
    return _mean_of_defined((recall + specificity) / 2)


def weighted_macro_f1(labels: Array, probabilities: Floats, weights: Floats) -> Floats:
    """Mean F1 over the classes that occur among the labels or the predictions; the others have no F1."""
    true, predicted, _ = _outcomes(labels, probabilities)
    return _mean_of_defined(_ratio(2 * (true * predicted).T @ weights, (true + predicted).T @ weights))


def weighted_auroc(labels: Array, probabilities: Floats, weights: Floats) -> Floats:
    """Chance that a positive outranks a negative, ties counting one half (Hanley & McNeil, 1982).

    Two classes: of class 1. More: each class against the rest, mean over the classes that occur. Multi-label: mean over
    classes with both outcomes.
    """
    if labels.ndim == 1:
        first = 1 if probabilities.shape[1] == 2 else 0
        labels = (labels[:, None] == np.arange(probabilities.shape[1])).astype(np.float64)[:, first:]
        probabilities = probabilities[:, first:]
    columns = zip(labels.T, probabilities.T, strict=True)
    return _mean_of_defined(np.stack([_outranking(column, scores, weights) for column, scores in columns]))


def _outranking(labels: Floats, scores: Floats, weights: Floats) -> Floats:
    """AUROC of one class, `(b,)`: labels `(n,)` in {0, 1, NaN}, scores `(n,)`, weights `(n, b)`."""
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if not len(positive) or not len(negative):
        return np.full(weights.shape[1], np.nan)
    negative = negative[np.argsort(scores[negative])]
    below = np.zeros((len(negative) + 1, weights.shape[1]))
    np.cumsum(weights[negative], axis=0, out=below[1:])
    first, last = (np.searchsorted(scores[negative], scores[positive], side=side) for side in ("left", "right"))
    won = np.einsum("ib,ib->b", weights[positive], below[first] + below[last]) / 2
    return _ratio(won, weights[positive].sum(0) * below[-1])


METRICS = {
    "accuracy": Metric(weighted=weighted_accuracy, by_class=False),
    "balanced_accuracy": Metric(weighted=weighted_balanced_accuracy, by_class=True),
    "macro_f1": Metric(weighted=weighted_macro_f1, by_class=True),
    "auroc": Metric(weighted=weighted_auroc, by_class=True),
}
"""Every metric by its name."""
