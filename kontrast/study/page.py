"""The page of a study: one HTML file with the verdict, the evidence and the way to repeat it; no script, no network."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kontrast.study import figures
from kontrast.study.contents import METRICS, Curve, Difference, Page, Row, Score
from kontrast.study.figures import Line, Style, shorten, visible

MEASURES = {
    "knn_accuracy": ("k-NN accuracy", "On the validation part: how well near images share a class. Higher is better."),
    "linear_accuracy": ("Linear accuracy", "On the validation part: how well classes separate. Higher is better."),
    "spread": ("Spread", "1 when the embeddings fill the sphere, 0 when all images look alike (collapse)."),
    "effective_rank": ("Effective rank", "How many directions the embeddings use. 1 is collapse."),
    "alignment": ("Alignment", "Mean squared distance of two views of one image. Lower is closer."),
    "uniformity": ("Uniformity", "Lower is more evenly spread over the sphere. 0 is collapse."),
}
"""Measures of `metrics.jsonl` that get a panel, and how to read each. The loss comes first, apart."""

MOST_SKIPPED = 50
"""How many skipped files are named; the rest are counted."""


class Figure(NamedTuple):
    """A drawing for wide pages and paper, and one for a telephone."""

    wide: Markup
    narrow: Markup
    direct: bool
    """Whether the lines are named in the narrow drawing too, so that no key is needed."""


class Panel(NamedTuple):
    """One small figure of the training and health curves."""

    title: str
    hint: str
    drawing: Markup


class Table(NamedTuple):
    """The rows that share a number of labels."""

    num_labels: int
    fraction: float | None
    rows: list[Row]


class Arm(NamedTuple):
    """What one arm, or a run that belongs to none, is called and looks like."""

    title: str
    style: Style


def render(page: Page) -> str:
    """Make the HTML: whatever the strings of a page hold is shown as text, and equal pages give equal bytes."""
    arms, runs = _arms(page), _runs(page)
    template = _environment().get_template("page.html.jinja")
    return template.render(
        page=page,
        palette=figures.PALETTE,
        metrics=_metrics(page),
        tables=_tables(page.rows),
        scopes=_scopes(page),
        efficiency=_efficiency(page, arms),
        keys=[(arm.title, _key(arm)) for name, arm in arms.items() if name in {row.arm for row in page.rows}],
        differences=_differences(page),
        compared=list(dict.fromkeys(each.metric for each in page.differences)),
        baselines=list(dict.fromkeys(each.baseline for each in page.differences)),
        panels=_panels(arms, runs),
        run_keys=[(_counted(arms[name].title, len(group)), _key(arms[name])) for name, group in runs.items()],
        most_skipped=MOST_SKIPPED,
    )


def write(page: Page, path: Path) -> None:
    """Render, then put the file in place at once: a reader sees the old page or the new one, never a part.

    Raises:
        OSError: The file cannot be written; what was at `path` is still there.
    """
    html = render(page).encode()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kontrast.study", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": _metric,
        "share": _share,
        "points": _points,
        "interval": _interval,
        "shorten": shorten,
    }
    return environment


def _shown(value: object) -> object:
    """Let nothing through a `{{ }}` of the template that a page cannot show; escaping comes after."""
    return value if isinstance(value, Markup) else visible(str(value))


def _metric(name: str) -> str:
    return METRICS.get(name, name.replace("_", " "))


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "not defined"


def _points(value: float) -> str:
    """Write a difference in percentage points, with its sign."""
    text = f"{100 * value:+.1f}" if math.isfinite(value) else "not defined"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _interval(score: Score) -> str:
    return _bracket(score.low, score.high)


def _bracket(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "(no interval)"
    return f"[{100 * low:.1f}, {100 * high:.1f}]".replace("-0.0", "0.0").replace("-", "−")


def _arms(page: Page) -> dict[str, Arm]:
    """By key: every arm in the order of the rows, then every group of runs that is no arm itself."""
    kinds: dict[str, tuple[str, Literal["method", "baseline"]]] = {row.arm: (row.title, row.kind) for row in page.rows}
    strangers = [name for name in _runs(page) if name not in kinds and not _readings(name, kinds)]
    kinds |= {name: (name, "method") for name in strangers}
    styles = figures.styles(kind for _, kind in kinds.values())
    arms = {name: Arm(title, style) for (name, (title, _)), style in zip(kinds.items(), styles, strict=True)}
    for name in _runs(page):
        if name not in arms:
            first = arms[_readings(name, kinds)[0]]
            arms[name] = Arm(first.title.split(",")[0], first.style)
    return arms


def _readings(name: str, arms: Iterable[str]) -> list[str]:
    """Arms that read the same encoder in several ways: `simclr-linear` and `simclr-knn` of `simclr`."""
    return [arm for arm in arms if arm.startswith(f"{name}-")]


def _runs(page: Page) -> dict[str, list[Curve]]:
    """Group curves: each run goes to the longest key of an arm, or else first part of one, that its name holds."""
    arms = {row.arm for row in page.rows}
    keys = sorted(arms, key=len, reverse=True) + sorted({arm.split("-")[0] for arm in arms}, key=len, reverse=True)
    groups: dict[str, list[Curve]] = {}
    for run, curve in page.curves.items():
        owner = next((key for key in keys if re.search(rf"(?<![^\W_]){re.escape(key)}(?![^\W_])", run)), run)
        groups.setdefault(owner, []).append(curve)
    return groups


def _metrics(page: Page) -> list[str]:
    """Those that any row has, the main one first."""
    present = {name: None for row in page.rows for name in row.scores}
    return [name for name in dict.fromkeys([page.metric, *METRICS, *present]) if name in present]


def _tables(rows: Sequence[Row]) -> list[Table]:
    tables = []
    for count in sorted({row.num_labels for row in rows}):
        group = [row for row in rows if row.num_labels == count]
        tables.append(Table(count, next((row.fraction for row in group if row.fraction is not None), None), group))
    return tables


def _scopes(page: Page) -> list[str]:
    scores = [score for row in page.rows for score in row.scores.values()]
    return list(dict.fromkeys(score.scope for score in [*scores, *(each.estimate for each in page.differences)]))


def _efficiency(page: Page, arms: Mapping[str, Arm]) -> Figure | None:
    """Draw the main metric against the number of labels; with one number only, one row an arm."""
    rows = sorted((row for row in page.rows if page.metric in row.scores), key=lambda row: row.num_labels)
    if not rows:
        return None
    lines = [_line(arm, [row for row in rows if row.arm == name], page.metric) for name, arm in arms.items()]
    lines = [line for line in lines if line.x]
    label = f"{_metric(page.metric)} on the test images by number of labels, with 95 % intervals. "
    label += " ".join(_said(line) for line in lines)
    if len({row.num_labels for row in rows}) == 1:
        wide, narrow = (figures.forest(lines, label=label, width=width) for width in (800, 340))
        return Figure(Markup(wide), Markup(narrow), direct=True)
    wide = figures.label_efficiency(lines, label=label, width=860, height=430)
    narrow = figures.label_efficiency(lines, label=label, width=340, height=320)
    return Figure(Markup(wide), Markup(narrow), direct=False)


def _line(arm: Arm, rows: Sequence[Row], metric: str) -> Line:
    scores = [row.scores[metric] for row in rows]
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
        f"{_share(value)} {_bracket(low, high)} with {count:,.0f} labels"
        for count, value, low, high in zip(line.x, line.y, line.low, line.high, strict=True)
    )
    return f"{shorten(line.title, letters=80)}: {', '.join(numbers)}."


def _differences(page: Page) -> list[tuple[Difference, str, Markup]]:
    """Each with the title of its baseline and its bar."""
    titles = {row.arm: row.title for row in page.rows}
    estimates = [difference.estimate for difference in page.differences]
    ends = (abs(end) for each in estimates for end in (each.value, each.low, each.high) if math.isfinite(end))
    limit = max(ends, default=0.0) or 1.0
    bars = (figures.difference(each.value, each.low, each.high, limit=limit) for each in estimates)
    return [
        (each, titles.get(each.baseline, each.baseline), Markup(bar))
        for each, bar in zip(page.differences, bars, strict=True)
    ]


def _panels(arms: Mapping[str, Arm], runs: Mapping[str, Sequence[Curve]]) -> list[Panel]:
    """One panel a method for the loss, whose scale is each method's own; one for all for every other measure."""
    panels = []
    for name, group in runs.items():
        panels.append(_panel("loss", f"Loss of {shorten(arms[name].title, letters=40)}", "", arms, {name: group}))
    for measure, (title, hint) in MEASURES.items():
        panels.append(_panel(measure, title, hint, arms, runs))
    return [panel for panel in panels if panel]


