"""The curves of training and health: one small panel a measure, drawn against epochs, encoder passes and time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from markupsafe import Markup

from kontrast.study import figures
from kontrast.study.arms import Arm
from kontrast.study.contents import Curve
from kontrast.study.figures import Line
from kontrast.study.wording import count, shorten

MEASURES = {
    "knn_accuracy": ("k-NN accuracy", "On the validation part: how well near images share a class. Higher is better."),
    "linear_accuracy": ("Linear accuracy", "On the validation part: how well classes separate. Higher is better."),
    "score_gap": (
        "Energy gap",
        "Mean score of views minus that of samples, of energy models. Near 0 while they keep up with each other.",
    ),
    "spread": ("Spread", "1 when the embeddings fill the sphere, 0 when all images look alike (collapse)."),
    "effective_rank": ("Effective rank", "How many directions the embeddings use. 1 is collapse."),
    "alignment": ("Alignment", "Mean squared distance of two views of one image. Lower is closer."),
    "uniformity": ("Uniformity", "Lower is more evenly spread over the sphere. 0 is collapse."),
}
"""Measures of `metrics.jsonl` that get a panel, and how to read each. The loss comes first, apart."""

LOSS_HINT = "What training lowers. Its scale is the method's own, so compare no two methods by it."

MOST_POINTS = 200
"""Of one line: about as many as a panel has pixels for."""

Runs = Mapping[str, Sequence[Curve]]
"""The curves of every arm, by its key."""


class Axis(NamedTuple):
    """What panels are drawn against."""

    key: str
    title: str
    """What the reader chooses it by."""

    unit: str
    """What stands below a panel."""


EPOCHS = Axis("epoch", "Epochs", "epoch")


class Panel(NamedTuple):
    """One small figure of the training and health curves."""

    title: str
    hint: str
    drawings: tuple[tuple[Axis, Markup], ...]


def axes(runs: Runs) -> list[Axis]:
    """Epochs, and encoder passes and time where every row of every run has them: fair to all runs, or not there."""
    rows = [row for group in runs.values() for curve in group for row in curve]
    found = [EPOCHS]
    if rows and all("passes" in row for row in rows):
        found.append(Axis("passes", "Encoder passes", "images through an encoder"))
    if rows and all("seconds" in row for row in rows):
        longest = max(sum(row["seconds"] for row in curve) for group in runs.values() for curve in group)
        unit = "seconds" if longest < 180 else "minutes" if longest < 3 * 3600 else "hours"
        found.append(Axis("time", "Wall clock", unit))
    return found


def panels(arms: Mapping[str, Arm], runs: Runs) -> list[Panel]:
    """One panel a method for the loss, whose scale is each method's own; one for all for every other measure."""
    found = []
    for name, group in runs.items():
        title = f"Loss of {shorten(arms[name].title, letters=40)}"
        found.append(_panel("loss", title, LOSS_HINT, arms, {name: group}, axes(runs)))
    for measure, (title, hint) in MEASURES.items():
        found.append(_panel(measure, title, hint, arms, runs, axes(runs)))
    return [panel for panel in found if panel.drawings]


def _panel(measure: str, title: str, hint: str, arms: Mapping[str, Arm], runs: Runs, choices: Iterable[Axis]) -> Panel:
    drawings = []
    for axis in choices:
        lines = [_line(measure, arms[name], curve, axis) for name, group in runs.items() for curve in group]
        lines = [line for line in lines if any(math.isfinite(y) for y in line.y)]
        if lines:
            percent = measure.endswith("accuracy")
            drawings.append((axis, drawing(lines, title=title, axis=axis, percent=percent)))
    return Panel(title, hint, tuple(drawings))


def drawing(
    lines: Sequence[Line], *, title: str, axis: Axis = EPOCHS, percent: bool = False, within: Sequence[float] = ()
) -> Markup:
    """One panel, with where each line starts and ends for who cannot see it; `percent` and `within` as in `curves`."""
    label = f"{title} by {axis.unit}. " + " ".join(_said(line, axis) for line in lines)
    thin = [_thin(line) for line in lines]
    return Markup(figures.curves(thin, label=label, axis=axis.unit, percent=percent, within=within))


def _line(measure: str, arm: Arm, curve: Curve, axis: Axis) -> Line:
    kept = [(x, row[measure]) for x, row in zip(_places(curve, axis), curve, strict=True) if measure in row]
    return Line(title=arm.title, style=arm.style, x=[x for x, _ in kept], y=[y for _, y in kept])


def _places(curve: Curve, axis: Axis) -> list[float]:
    if axis.key == "epoch":
        return [row.get("epoch", i) for i, row in enumerate(curve)]
    if axis.key == "passes":
        return [row["passes"] for row in curve]
    unit = {"seconds": 1, "minutes": 60, "hours": 3600}[axis.unit]
    return [seconds / unit for seconds in accumulate(row["seconds"] for row in curve)]


def _thin(line: Line) -> Line:
    """Keep of every stretch of a long line its lowest and its highest point, so that no peak is lost."""
    if len(line.y) <= MOST_POINTS:
        return line
    size = math.ceil(2 * len(line.y) / MOST_POINTS)
    kept = {0, len(line.y) - 1}
    for start in range(0, len(line.y), size):
        stretch = range(start, min(start + size, len(line.y)))
        finite = [i for i in stretch if math.isfinite(line.y[i])]
        kept |= {i for i in stretch if i not in finite}
        kept |= {pick(finite, key=lambda i: line.y[i]) for pick in (min, max) if finite}
    return Line(
        title=line.title,
        style=line.style,
        x=[line.x[i] for i in sorted(kept)],
        y=[line.y[i] for i in sorted(kept)],
    )


def _said(line: Line, axis: Axis) -> str:
    """Say where a line starts and ends, for who cannot see it."""
    first, last = (_place(x, axis) for x in (line.x[0], line.x[-1]))
    return f"{shorten(line.title, letters=80)}: from {line.y[0]:.3g} {first} to {line.y[-1]:.3g} {last}."


def _place(x: float, axis: Axis) -> str:
    if axis.key == "epoch":
        return f"at epoch {x:g}"
    if axis.key == "passes":
        return f"after {count(x, 'image')}"
    return f"after {x:.3g} {axis.unit.removesuffix('s') if x == 1 else axis.unit}"
