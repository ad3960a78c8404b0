"""From predictions to findings: scores with intervals, paired differences, the recommendation and the verdict."""

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
from kontrast.study import wording
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
    """Every other arm minus the one from scratch, then each method minus each other method and minus given weights."""
    scratch = next(arm for arm in arms if arm.key == SCRATCH)
    taught = [arm for arm in arms if arm.start != "fresh"]
    pairs = [(arm, scratch) for arm in arms if arm is not scratch]
    pairs += [(ours, theirs) for ours, theirs in combinations(taught, 2) if ours.kind == "method"]
    return [_difference(cells, pair, budget, truth, main) for budget in budgets for pair in pairs]


def _difference(cells: Cells, pair: tuple[Arm, Arm], budget: Budget, truth: Truth, main: str) -> Difference:
    ours, theirs = pair
    answers = cells[ours.key, budget]
    gain = intervals.difference(
        truth.test, stack(answers), stack(cells[theirs.key, budget]), main, groups=truth.test_groups
    )
    finding: str = intervals.verdict(gain)
    if theirs.key != SCRATCH:
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
        f"Recommended with {fewest:,} labels: {best.title}. It was chosen by {wording.metric(main).lower()} on "
        f"{num_validation:,} labelled validation images that none of the compared models had learned from "
        f"({100 * best.validation:.1f} %; {others}), not by the test score."
    )


def verdicts(rows: list[Row], found: list[Difference]) -> tuple[str, ...]:
    """At most two sentences: the fewest labels, then all other numbers of labels.

    The pre-training chosen on the validation part is compared with learning from scratch. The rule: it helps, or hurts,
    where the 95 % interval of the paired difference leaves out 0; otherwise no difference is shown.
    """
    first, *others = sorted({row.num_labels for row in rows})
    ours, scratch, gain = _compared(rows, found, first)
    scope = ", for this one encoder" if ours.num_seeds == 1 else ""
    headline = (
        f"With {first:,} labels, {ours.title}: {ours.scores[gain.metric]} {wording.metric(gain.metric).lower()} "
        f"against {scratch.scores[gain.metric]} from scratch: {_word(gain)} ({wording.gain(gain.estimate)}{scope})."
    )
    if not others:
        return (headline,)
    rest = (_compared(rows, found, num_labels) for num_labels in others)
    listed = "; ".join(
        f"with {gain.num_labels:,} ({ours.title}), {_word(gain)} ({wording.gain(gain.estimate)})"
        for ours, _, gain in rest
    )
    return headline, f"More labels: {listed}."


def outlook(rows: list[Row], found: list[Difference]) -> str:
    """What would change the verdict at the fewest labels.

    The rules, with d the difference and h half its interval:

    - h beyond |d| (no difference shown): as variances shrink with the number of what they come from, (h / d)^2 times as
      much of it would show a difference of this size; from 25 times on, none is said to be worth looking for. The
      larger of the two parts of the variance, runs or test images, is the one named.
    - helps or hurts with one seed: more seeds, since the interval is about this one encoder.
    - With several numbers of labels: whether the difference shrinks, by the intervals at the fewest and the most.
    """
    counts = sorted({row.num_labels for row in rows})
    ours, _, gain = _compared(rows, found, counts[0])
    sentences = [_more_evidence(ours, gain)]
    if ours.num_seeds == 1:
        sentences.append("All this is about one encoder; --seeds 3 would tell whether it holds for the method.")
    if len(counts) > 1:
        sentences.append(_more_labels(gain, _compared(rows, found, counts[-1])[2]))
    return " ".join(sentences)


def stack(answers: list[list[Answers]]) -> NDArray[np.float64]:
    """`(seeds, draws, n, classes)`."""
    return np.stack([np.stack([cell.test for cell in draws]) for draws in answers]).astype(np.float64)


def _compared(rows: list[Row], found: list[Difference], num_labels: int) -> tuple[Row, Row, Difference]:
    """The method chosen for a number of labels, the arm from scratch, and their difference."""
    ours = chosen(rows, num_labels, kind="method")
    scratch = next(row for row in rows if row.arm == SCRATCH and row.num_labels == num_labels)
    gain = next(d for d in found if (d.arm, d.num_labels, d.baseline) == (ours.arm, num_labels, scratch.title))
    return ours, scratch, gain


def _more_evidence(ours: Row, gain: Difference) -> str:
    estimate = gain.estimate
    if not math.isfinite(estimate.value):
        return "The data do not define this score, so nothing is compared."
    if gain.finding != "no difference shown":
        return "More runs or test images would narrow the interval; the sign of the difference is clear of chance."
    half = (estimate.high - estimate.low) / 2
    times = (half / estimate.value) ** 2 if estimate.value else math.inf
    if times >= HOPELESS:
        return (
            f"A difference as small as {wording.points(estimate.value)} points could not be told from chance with "
            f"{HOPELESS} times the evidence; treat the two as equal here."
        )
    runs = "label draws (--draws)" if ours.num_seeds == 1 else "seeds (--seeds)"
    source = runs if estimate.of_runs > 0.5 else "test images"
    share = max(estimate.of_runs, 1 - estimate.of_runs)
    return (
        f"If the difference of {wording.points(estimate.value)} points is real, about {math.ceil(times)} times as many "
        f"{source} would show it: {100 * share:.0f} % of its uncertainty comes from them."
    )


def _more_labels(fewest: Difference, most: Difference) -> str:
    few, many = fewest.estimate, most.estimate
    change = (
        f"from {wording.points(few.value)} points with {fewest.num_labels:,} labels to "
        f"{wording.points(many.value)} with {most.num_labels:,}"
    )
    if many.high < few.low:
        return f"With more labels the difference shrinks, {change}."
    if many.low > few.high:
        return f"With more labels the difference grows, {change}."
    return f"That more labels change the difference ({change}) is not shown: the intervals overlap."


def _word(gain: Difference) -> str:
    return {"helps": "pre-training helps", "hurts": "pre-training hurts"}.get(gain.finding, gain.finding)


def _num_labels(cells: Cells, budget: Budget) -> int:
    return len(cells[SCRATCH, budget][0][0].labelled)


def _validation_score(answers: list[list[Answers]], truth: Truth, main: str) -> float | None:
    """Mean of the main metric over seeds and draws, on the validation part."""
    if not len(truth.validation):
        return None
    scores = [METRICS[main](truth.validation, cell.validation) for draws in answers for cell in draws]
    return float(np.mean(scores))
