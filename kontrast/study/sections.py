"""What the sections of a page need beyond the plain data: what is sorted, grouped, counted, drawn or said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from kontrast.study import bars, figures
from kontrast.study.arms import Arm
from kontrast.study.contents import METRICS, Closeup, Confusion, Difference, Page, Query, Reliability, Row, Saving
from kontrast.study.figures import Line
from kontrast.study.looks import styles
from kontrast.study.wording import bracket, count, metric, needed, needed_between, share, shorten, times

MOST_CLASSES = 12
"""Of a confusion matrix; with more, the commonest confusions are listed."""

MOST_CONFUSIONS = 15


class Figure(NamedTuple):
    """A drawing for wide pages and paper, and one for a telephone."""

    wide: Markup
    narrow: Markup
    direct: bool
    """Whether the lines are named in the narrow drawing too, so that no key is needed."""


class Table(NamedTuple):
    """The rows that share a number of labels."""

    num_labels: int
    fraction: float | None
    rows: list[Row]


def metrics(page: Page) -> list[str]:
    """Those that any row has, the main one first."""
    present = {name: None for row in page.rows for name in row.scores}
    return [name for name in dict.fromkeys([page.metric, *METRICS, *present]) if name in present]


def tables(rows: Sequence[Row]) -> list[Table]:
    """One for each number of labels, the fewest first."""
    found = []
    for num_labels in sorted({row.num_labels for row in rows}):
        group = [row for row in rows if row.num_labels == num_labels]
        found.append(Table(num_labels, next((row.fraction for row in group if row.fraction is not None), None), group))
    return found


def scopes(page: Page) -> list[str]:
    """What the intervals cover, each said once."""
    scores = [score for row in page.rows for score in row.scores.values()]
    return list(dict.fromkeys(score.scope for score in [*scores, *(each.estimate for each in page.differences)]))


def draws(rows: Sequence[Row]) -> str:
    """Of how many models a point is the mean."""
    if not rows:
        return ""
    seeds, draws = sorted({row.num_seeds for row in rows}), sorted({row.num_draws for row in rows})
    return f"{_range(seeds, 'seed')} × {_range(draws, 'draw')} of labels"


def efficiency(page: Page, arms: Mapping[str, Arm]) -> Figure | None:
    """Draw the main metric against the number of labels; with one number only, one row an arm."""
    rows = sorted((row for row in page.rows if page.metric in row.scores), key=lambda row: row.num_labels)
    if not rows:
        return None
    lines = [_line(arm, [row for row in rows if row.arm == name], page.metric) for name, arm in arms.items()]
    lines = [line for line in lines if line.x]
    label = f"{metric(page.metric)} on the test images by number of labels, with 95 % intervals. "
    label += " ".join(_said(line) for line in lines)
    if len({row.num_labels for row in rows}) == 1:
        wide, narrow = (figures.forest(lines, label=label, width=width) for width in (800, 340))
        return Figure(Markup(wide), Markup(narrow), direct=True)
    wide = figures.label_efficiency(lines, label=label, width=860, height=430)
    narrow = figures.label_efficiency(lines, label=label, width=340, height=320)
    return Figure(Markup(wide), Markup(narrow), direct=False)


def savings(page: Page) -> list[tuple[Saving, Markup]]:
    """Each with its bar."""
    if not page.savings:
        return []
    labels = [number for each in page.savings for number in (each.num_labels, each.fewest, each.most)]
    limits = min(labels), max(labels)
    return [
        (each, Markup(bars.saving(each.num_labels, each.value, each.low, each.high, limits=limits)))
        for each in page.savings
    ]


def saving_said(saving: Saving) -> str:
    """Say one saving as a sentence."""
    return (
        f"From scratch needs {needed(saving.value, saving)} labels {needed_between(saving)} to reach what "
        f"{shorten(saving.title, letters=80)} reaches with {count(saving.num_labels)}: "
        f"{times(saving).replace(' ×', ' times')} as many."
    )


def differences(page: Page) -> list[tuple[str, list[tuple[Difference, Markup]]]]:
    """By the title of what is subtracted: each difference with its bar, all bars on one scale."""
    titles = {row.arm: row.title for row in page.rows}
    estimates = [difference.estimate for difference in page.differences]
    ends = (abs(end) for each in estimates for end in (each.value, each.low, each.high) if math.isfinite(end))
    limit = max(ends, default=0.0) or 1.0
    groups: dict[str, list[tuple[Difference, Markup]]] = {}
    for each in page.differences:
        bar = bars.difference(each.estimate.value, each.estimate.low, each.estimate.high, limit=limit)
        groups.setdefault(titles.get(each.baseline, each.baseline), []).append((each, Markup(bar)))
    return list(groups.items())


def confusions(confusion: Confusion) -> list[tuple[str, str, float]]:
    """The commonest: true class, what it is taken for, and for which share of its images."""
    pairs = [
        (true, predicted, value)
        for i, (true, row) in enumerate(zip(confusion.classes, confusion.shares, strict=True))
        for j, (predicted, value) in enumerate(zip(confusion.classes, row, strict=True))
        if i != j and value > 0
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:MOST_CONFUSIONS]


def reliability(
    closeup: Closeup | None, arms: Mapping[str, Arm]
) -> tuple[Markup, list[tuple[Reliability, Arm]]] | None:
    """The diagram, and each arm of it with the look that it has in the other figures."""
    if closeup is None or not closeup.reliability:
        return None
    fresh = styles(each.kind for each in closeup.reliability)
    known = {arm.title: arm for arm in arms.values()}
    drawn = [
        known.get(each.title, Arm(each.title, look)) for each, look in zip(closeup.reliability, fresh, strict=True)
    ]
    label = "How often predictions are right, by their probability. "
    label += " ".join(_bins_said(each) for each in closeup.reliability)
    svg = figures.reliability(closeup.reliability, [arm.style for arm in drawn], label=label)
    return Markup(svg), list(zip(closeup.reliability, drawn, strict=True))


def agreeing(queries: Sequence[Query]) -> tuple[int, int, int]:
    """How many neighbours have the label of their query, how many have one at all, and how many there are."""
    pairs = [(query.label, neighbour.label) for query in queries for neighbour in query.neighbours]
    labelled = [(a, b) for a, b in pairs if b is not None]
    return sum(a == b for a, b in labelled), len(labelled), len(pairs)


def _line(arm: Arm, rows: Sequence[Row], name: str) -> Line:
    scores = [row.scores[name] for row in rows]
    return Line(
        title=arm.title,
        style=arm.style,
        x=[row.num_labels for row in rows],
        y=[score.value for score in scores],
        low=[score.low for score in scores],
        high=[score.high for score in scores],
    )


def _said(line: Line) -> str:
    """Say an arm's numbers in a sentence, for who cannot see the figure."""
    numbers = (
        f"{share(value)} {bracket(low, high)} with {count(labels, 'label')}"
        for labels, value, low, high in zip(line.x, line.y, line.low, line.high, strict=True)
    )
    return f"{shorten(line.title, letters=80)}: {', '.join(numbers)}."


def _bins_said(bins: Reliability) -> str:
    numbers = (
        f"at {share(confidence, decimals=0)} right in {share(accuracy, decimals=0)} of {count(size)}"
        for confidence, accuracy, size in zip(bins.confidence, bins.accuracy, bins.count, strict=True)
    )
    ece = f"expected calibration error {share(bins.ece)} over {count(sum(bins.count), 'prediction')}"
    return f"{shorten(bins.title, letters=80)}: {ece}; {', '.join(numbers)}."


def _range(numbers: Sequence[int], thing: str) -> str:
    if len(numbers) == 1:
        return count(numbers[0], thing)
    return f"{numbers[0]:,} to {count(numbers[-1], thing)}"
