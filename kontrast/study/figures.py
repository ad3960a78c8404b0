"""The figures of the page: numbers in, SVG text out, the same bytes every time.

Colours leave as CSS variables, so that one figure serves a light page, a dark one and paper; text stays text, in the
font of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kontrast.study.contents import Reliability
from kontrast.study.drawing import SENTINELS, look, svg
from kontrast.study.looks import Style
from kontrast.study.wording import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a figure, with an interval around each value where there is one."""

    title: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def label_efficiency(lines: Sequence[Line], *, label: str, width: int, height: int) -> str:
    """Scores (0..1) against the number of labels, on a log axis, with intervals: bands, or bars where points are few.

    Args:
        lines: One an arm; `x` the label counts, `y`, `low` and `high` the scores.
        label: What a screen reader says instead of the figure.
        width: In CSS pixels. From 560 on, each line is named at its right end; below, the page's key names them.
        height: In CSS pixels.
    """
    direct = width >= 560
    margins = (46, 270 if direct else 14, 44, 12)
    plot = width - margins[0] - margins[1], height - margins[2] - margins[3]

    def paint(axes: Axes) -> None:
        counts = sorted({x for line in lines for x in line.x})
        span = math.log(counts[-1] / counts[0]) or 1.0
        axes.set_xscale("log")
        axes.set_xlim(counts[0] * math.exp(-0.06 * span), counts[-1] * math.exp(0.06 * span))
        shown = _apart(counts, span * 44 / plot[0])
        axes.set_xticks(shown, [f"{count:,.0f}" for count in shown])
        axes.minorticks_off()
        axes.set_xlabel("labels (log scale)")
        _percent_axis(axes.yaxis, lines)
        axes.set_ylim(*_limits(lines))
        for i, line in enumerate(lines):
            if len(line.x) > 2:
                _plot_band(axes, line)
            else:
                dodge = math.exp((i - (len(lines) - 1) / 2) * 5 * span / plot[0])
                _plot_bars(axes, line, [x * dodge for x in line.x])
        if direct:
            _name_at_right(axes, lines, plot[1])

    return svg(paint, width=width, height=height, margins=margins, label=label)


