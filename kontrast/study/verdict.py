"""What a study says of itself: the verdict, the recommendation, and what would change them, each by a written rule."""

from __future__ import annotations

import math
from typing import NamedTuple

from kontrast.study import wording
from kontrast.study.contents import Difference, Row, Score
from kontrast.study.findings import SCRATCH

HOPELESS = 25
"""Times the evidence from which on a difference is not worth looking for."""
NEGLIGIBLE = 0.02
"""Two arms whose difference lies within this of 0, interval and all, are equal for all purposes."""
NOT_SHOWN = "no difference shown"


class Compared(NamedTuple):
    """The method chosen for a number of labels, beside what it has to beat."""

    ours: Row
    scratch: Row
    gain: Difference
    """Over the arm from scratch."""
    control: Difference | None
    """Over the same protocol on given weights, or else on the untrained encoder; None where there is none."""


def chosen(rows: list[Row], num_labels: int, *, kind: str | None = None, tie: float = 0.0) -> Row:
    """The arm with the best validation score at one number of labels.

    Args:
        rows: All rows.
        num_labels: Which of them.
        kind: "method" leaves baselines out.
        tie: Arms less than so much below the best are as good; of these a baseline comes first, since it costs less,
            then the first in order.

    Returns:
        The first in order where no arm has a validation score.
    """
    here = [row for row in rows if row.num_labels == num_labels and kind in (None, row.kind)]
    best = max((row.validation for row in here if row.validation is not None), default=None)
    if best is None:
        return here[0]
    as_good = [row for row in here if row.validation is not None and row.validation >= best - tie]
    return min(as_good, key=lambda row: (row.kind == "method", -(row.validation or 0.0)))


def recommendation(rows: list[Row], main: str, num_validation: int) -> str:
    """What to use at the fewest labels, and how that was chosen: on the validation part, never by the test score.

    The rule: the best score on the validation part; arms that are less than one of its images apart are equally good,
    and then a baseline is recommended, since it needs no pre-training.
    """
    fewest = min(row.num_labels for row in rows)
    tie = 1 / max(num_validation, 1)
    best = chosen(rows, fewest, tie=tie)
    if best.validation is None:
        return (
            f"No recommendation: there are too few labels for a validation part that would define "
            f"{wording.metric_inline(main)}. {best.title} is the first method asked for."
        )
    compared = sorted(
        (row for row in rows if row.num_labels == fewest and row is not best and row.validation is not None),
        key=lambda row: -(row.validation or 0.0),
    )
    others = "; ".join(f"{row.title} {100 * (row.validation or 0.0):.1f} %" for row in compared)
    tied = [row.title for row in compared if abs((row.validation or 0.0) - best.validation) <= tie]
    return (
        f"Recommended with {fewest:,} labels: {best.title}. It was chosen by {wording.metric_inline(main)} on "
        f"{num_validation:,} validation images whose labels no model had learned from, though pre-training saw these "
        f"images without labels ({100 * best.validation:.1f} %; {others}), not by the test score."
        + (f" {' and '.join(tied)} did as well, to one image." if tied else "")
    )


def verdicts(rows: list[Row], found: list[Difference]) -> tuple[str, ...]:
    """At most two sentences: the fewest labels, then all other numbers of labels.

    The pre-training chosen on the validation part is compared with learning from scratch. The rule:

    - it helps where the 95 % interval of the paired difference to from scratch lies above 0, and so does that to its
      control: the same protocol on given weights, or else on the untrained encoder;
    - it hurts where the interval of the difference to from scratch lies below 0;
    - above from scratch but not above the control, both are said;
    - otherwise no difference is shown.
    """
    first, *others = sorted({row.num_labels for row in rows})
    found_first = _compared(rows, found, first)
    ours, scratch, gain, _ = found_first
    name = wording.metric_inline(gain.metric)
    if not math.isfinite(gain.estimate.value):
        return (f"These test images do not define {name}, so nothing is compared.",)
    scope = ", for this one encoder" if ours.num_seeds == 1 else ""
    headline = (
        f"With {first:,} labels, {_word(found_first)}: {ours.title} reaches {ours.scores[gain.metric]} {name}, from "
        f"scratch {scratch.scores[gain.metric]} ({wording.gain(gain.estimate)}{scope})."
    )
    if not others:
        return (headline,)
    rest = [_compared(rows, found, num_labels) for num_labels in others]
    listed = "; ".join(
        f"with {each.gain.num_labels:,}, {_word(each)} ({each.ours.title}, {wording.gain(each.gain.estimate)})"
        for each in rest
    )
    return headline, f"More labels: {listed}."


