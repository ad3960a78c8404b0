"""A closer look at what one arm predicted: class by class, how sure it was, and where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data import ImageSet
from kontrast.evaluate import calibration, intervals
from kontrast.study.contents import ClassRow, ClassTable, Closeup, Column, Confusion, Hard, Reliability, Score
from kontrast.study.pictures import picture

Floats = NDArray[np.float64]
NO_LABEL = "no label"
HARDEST = 12
"""Test images shown."""
SIDE = 96
"""Of their pictures, in pixels."""


def closeup(test: ImageSet, ours: Floats, scratch: Floats, *, titles: tuple[str, str], num_labels: int) -> Closeup:
    """Look at one arm beside the arm from scratch.

    Args:
        test: The test images, all with a label.
        ours: `(seeds, draws, n, classes)` probabilities.
        scratch: Of the same layout.
        titles: Of both arms.
        num_labels: That both had.
    """
    assert test.labels is not None, "a study has labels"
    return Closeup(
        title=titles[0],
        num_labels=num_labels,
        classes=_class_table(test, ours, scratch, titles),
        confusion=None if test.is_multilabel else _confusion(test, ours),
        reliability=(
            _reliability(test.labels, ours, title=titles[0], kind="method"),
            _reliability(test.labels, scratch, title=titles[1], kind="baseline"),
        ),
        hardest=_hardest(test, ours),
    )


def _class_table(test: ImageSet, ours: Floats, scratch: Floats, titles: tuple[str, str]) -> ClassTable:
    """Recall of both arms and their difference, and how well our arm ranks each class; multi-label data: ranks only."""
    rank = "AUROC" if test.is_multilabel else "AUROC against the rest"
    columns = [Column(title=f"{title}: {rank}") for title in titles]
    if not test.is_multilabel:
        recalls = [Column(title=f"{title}: recall") for title in titles]
        columns = [*recalls, Column(title="Difference of recalls", is_difference=True), columns[0]]
    rows = []
    for code, name in enumerate(test.classes):
        own = _of_class(test, code)
        scores = [_auroc(test, arm, code) for arm in (ours, scratch)]
        if not test.is_multilabel:
            scores = [*_recalls(test, own, ours, scratch), scores[0]]
        rows.append(ClassRow(name=name, num_test=int(own.sum()), scores=tuple(scores)))
    return ClassTable(columns=tuple(columns), rows=tuple(rows))


def _of_class(test: ImageSet, code: int) -> NDArray[np.bool_]:
    """Which images belong to a class; of multi-label data, its positives."""
    labels = np.asarray(test.labels)
    found: NDArray[np.bool_] = labels[:, code] == 1 if test.is_multilabel else labels == code
    return found


def _recalls(test: ImageSet, own: NDArray[np.bool_], ours: Floats, scratch: Floats) -> list[Score | None]:
    """Accuracy on the images of one class, of both arms, and the paired difference."""
    assert test.labels is not None
    groups = None if test.groups is None else test.groups[own]
    if len(np.unique(groups) if groups is not None else np.flatnonzero(own)) < 2:
        return [None, None, None]
    labels, arms = test.labels[own], [arm[:, :, own] for arm in (ours, scratch)]
    recalls: list[Score | None] = [intervals.estimate(labels, arm, "accuracy", groups=groups) for arm in arms]
    return [*recalls, intervals.difference(labels, arms[0], arms[1], "accuracy", groups=groups)]


def _auroc(test: ImageSet, predictions: Floats, code: int) -> Score | None:
    """Of one class against all others, or of one column of multi-label data; None where one side is empty."""
    assert test.labels is not None
    column = test.labels[:, code] if test.is_multilabel else (test.labels == code).astype(np.float64)
    if not ((column == 1).any() and (column == 0).any()):
        return None
    return intervals.estimate(column[:, None], predictions[..., [code]], "auroc", groups=test.groups)


def _confusion(test: ImageSet, predictions: Floats) -> Confusion:
    """Shares of each true class that go to each predicted one, pooled over cells."""
    assert test.labels is not None
    num_classes = len(test.classes)
    counts = np.zeros((num_classes, num_classes))
    for predicted in predictions.argmax(-1).reshape(-1, len(test)):
        np.add.at(counts, (test.labels, predicted), 1)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    return Confusion(classes=test.classes, shares=tuple(tuple(row) for row in shares.tolist()))


def _reliability(labels: NDArray[Any], predictions: Floats, *, title: str, kind: Any) -> Reliability:
    """Over all cells together; float32 probabilities may pass 1 by their rounding."""
    num_cells = predictions.shape[0] * predictions.shape[1]
    pooled = np.clip(predictions.reshape(-1, predictions.shape[-1]), 0.0, 1.0)
    found = calibration.reliability(np.concatenate([labels] * num_cells), pooled)
    return Reliability(
        title=title,
        kind=kind,
        confidence=tuple(found.confidence.tolist()),
        accuracy=tuple(found.accuracy.tolist()),
        count=tuple(found.count.tolist()),
        ece=found.ece,
    )


def _hardest(test: ImageSet, predictions: Floats) -> tuple[Hard, ...]:
    """The test images whose truth got the least probability on average over cells, if any cell is wrong there."""
    cells = predictions.reshape(-1, *predictions.shape[2:])
    truth = _probability_of_truth(test, cells)
    order = np.argsort(truth.mean(0), kind="stable")[:HARDEST]
    found = (_hard(test, cells, int(position), float(truth[:, position].mean())) for position in order)
    return tuple(hard for hard in found if hard.share_wrong > 0)


def _probability_of_truth(test: ImageSet, cells: Floats) -> Floats:
    """`(cells, n)`; for multi-label data the mean over the known labels of an image."""
    assert test.labels is not None
    if not test.is_multilabel:
        return cells[:, np.arange(len(test)), test.labels]
    right = np.where(test.labels == 1, cells, 1 - cells)
    known = ~np.isnan(test.labels)
    found: Floats = (right * known).sum(-1) / np.maximum(known.sum(-1), 1)
    return found


def _hard(test: ImageSet, cells: Floats, position: int, probability: float) -> Hard:
    assert test.labels is not None
    label, answers = test.labels[position], cells[:, position]
    if test.is_multilabel:  # what is said of classes that are not known is neither right nor wrong
        said = [label_text(np.where(np.isnan(label), np.nan, answer >= 0.5), test.classes) for answer in answers]
    else:
        said = [test.classes[code] for code in answers.argmax(-1)]
    truth = label_text(label, test.classes)
    names, counts = np.unique(said, return_counts=True)
    return Hard(
        picture=picture(test, position, side=SIDE),
        name=test.names[position],
        truth=truth,
        predicted=str(names[counts.argmax()]),
        probability=probability,
        share_wrong=float(np.mean([answer != truth for answer in said])),
    )


def label_text(label: Any, classes: Sequence[str]) -> str:
    """A label in words: a class, the positive classes of a row of multi-label data, or what stands for none.

    Classes of such a row that are not known are counted, since their absence is not known either.
    """
    if np.ndim(label) == 0:
        return classes[int(label)] if label >= 0 else NO_LABEL
    positive = [name for name, value in zip(classes, label, strict=True) if value == 1]
    num_unknown = int(np.isnan(np.asarray(label, dtype=np.float64)).sum())
    if num_unknown == len(classes):
        return NO_LABEL
    text = ", ".join(positive) if positive else "none of the classes"
    return f"{text} ({num_unknown} not known)" if num_unknown else text
