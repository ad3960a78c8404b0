"""From predictions to findings: scores with intervals, paired differences, labels saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.evaluate import intervals
from kontrast.evaluate.metrics import METRICS
from kontrast.evaluate.savings import equivalent_labels
from kontrast.study.contents import Difference, Row, Saving
from kontrast.study.plan import Answers, Arm, Budget

SCRATCH = "scratch"
"""The arm that pre-training has to beat."""
HOPELESS = 25
"""Times the evidence from which on a difference is not worth looking for."""


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
            stacked = stack(answers)
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
    """Every other arm minus the one from scratch, then each method minus what it must beat besides.

    That is each other method, given weights, and the untrained encoder under the same protocol.
    """
    scratch = next(arm for arm in arms if arm.key == SCRATCH)
    pairs = [(arm, scratch) for arm in arms if arm is not scratch]
    pairs += [(ours, theirs) for ours, theirs in combinations(arms, 2) if _is_compared(ours, theirs)]
    return [_difference(cells, pair, budget, truth, main) for budget in budgets for pair in pairs]


def _is_compared(ours: Arm, theirs: Arm) -> bool:
    if ours.kind != "method" or theirs.key == SCRATCH:
        return False
    return theirs.start != "fresh" or theirs.protocol == ours.protocol


def _difference(cells: Cells, pair: tuple[Arm, Arm], budget: Budget, truth: Truth, main: str) -> Difference:
    ours, theirs = pair
    answers = cells[ours.key, budget]
    gain = intervals.difference(
        truth.test, stack(answers), stack(cells[theirs.key, budget]), main, groups=truth.test_groups
    )
    finding: str = intervals.verdict(gain)
    if ours.kind == "baseline" or theirs.key != SCRATCH:
        finding = {"helps": "higher", "hurts": "lower"}.get(finding, finding)
    return Difference(
        arm=ours.key,
        title=ours.title,
        baseline=theirs.title,
        num_labels=len(answers[0][0].labelled),
        metric=main,
        estimate=gain,
        finding=finding,
    )


def savings(cells: Cells, arms: tuple[Arm, ...], budgets: tuple[Budget, ...], truth: Truth, main: str) -> list[Saving]:
    """For every method at every budget, the labels that from scratch needs for its score; none with a single budget."""
    budgets = tuple(sorted(budgets, key=lambda budget: _num_labels(cells, budget)))
    counts = [_num_labels(cells, budget) for budget in budgets]
    if len(counts) < 2:
        return []
    scratch = [stack(cells[SCRATCH, budget]) for budget in budgets]
    found = []
    for budget, num_labels in zip(budgets, counts, strict=True):
        for arm in (arm for arm in arms if arm.kind == "method"):
            ours = stack(cells[arm.key, budget])
            needed = equivalent_labels(truth.test, ours, scratch, counts, main, groups=truth.test_groups)
            ends = {"fewest": counts[0], "most": counts[-1]}
            found.append(Saving(arm=arm.key, title=arm.title, num_labels=num_labels, **vars(needed), **ends))
    return found


def stack(answers: list[list[Answers]]) -> NDArray[np.float64]:
    """`(seeds, draws, n, classes)`."""
    return np.stack([np.stack([cell.test for cell in draws]) for draws in answers]).astype(np.float64)


def _num_labels(cells: Cells, budget: Budget) -> int:
    return len(cells[SCRATCH, budget][0][0].labelled)


def _validation_score(answers: list[list[Answers]], truth: Truth, main: str) -> float | None:
    """Mean of the main metric over seeds and draws, on the validation part; None where that does not define it."""
    if not len(truth.validation):
        return None
    score = float(np.mean([METRICS[main](truth.validation, cell.validation) for draws in answers for cell in draws]))
    return score if math.isfinite(score) else None
