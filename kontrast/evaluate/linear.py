"""The linear probe: how much of the labels a linear classifier reads from frozen features.

Logistic regression on standardised features, its penalty chosen by cross-validation inside the labelled part: the
protocol of Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020, appendix
B.8, with scikit-learn. Where labels are many, one of the folds decides, and fits are made in float32.

scikit-learn takes seconds to import, so it is imported where it is used: `kontrast pretrain --help` need not wait.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from kontrast.evaluate.metrics import Array, Floats, check_labels

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties tried, as scikit-learn's `C`: the larger, the weaker the penalty."""
MAX_FOLDS = 5
MAX_STEPS = 2000
MANY = 5000
"""From so many labels on, one fold of a thousand images or more tells strengths apart as well as five folds do."""
SMALL = 2**25
"""Up to so many values, one thread is the fastest; on a busy machine, by a hundred times."""
TOLERANCE = 1e-7
"""Largest slope at which the final fit stops: finer than scikit-learn's own, so that warm and cold starts agree."""
TOLERANCE_OF_MANY = 1e-4
"""Likewise where labels are many, in float32: probabilities are within 0.001 of a finer fit's on average.

A tenth of what the draw of 60,000 images moves the slope by.
"""
TOLERANCE_OF_FOLDS = 1e-4
"""Scikit-learn's own, enough to tell strengths ten times apart."""
TOLERANCE_OF_HOLD_OUT = 3e-4
"""Likewise where labels are many."""

ChosenBy = Literal["cross-validation", "hold-out", "default", "share"]
Split = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """What a linear probe predicts, and how its penalty was chosen: one entry a fit, so one a multi-label column."""

    probabilities: Floats
    """`(m, num_classes)` in 0..1; 0 for a class without a label."""
    strengths: tuple[float, ...]
    """`C` of each fit; NaN where nothing was fitted."""
    chosen_by: tuple[ChosenBy, ...]
    """How each `C` came about.

    "cross-validation" is by all folds; "hold-out" by the first of them, where labels are many; "default" is C = 1,
    where a class has too few labels to hold any out; "share" where there is one class only, so that its share is
    predicted and nothing fitted.
    """
    converged: bool
    """Whether every fit that is used came to rest within `MAX_STEPS`."""


