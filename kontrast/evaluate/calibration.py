"""Whether probabilities mean what they say, and the one number that makes them: temperature scaling.

Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017. The temperature divides the logits, so it changes how
sure an answer is and never which answer is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from kontrast.evaluate.intervals import Estimate, estimate
from kontrast.evaluate.metrics import Array, Floats, checked

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a temperature. Held-out answers that are all right have their lowest loss at 0, so there is a bound."""
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Confidences below which a classifier may be told to keep silent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Stated confidence against what came true, in bins of confidence; bins without an answer are left out."""

    confidence: Floats
    """`(b,)`, mean confidence of each bin, rising."""
    accuracy: Floats
    """`(b,)`, share that came true."""
    count: NDArray[np.int64]
    """`(b,)`, answers in each bin."""
    ece: float
    """Expected calibration error in 0..1: the mean gap of the bins, weighted by their counts; NaN without answers."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What is left when answers below a confidence are withheld."""

    abstain_below: float
    answered: float
    """Share of the answers that are given, in 0..1; NaN without any known label."""
    accuracy: Estimate | None
    """Of the answers that are given; None where fewer than two images, or groups, get one."""


def reliability(labels: Array, probabilities: Array, *, num_bins: int = 15) -> Reliability:
    """Expected calibration error and its bins (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

    Args:
        labels: `(n,)` integers, or `(n, classes)` in {0, 1, NaN}.
        probabilities: `(n, classes)` in 0..1. For `(n,)` labels, the confidence is that of the most probable class and
            comes true if this is the label. For multi-label data every known cell is an answer: the probability of the
            positive class, against how often it is positive.
        num_bins: Of equal width over 0..1, each without its lower and with its upper edge; the first holds 0 as well.

    Raises:
        ValueError: Shapes do not fit, a label is out of range, a probability is outside 0..1, or there is no bin.
    """
    labels, probabilities = checked(labels, probabilities)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError(
            f"probabilities lie in 0..1; got {probabilities.min():g}..{probabilities.max():g}, so apply a softmax "
            "or sigmoid first"
        )
    if num_bins < 1:
        raise ValueError(f"confidences are put into at least one bin; got {num_bins}, and 15 is usual")
    confidence, came_true = _answers(labels, probabilities)
    return _binned(confidence, came_true, num_bins)


def temperature(logits: Array, labels: Array) -> float:
    """The temperature that makes held-out labels most likely when the logits are divided by it (Guo et al., 2017).

    Args:
        logits: `(n, classes)` of images that the classifier has not learned from; any finite numbers.
        labels: `(n,)` integers for a softmax, or `(n, classes)` in {0, 1, NaN} for one sigmoid a class, which share
            the temperature.

    Returns:
        A number in 0.05..20. Above 1, the classifier was too sure. Where every known label has the highest logit (or
        lies on its side of 0), there is no best temperature but only ever lower ones, and the answer is 0.05: such
        labels say nothing about how often the classifier errs.

    Raises:
        ValueError: Shapes do not fit, a logit is not finite, a label is out of range, or none is known.
    """
    labels, logits = checked(labels, logits)
    margins = _margins(logits, labels)
    if not len(margins):
        raise ValueError(f"a temperature is found on labels; all {labels.size} cells are unknown")
    if (margins.max(axis=1) < 0).all():
        return LOWEST

    def loss(log_temperature: float) -> float:
        scaled = margins / np.exp(log_temperature)
        return float(special.logsumexp(np.column_stack([np.zeros(len(scaled)), scaled]), axis=1).mean())

    # Convex in the inverse temperature, so there is one minimum for a search by halves to find.
    bounds = (float(np.log(LOWEST)), float(np.log(HIGHEST)))
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    best = min((*bounds, float(found.x)), key=loss)
    return {bounds[0]: LOWEST, bounds[1]: HIGHEST}.get(best, float(np.exp(best)))