def _panel(
    measure: str, title: str, hint: str, arms: Mapping[str, Arm], runs: Mapping[str, Sequence[Curve]]
) -> Panel | None:
    lines = [_progress(measure, arms[name], curve) for name, group in runs.items() for curve in group]
    lines = [line for line in lines if any(math.isfinite(y) for y in line.y)]
    if not lines:
        return None
    label = f"{title} by epoch. " + " ".join(_ends(line) for line in lines)
    return Panel(title, hint, Markup(figures.curves(lines, label=label, percent=measure.endswith("accuracy"))))


def _progress(measure: str, arm: Arm, curve: Curve) -> Line:
    points = [(row.get("epoch", i), row[measure]) for i, row in enumerate(curve) if measure in row]
    return Line(title=arm.title, style=arm.style, x=[x for x, _ in points], y=[y for _, y in points])


def _ends(line: Line) -> str:
    title = shorten(line.title, letters=80)
    return f"{title}: from {line.y[0]:.3g} at epoch {line.x[0]:g} to {line.y[-1]:.3g} at epoch {line.x[-1]:g}."


def _counted(title: str, num_runs: int) -> str:
    return title if num_runs == 1 else f"{shorten(title, letters=60)} ({num_runs} runs)"


def _key(arm: Arm) -> Markup:
    return Markup(figures.key(arm.style))