def linear_probe(
    features: Array,
    labels: Array,
    queries: Array,
    *,
    num_classes: int,
    groups: Array | None = None,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """Fit a linear classifier to labelled features, and only then look at the queries.

    Args:
        features: `(n, d)`, labelled.
        labels: `(n,)` integers, or `(n, num_classes)` in {0, 1, NaN}: one binary probe a column, on its known rows.
        queries: `(m, d)`.
        num_classes: Columns of the probabilities, also where `labels` miss some.
        groups: `(n,)`, the patient or volume of each row; never on both sides of a fold.
        seed: Of the folds.
        strengths: Values of `C` to choose from by mean log-loss over folds; at most five folds, and no more than the
            rarest class has images, or groups where they are given. From 5,000 labels on, the first fold alone decides,
            and no larger `C` is tried once the loss has risen.

    Returns:
        The probe's probabilities and how they came about.

    Raises:
        ValueError: Shapes do not fit, a value is not finite, a label is out of range, nothing is labelled, or a
            strength is not above 0.
    """
    features, queries, labels = (np.asarray(table) for table in (features, queries, labels))
    groups = None if groups is None else np.asarray(groups)
    _check(features, labels, queries, num_classes, groups, strengths)
    strengths = sorted(strengths)
    with threadpool_limits(1 if features.size <= SMALL else None, user_api="blas"):
        if labels.ndim == 1:
            return _probe(features, labels, queries, num_classes, groups, seed, strengths)
        return _probe_columns(features, labels, queries, groups, seed, strengths)


def _probe_columns(
    features: Array, labels: Array, queries: Array, groups: Array | None, seed: int, strengths: Sequence[float]
) -> Probe:
    """One binary fit to each column of `(n, classes)` labels."""
    columns = []
    for column in labels.T:
        known = ~np.isnan(column)
        rows = None if groups is None else groups[known]
        columns.append(_probe(features[known], column[known].astype(np.int64), queries, 2, rows, seed, strengths))
    return Probe(
        probabilities=np.stack([probe.probabilities[:, 1] for probe in columns], axis=1),
        strengths=tuple(probe.strengths[0] for probe in columns),
        chosen_by=tuple(probe.chosen_by[0] for probe in columns),
        converged=all(probe.converged for probe in columns),
    )


def _probe(
    features: Array,
    labels: Array,
    queries: Array,
    num_classes: int,
    groups: Array | None,
    seed: int,
    strengths: Sequence[float],
) -> Probe:
    """One fit to `(n,)` labels."""
    present = np.unique(labels)
    probabilities = np.zeros((len(queries), num_classes))
    if len(present) < 2:
        probabilities[:, present] = 1.0
        if len(present) == 0:
            probabilities[:] = 1 / num_classes
        return Probe(probabilities=probabilities, strengths=(np.nan,), chosen_by=("share",), converged=True)
    scaled, asked = _standardised(features, queries, np.dtype(np.float32 if _are_many(labels) else np.float64))
    splits = _splits(labels, groups, seed)
    chosen_by: ChosenBy = "default"
    strength, start = 1.0, None
    if splits:
        chosen_by = "hold-out" if _are_many(labels) else "cross-validation"
        strength, start = _choose(scaled.astype(np.float32, copy=False), labels, splits, strengths)
    model = _model() if start is None or len(start.classes_) < len(present) else start
    converged = _fit(model, scaled, labels, strength, TOLERANCE_OF_MANY if _are_many(labels) else TOLERANCE)
    probabilities[:, present] = _probabilities(model, asked)
    return Probe(probabilities=probabilities, strengths=(strength,), chosen_by=(chosen_by,), converged=converged)


def _are_many(labels: Array) -> bool:
    return len(labels) >= MANY


def _standardised(features: Array, queries: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Both on the scale of the labelled features, subtracted in float64 and kept in `dtype`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    tables = []
    for table in (features, queries):
        scaled = np.empty(table.shape, dtype)
        np.subtract(table, scaler.mean_, out=scaled, casting="same_kind")
        np.divide(scaled, scaler.scale_, out=scaled, casting="same_kind")
        tables.append(scaled)
    return tables[0], tables[1]


def _splits(labels: Array, groups: Array | None, seed: int) -> list[Split]:
    """Rows to fit and rows held out, by class and never through a group; none where a class is too rare for two folds.

    A fold that leaves one class to fit, or nothing held out, is no split; where labels are many, the first one is all.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    folds = _num_folds(labels, groups)
    if folds < 2:
        return []
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    found = [
        (fit, held)
        for fit, held in splitter.split(labels, labels, groups)
        if len(held) and len(np.unique(labels[fit])) > 1
    ]
    return found[:1] if _are_many(labels) else found


def _num_folds(labels: Array, groups: Array | None) -> int:
    """At most five, and so few that the rarest class has an image, or a group, in each."""
    if groups is None:
        fewest = np.unique(labels, return_counts=True)[1].min()
    else:
        fewest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    return min(MAX_FOLDS, int(fewest))


def _choose(features: Array, labels: Array, splits: list[Split], strengths: Sequence[float]) -> tuple[float, Any]:
    """Strength of the lowest log-loss, meaned over splits, and the first split's model of that strength.

    Of equals, the strongest penalty. Where labels are many, nothing is tried once the loss has risen: weak penalties
    are the slowest to fit.
    """
    paths = [_path(features, labels, split, strengths) for split in splits]
    best = np.inf
    for strength, fitted in zip(strengths, zip(*paths, strict=True), strict=True):
        loss = float(np.mean([loss for loss, _ in fitted]))
        if loss < best:
            best, chosen, model = loss, strength, fitted[0][1]
        elif _are_many(labels):
            break
    return chosen, model


def _log_loss(labels: Array, predicted: Floats, present: Array) -> float:
    """Mean -log of the label's probability; a label that the fit never saw has the smallest probability there is."""
    of_label = (predicted * (labels[:, None] == present)).sum(1)
    return float(-np.log(np.maximum(of_label, np.finfo(np.float64).eps)).mean())


def _path(features: Array, labels: Array, split: Split, strengths: Sequence[float]) -> Iterator[tuple[float, Any]]:
    """Log-loss of the held-out rows and the model, for each strength; each fit starts where the last one ended."""
    fit, held = split
    known, asked, model = features[fit], features[held], _model()
    tolerance = TOLERANCE_OF_HOLD_OUT if _are_many(labels) else TOLERANCE_OF_FOLDS
    for strength in strengths:
        _fit(model, known, labels[fit], strength, tolerance)
        yield _log_loss(labels[held], _probabilities(model, asked), model.classes_), copy.copy(model)


def _model() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=MAX_STEPS, warm_start=True)


def _fit(model: Any, features: Array, labels: Array, strength: float, tolerance: float) -> bool:
    """Fits on from where the model is; returns whether it came to rest."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.set_params(C=strength, tol=tolerance).fit(features, labels)
    return not caught


def _probabilities(model: Any, queries: Array) -> Floats:
    if len(queries) == 0:
        return np.zeros((0, len(model.classes_)))
    predicted: NDArray[np.float64] = model.predict_proba(queries)
    return predicted


def _check(
    features: Array, labels: Array, queries: Array, num_classes: int, groups: Array | None, strengths: Sequence[float]
) -> None:
    if features.ndim != 2 or queries.ndim != 2 or features.shape[1] != queries.shape[1] or len(features) == 0:
        raise ValueError(
            f"features are (n, d) and queries (m, d), n at least 1; got {features.shape} and {queries.shape}"
        )
    if labels.shape not in ((len(features),), (len(features), num_classes)):
        raise ValueError(
            f"labels are ({len(features)},) or ({len(features)}, {num_classes}), as features are; got {labels.shape}"
        )
    if groups is not None and groups.shape != (len(features),):
        raise ValueError(f"groups name one group for each of the {len(features)} rows; got {groups.shape}")
    if not (np.isfinite(features).all() and np.isfinite(queries).all()):
        raise ValueError("features are finite; got NaN or infinity, so look at the encoder that made them")
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths are above 0, at least one of them; got {tuple(strengths)}")
    check_labels(labels, num_classes)