def calibrated(logits: Array, *, temperature: float, multilabel: bool) -> Floats:
    """Probabilities `(n, classes)` in float64: softmax of logits over the temperature; sigmoids for multi-label data.

    Raises:
        ValueError: The temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"a temperature divides, so it is above 0; got {temperature}")
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return np.asarray(special.expit(scaled) if multilabel else special.softmax(scaled, axis=1))


def confidences(probabilities: Array, *, multilabel: bool) -> Floats:
    """How sure each answer is: `(n,)`, the largest probability; for multi-label data `(n, classes)`, p or 1 - p."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    found: Floats = np.maximum(probabilities, 1 - probabilities) if multilabel else probabilities.max(axis=1)
    return found


def risk_coverage(
    labels: Array, probabilities: Array, *, groups: Array | None = None, thresholds: Sequence[float] = THRESHOLDS
) -> list[Coverage]:
    """Accuracy and share of answers when those below each threshold are withheld (El-Yaniv & Wiener, JMLR 2010).

    Args:
        labels: `(n,)` integers, or `(n, classes)` in {0, 1, NaN}; then each class of an image is an answer by itself.
        probabilities: `(n, classes)` in 0..1.
        groups: `(n,)`, the patient or volume of each image, for the interval.
        thresholds: Confidences in 0..1.

    Raises:
        ValueError: Shapes do not fit, or a label is out of range.
    """
    labels, probabilities = checked(labels, probabilities)
    sure = confidences(probabilities, multilabel=labels.ndim == 2)
    return [_covered(labels, probabilities, groups, sure >= threshold, threshold) for threshold in thresholds]


def _answers(labels: Array, probabilities: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidence of each answer and whether it came true, both `(answers,)`."""
    if labels.ndim == 1:
        return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    known = ~np.isnan(labels)
    return probabilities[known], labels[known] == 1


def _binned(confidence: Floats, came_true: NDArray[np.bool_], num_bins: int) -> Reliability:
    inner = np.arange(1, num_bins) / num_bins
    bins = np.digitize(confidence, inner, right=True)
    count = np.bincount(bins, minlength=num_bins)
    filled = count > 0
    sums = (np.bincount(bins, values, num_bins)[filled] for values in (confidence, came_true))
    mean, share = (total / count[filled] for total in sums)
    ece = float(np.average(np.abs(mean - share), weights=count[filled])) if filled.any() else float("nan")
    return Reliability(confidence=mean, accuracy=share, count=count[filled], ece=ece)


def _margins(logits: Floats, labels: Array) -> Floats:
    """`(answers, others)`: how far each wrong outcome lies above the right one; the loss is log(1 + sum of exp)."""
    if labels.ndim == 2:
        known = ~np.isnan(labels)
        return np.where(labels[known] == 1, -logits[known], logits[known])[:, None]
    right = np.arange(logits.shape[1]) == labels[:, None]
    above: Floats = logits - logits[right][:, None]
    others: Floats = above[~right].reshape(len(labels), -1)
    return others


def _covered(
    labels: Array, probabilities: Floats, groups: Array | None, given: NDArray[np.bool_], threshold: float
) -> Coverage:
    known = np.ones(len(labels), dtype=bool) if labels.ndim == 1 else ~np.isnan(labels)
    answered = float(given[known].mean()) if known.any() else float("nan")
    if labels.ndim == 2:
        labels, rows = np.where(given, labels, np.nan), (given & known).any(axis=1)
    else:
        rows = given
    units = np.flatnonzero(rows) if groups is None else np.unique(np.asarray(groups)[rows])
    if len(units) < 2:
        return Coverage(abstain_below=threshold, answered=answered, accuracy=None)
    within = None if groups is None else np.asarray(groups)[rows]
    accuracy = estimate(labels[rows], probabilities[rows][None, None], "accuracy", groups=within)
    return Coverage(abstain_below=threshold, answered=answered, accuracy=accuracy)