def forest(lines: Sequence[Line], *, label: str, width: int) -> str:
    """Scores (0..1) at one number of labels: one row an arm, its name and numbers above its interval.

    Args:
        lines: One an arm, each with one value.
        label: What a screen reader says instead of the figure.
        width: In CSS pixels.
    """
    row, edge = 52, 22

    def paint(axes: Axes) -> None:
        axes.set_xlim(*_limits(lines))
        axes.set_ylim(len(lines) - 0.6, -0.6)
        _percent_axis(axes.xaxis, lines)
        axes.set_yticks([])
        for i, line in enumerate(lines):
            _forest_row(axes, line, i, letters=width // 13, edge=edge / (width - 2 * edge))

    return svg(paint, width=width, height=row * len(lines) + 30, margins=(edge, edge, 26, 4), label=label)


def curves(
    lines: Sequence[Line],
    *,
    label: str,
    axis: str = "epoch",
    percent: bool = False,
    within: Sequence[float] = (),
    width: int = 330,
    height: int = 190,
) -> str:
    """Measures in the course of training: one small panel; the marker at its end tells whose line it is.

    Args:
        lines: One a run; values that are not finite leave a gap.
        label: What a screen reader says instead of the figure.
        axis: What `x` is.
        percent: Whether the values are shares in 0..1.
        within: What the vertical axis holds in any case.
        width: In CSS pixels.
        height: In CSS pixels.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def paint(axes: Axes) -> None:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=axis == "epoch", steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _large(value)))
        if percent:
            _percent_axis(axes.yaxis, lines)
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.set_xlabel(axis)
        for line in lines:
            y = [value if math.isfinite(value) else math.nan for value in line.y]
            last = max((i for i, value in enumerate(y) if not math.isnan(value)), default=0)
            axes.plot(
                line.x, y, markevery=[last], **look(line.style, linewidth=1.5 if len(lines) < 8 else 1.1, markersize=5)
            )
        if within:
            axes.update_datalim([(0, value) for value in within], updatex=False)
            axes.autoscale_view()

    return svg(paint, width=width, height=height, margins=(46, 12, 40, 8), label=label)


def reliability(bins: Sequence[Reliability], styles: Sequence[Style], *, label: str) -> str:
    """How often predictions are right (upwards) against how sure they are, and below it how many are that sure.

    Args:
        bins: One an arm.
        styles: One an arm.
        label: What a screen reader says instead of the figure.
    """

    def paint(axes: Axes) -> None:
        counts = axes.inset_axes((0, -0.32, 1, 0.26), sharex=axes)
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="right")
        counts.set(xlabel="predicted probability", ylabel="share", facecolor="none")
        axes.plot([0, 1], [0, 1], color=SENTINELS["muted"], linewidth=1, linestyle=(0, (2, 2)))
        for i, (each, style) in enumerate(zip(bins, styles, strict=True)):
            axes.plot(each.confidence, each.accuracy, clip_on=False, **look(style, linewidth=1.5, markersize=6))
            # Bars of several arms stand side by side, a hundredth of the axis apart.
            x = [value + 0.012 * (i - (len(bins) - 1) / 2) for value in each.confidence]
            shares = [count / max(1, sum(each.count)) for count in each.count]
            counts.vlines(x, 0, shares, color=SENTINELS[style.colour], linewidth=3)
        counts.set_ylim(bottom=0)
        axes.tick_params(labelbottom=False)
        _quarters(axes.xaxis, axes.yaxis, counts.xaxis)
        counts.yaxis.set_major_formatter(_whole_percent())

    return svg(paint, width=400, height=430, margins=(64, 26, 140, 12), label=label)


def _plot_band(axes: Axes, line: Line) -> None:
    colour = SENTINELS[line.style.colour]
    axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.09, linewidth=0)
    for edge in (line.low, line.high):
        axes.plot(line.x, edge, color=colour, alpha=0.45, linewidth=0.6)
    axes.plot(line.x, line.y, **look(line.style, linewidth=1.7, markersize=6.5))


def _plot_bars(axes: Axes, line: Line, x: Sequence[float]) -> None:
    axes.vlines(x, line.low, line.high, color=SENTINELS[line.style.colour], linewidth=1.4)
    axes.plot(x, line.y, **look(line.style, linewidth=1.7, markersize=6.5))


def _name_at_right(axes: Axes, lines: Sequence[Line], height: float) -> None:
    """Each line's name beside its last value, pushed apart where they would touch, with a hair line to its own."""
    bottom, top = axes.get_ylim()
    lines = sorted((line for line in lines if math.isfinite(line.y[-1])), key=lambda line: line.y[-1])
    ends = [(line.y[-1] - bottom) / (top - bottom) for line in lines]
    right = axes.get_xlim()[1]
    for line, end, place in zip(lines, ends, _spread(ends, gap=17 / height), strict=True):
        colour = SENTINELS[line.style.colour]
        axes.plot([1, 1.045], [end, place], transform=axes.transAxes, color=colour, linewidth=0.7, clip_on=False)
        axes.plot([line.x[-1], right], [line.y[-1]] * 2, color=colour, linewidth=0.7, linestyle=(0, (1, 2)))
        name = f"{_percent(line.y[-1])}  {shorten(line.title, letters=29)}"
        axes.text(1.055, place, name, transform=axes.transAxes, color=colour, va="center", parse_math=False)


def _forest_row(axes: Axes, line: Line, i: int, *, letters: int, edge: float) -> None:
    colour, row = SENTINELS[line.style.colour], axes.get_yaxis_transform()
    axes.hlines(i, line.low, line.high, color=colour, linewidth=2)
    axes.plot(line.y, [i], **look(line.style, linewidth=0, markersize=7.5))
    numbers = f"{_percent(line.y[0])} [{_percent(line.low[0], unit='')}, {_percent(line.high[0], unit='')}]"
    place: dict[str, Any] = {"transform": row, "va": "center", "color": SENTINELS["ink"], "parse_math": False}
    axes.text(-edge, i - 0.36, shorten(line.title, letters=letters), **place)
    axes.text(1 + edge, i - 0.36, numbers, ha="right", **place)


def _percent_axis(axis: Any, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = _limits(lines)
    decimals = 0 if high - low > 0.04 else 1
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10] if decimals else [1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.{decimals}f} %"))


def _quarters(*axes: Any) -> None:
    from matplotlib.ticker import FixedLocator

    for axis in axes:
        axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
        axis.set_major_formatter(_whole_percent())


def _whole_percent() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.0f} %")


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    values = [v for line in lines for v in (*line.y, *line.low, *line.high) if math.isfinite(v)] or [0.0, 1.0]
    pad = 0.06 * (max(values) - min(values)) or 0.02
    return min(values) - pad, max(values) + pad


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Leave out values closer than `gap` on a log scale to the one kept before."""
    kept: list[float] = []
    for value in values:
        if not kept or math.log(value / kept[-1]) >= gap:
            kept.append(value)
    return kept


def _spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Move sorted places in 0..1 as little as needed to lie `gap` apart: isotonic regression, the gaps taken out."""
    blocks: list[tuple[float, int]] = []
    for i, place in enumerate(places):
        mean, size = place - i * gap, 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    room = max(0.0, 1 - (len(places) - 1) * gap)
    means = [min(room, max(0.0, mean)) for mean, size in blocks for _ in range(size)]
    return [mean + i * gap for i, mean in enumerate(means)]


def _percent(value: float, *, unit: str = " %") -> str:
    return f"{100 * value:.1f}{unit}" if math.isfinite(value) else "–"


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _large(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e4 else f"{value:,g}"
