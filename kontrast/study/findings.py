"""From predictions to findings: scores with intervals, paired differences, the recommendation and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.evaluate import intervals
from kontrast.evaluate.metrics import METRICS
from kontrast.study.contents import METRICS as METRIC_TITLES
from kontrast.study.contents import Difference, Row
from kontrast.study.plan import Answers, Arm, Budget

SCRATCH = "scratch"
"""The arm that pre-training has to beat."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What predictions are compared with."""

    test: NDArray[Any]
    """Labels of the test images."""
    test_groups: NDArray[np.int64] | None
    validation: NDArray[Any]
    """Labels of the validation part; empty where there is none."""


Cells = Mapping[tuple[str, Budget], list[list[Answers]]]
"""For each arm's key and budget, one list of draws for each pre-training seed."""


def score_rows(cells: Cells, arms: tuple[Arm, ...], budgets: tuple[Budget, ...], truth: Truth, main: str) -> list[Row]:
    """Every arm at every budget: all metrics with intervals, and the main one on the validation part."""
    rows = []
    for budget in budgets:
        for arm in arms:
            answers = cells[arm.key, budget]
            stacked = _stack(answers)
            scores = {
                name: intervals.estimate(truth.test, stacked, name, groups=truth.test_groups)
                for name in sorted(METRICS, key=lambda name: name != main)
            }
            rows.append(
                Row(
                    arm=arm.key,
                    title=arm.title,
                    kind=arm.kind,
                    fraction=budget.fraction,
                    num_labels=len(answers[0][0].labelled),
                    scores=scores,
                    validation=_validation_score(answers, truth, main),
                    num_seeds=len(answers),
                    num_draws=len(answers[0]),
                )
            )
    return rows


def differences(
    cells: Cells, arms: tuple[Arm, ...], budgets: tuple[Budget, ...], truth: Truth, main: str
) -> list[Difference]:
    """Every other arm minus the one from scratch, on the same labels and test images."""
    scratch = next(arm for arm in arms if arm.key == SCRATCH)
    found = []
    for budget in budgets:
        theirs = _stack(cells[SCRATCH, budget])
        for arm in arms:
            if arm.key == SCRATCH:
                continue
            answers = cells[arm.key, budget]
            gain = intervals.difference(truth.test, _stack(answers), theirs, main, groups=truth.test_groups)
            found.append(
                Difference(
                    arm=arm.key,
                    title=arm.title,
                    baseline=scratch.title,
                    num_labels=len(answers[0][0].labelled),
                    metric=main,
                    estimate=gain,
                    finding=intervals.verdict(gain),
                )
            )
    return found


def chosen(rows: list[Row], num_labels: int, *, kind: str | None = None) -> Row:
    """The arm with the best validation score at one number of labels; the first in order where there is none.

    Args:
        rows: All rows.
        num_labels: Which of them.
        kind: "method" leaves baselines out.
    """
    here = [row for row in rows if row.num_labels == num_labels and kind in (None, row.kind)]
    return max(here, key=lambda row: -1.0 if row.validation is None else row.validation)


def recommendation(rows: list[Row], main: str, num_validation: int) -> str:
    """What to use at the fewest labels, and how that was chosen: on the validation part, never by the test score."""
    fewest = min(row.num_labels for row in rows)
    best = chosen(rows, fewest)
    if best.validation is None:
        return (
            f"No recommendation: some class has too few labels for a validation part to choose on. {best.title} is "
            "the first method asked for."
        )
    compared = sorted(
        (row for row in rows if row.num_labels == fewest and row is not best and row.validation is not None),
        key=lambda row: -(row.validation or 0.0),
    )
    others = "; ".join(f"{row.title} {100 * (row.validation or 0.0):.1f} %" for row in compared)
    return (
        f"Recommended with {fewest:,} labels: {best.title}. It was chosen by {METRIC_TITLES[main].lower()} on "
        f"{num_validation:,} labelled validation images that none of the compared models had learned from "
        f"({100 * best.validation:.1f} %; {others}), not by the test score."
    )


def verdicts(rows: list[Row], found: list[Difference]) -> tuple[str, ...]:
    """One sentence a budget, fewest labels first: the pre-training chosen on the validation part against from scratch.

    The rule: it helps, or hurts, where the 95 % interval of the paired difference leaves out 0.
    """
    sentences = []
    for num_labels in sorted({row.num_labels for row in rows}):
        ours = chosen(rows, num_labels, kind="method")
        scratch = next(row for row in rows if row.arm == SCRATCH and row.num_labels == num_labels)
        gain = next(d for d in found if d.arm == ours.arm and d.num_labels == num_labels)
        finding = {"helps": "pre-training helps", "hurts": "pre-training hurts"}.get(gain.finding, gain.finding)
        points = gain.estimate
        scope = ", for this one encoder" if ours.num_seeds == 1 else ""
        sentences.append(
            f"With {num_labels:,} labels, {ours.title}: {ours.scores[gain.metric]} "
            f"{METRIC_TITLES[gain.metric].lower()} against {scratch.scores[gain.metric]} from scratch: {finding} "
            f"({_signed(points.value)} points [{_signed(points.low)}, {_signed(points.high)}]{scope})."
        )
    return tuple(sentences)


def _signed(share: float) -> str:
    return f"{100 * share:+z.1f}".replace("-", "−")


def _stack(answers: list[list[Answers]]) -> NDArray[np.float64]:
    """`(seeds, draws, n, classes)`."""
    return np.stack([np.stack([cell.test for cell in draws]) for draws in answers]).astype(np.float64)


def _validation_score(answers: list[list[Answers]], truth: Truth, main: str) -> float | None:
    """Mean of the main metric over seeds and draws, on the validation part."""
    if not len(truth.validation):
        return None
    scores = [METRICS[main](truth.validation, cell.validation) for draws in answers for cell in draws]
    return float(np.mean(scores))
