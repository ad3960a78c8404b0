"""Policies that were learned, drawn: one small panel an operation, a line a run, and where all of them began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from kontrast.study import looks, training
from kontrast.study.contents import Learned, LearnedOperation
from kontrast.study.figures import Line
from kontrast.study.looks import Style, styles
from kontrast.study.wording import count, with_labels

START = "The start"
Styles = Mapping[int | None, Style]
"""How the runs of each number of labels look."""


class Exhibit(NamedTuple):
    """What the page shows of one arm, beyond the plain data."""

    learned: Learned
    keys: list[tuple[str, Markup]]
    """Whose lines look how."""

    panels: list[tuple[LearnedOperation, Markup]]


def exhibits(found: Sequence[Learned]) -> list[Exhibit]:
    """Every arm's panels, and what tells their lines apart."""
    return [_exhibit(each) for each in found]


def _exhibit(learned: Learned) -> Exhibit:
    ends = learned.operations[0].ends
    own, (start,) = styles("method" for _ in ends), styles(["baseline"])
    by_labels = {end.num_labels: style for end, style in zip(ends, own, strict=True)}
    keys = [
        (
            f"{with_labels(end.num_labels).capitalize()} ({count(end.num_runs, 'run')})",
            looks.key(by_labels[end.num_labels]),
        )
        for end in ends
    ]
    panels = [(operation, _panel(operation, by_labels, start)) for operation in learned.operations]
    return Exhibit(learned, [*keys, (START, looks.key(start))], panels)


def _panel(operation: LearnedOperation, by_labels: Styles, start: Style) -> Markup:
    """The axis holds the value that does nothing, so that a small step looks small."""
    lines = [
        Line(title=course.title, style=by_labels[course.num_labels], x=course.epochs, y=course.values)
        for course in operation.courses
    ]
    ends = (0.0, max(x for line in lines for x in line.x))
    lines.append(Line(title=START, style=start, x=ends, y=[operation.start] * 2))
    return training.drawing(lines, title=operation.name, within=[operation.nothing])