def outlook(rows: list[Row], found: list[Difference]) -> str:
    """What would change the verdict at the fewest labels.

    The rules, with d the difference to from scratch, h half its interval, and r the share of its variance that is that
    of the runs, so that t times as many runs leave (r / t + 1 - r) of it:

    - Where no difference is shown, the larger of both parts is the one to have more of, if with less than 25 times as
      much of it alone h would fall to |d|; else more of both, if less than 25 times as much would do; else nothing is
      worth looking for. That the arms are equal is said only where the whole interval lies within 2 points of 0.
    - Where one is shown with one seed: more seeds, since the interval is about this one encoder.
    - With several numbers of labels: whether the difference shrinks, grows or turns, if the intervals at the fewest and
      the most do not overlap.
    """
    counts = sorted({row.num_labels for row in rows})
    first = _compared(rows, found, counts[0])
    if not math.isfinite(first.gain.estimate.value):
        return ""
    sentences = [_more_evidence(first)]
    if first.ours.num_seeds == 1:
        sentences.append("All this is about one encoder; --seeds 3 would tell whether it holds for the method.")
    if len(counts) > 1:
        sentences.append(_more_labels(first, _compared(rows, found, counts[-1])))
    return " ".join(sentences)


def _compared(rows: list[Row], found: list[Difference], num_labels: int) -> Compared:
    ours = chosen(rows, num_labels, kind="method")
    titles = {row.title: row for row in rows if row.num_labels == num_labels}
    own = [each for each in found if each.arm == ours.arm and each.num_labels == num_labels]
    gain = next(each for each in own if titles[each.baseline].arm == SCRATCH)
    protocol = ours.arm.rpartition("-")[2]
    by_arm = {titles[each.baseline].arm: each for each in own}
    control = by_arm.get(f"given-{protocol}", by_arm.get(f"untrained-{protocol}"))
    return Compared(ours, titles[gain.baseline], gain, control)


def _word(compared: Compared) -> str:
    gain, control = compared.gain, compared.control
    if gain.finding == "hurts":
        return "pre-training hurts"
    if gain.finding != "helps":
        return NOT_SHOWN
    if control is None or control.finding == "higher":
        return "pre-training helps"
    over = wording.gain(control.estimate)
    return f"better than from scratch, but not shown to be better than “{control.baseline}” ({over})"


def _more_evidence(compared: Compared) -> str:
    estimate = compared.gain.estimate
    if compared.gain.finding != NOT_SHOWN:
        return (
            "The sign of the difference to from scratch is clear of chance; more evidence would only narrow its "
            "interval."
        )
    size = f"{wording.points(estimate.value)} points"
    runs = "label draws (--draws)" if compared.ours.num_seeds == 1 else "seeds (--seeds)"
    alone, together = _times(estimate)
    if alone < HOPELESS:
        source = runs if estimate.of_runs > 0.5 else "test images"
        return f"If the difference of {size} is real, about {math.ceil(alone)} times as many {source} would show it."
    if together < HOPELESS:
        return (
            f"If the difference of {size} is real, about {math.ceil(together)} times as many {runs} and as many times "
            "the test images would show it; more of one alone would not."
        )
    if max(abs(estimate.low), abs(estimate.high)) <= NEGLIGIBLE:
        return f"The whole interval lies within {100 * NEGLIGIBLE:.0f} points of 0: treat the two as equal here."
    return f"These data cannot tell the two apart: for a difference of {size}, not with {HOPELESS} times the evidence."


def _times(estimate: Score) -> tuple[float, float]:
    """How many times as much of the larger part of the variance, or of both, makes the interval leave out 0."""
    half = (estimate.high - estimate.low) / 2
    wanted = (estimate.value / half) ** 2
    larger = max(estimate.of_runs, 1 - estimate.of_runs)
    rest = 1 - larger
    alone = larger / (wanted - rest) if wanted > rest else math.inf
    return alone, 1 / wanted if wanted > 0 else math.inf


def _more_labels(fewest: Compared, most: Compared) -> str:
    few, many = fewest.gain.estimate, most.gain.estimate
    other = f" ({most.ours.title})" if most.ours.arm != fewest.ours.arm else ""
    change = (
        f"from {wording.points(few.value)} points with {fewest.gain.num_labels:,} labels to "
        f"{wording.points(many.value)} with {most.gain.num_labels:,}{other}"
    )
    if few.low <= many.high and many.low <= few.high:
        return f"That more labels change the difference ({change}) is not shown: the intervals overlap."
    if few.value * many.value < 0:
        return f"With more labels the difference turns, {change}."
    return f"With more labels the difference {'shrinks' if abs(many.value) < abs(few.value) else 'grows'}, {change}."
