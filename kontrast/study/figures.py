"""The figures of the page: numbers in, SVG text out, the same bytes every time.

Colours leave as CSS variables, so that one figure serves a light page, a dark one and paper; text stays text, in the
font of the page.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#15181c"),
    "ink": ("#1b1f24", "#e7e9ec"),
    "muted": ("#565d66", "#aab3bc"),
    "rule": ("#dcdfe3", "#343a41"),
    "method-1": ("#00518f", "#6cb8f5"),
    "method-2": ("#bf4a00", "#f5945c"),
    "method-3": ("#007a63", "#45c9a5"),
    "method-4": ("#8a2f8f", "#dd9ce0"),
    "method-5": ("#7d5f00", "#d9b13b"),
    "method-6": ("#c2185b", "#ff8fa8"),
    "baseline-1": ("#565d66", "#aab3bc"),
    "baseline-2": ("#6b727a", "#8f98a1"),
    "baseline-3": ("#3f454c", "#cdd3d9"),
}
"""Each CSS variable on a light page and on a dark one; all but `rule` contrast with `paper` by at least 4.5."""

_MARKERS = {
    "o": '<circle cx="18" cy="6" r="4"/>',
    "s": '<rect x="14.3" y="2.3" width="7.4" height="7.4"/>',
    "^": '<path d="M18 1.6 22.4 9.8H13.6Z"/>',
    "D": '<path d="M18 1 23 6 18 11 13 6Z"/>',
    "v": '<path d="M18 10.4 22.4 2.2H13.6Z"/>',
}
_METHOD_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 2), (9, 2, 2, 2), (4, 1.5))
_BASELINE_DASHES: tuple[tuple[float, ...], ...] = ((4, 3), (1.5, 2.5), (6, 3, 1.5, 3))


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one arm looks in every figure: colour, marker and line each tell it apart alone."""

    colour: str
    """A key of `PALETTE`."""

    marker: str
    dashes: tuple[float, ...]
    filled: bool


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a figure, with an interval around each value where there is one."""

    title: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def styles(kinds: Iterable[Literal["method", "baseline"]]) -> list[Style]:
    """One style an arm: methods in colour with filled markers, baselines grey, dashed and hollow."""
    seen = {"method": 0, "baseline": 0}
    result = []
    for kind in kinds:
        result.append(_style(kind, seen[kind]))
        seen[kind] += 1
    return result


def label_efficiency(lines: Sequence[Line], *, label: str, width: int, height: int) -> str:
    """Scores (0..1) against the number of labels, on a log axis, with intervals.

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
            dodge = math.exp((i - (len(lines) - 1) / 2) * 5 * span / plot[0])
            _plot_interval(axes, line, [x * dodge for x in line.x])
        if direct:
            _name_at_right(axes, lines, plot[1])

    return _svg(paint, width=width, height=height, margins=margins, label=label)


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

    return _svg(paint, width=width, height=row * len(lines) + 30, margins=(edge, edge, 26, 4), label=label)


def curves(lines: Sequence[Line], *, label: str, percent: bool = False, width: int = 330, height: int = 190) -> str:
    """Measures against the epoch: one small panel; the marker at its end tells whose line it is.

    Args:
        lines: One a run; values that are not finite leave a gap.
        label: What a screen reader says instead of the figure.
        percent: Whether the values are shares in 0..1.
        width: In CSS pixels.
        height: In CSS pixels.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def paint(axes: Axes) -> None:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        if percent:
            _percent_axis(axes.yaxis, lines)
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.set_xlabel("epoch")
        for line in lines:
            y = [value if math.isfinite(value) else math.nan for value in line.y]
            last = max((i for i, value in enumerate(y) if not math.isnan(value)), default=0)
            axes.plot(
                line.x, y, markevery=[last], **_look(line.style, linewidth=1.5 if len(lines) < 8 else 1.1, markersize=5)
            )

    return _svg(paint, width=width, height=height, margins=(46, 12, 40, 8), label=label)


def key(style: Style) -> str:
    """Draw a short piece of an arm's line with its marker, for a key written in HTML."""
    colour = _variable(style.colour)
    dashes = " ".join(f"{2 * dash:g}" for dash in style.dashes)
    fill = colour if style.filled else _variable("paper")
    return (
        f'<svg class="key" viewBox="0 0 36 12" aria-hidden="true" style="stroke: {colour}; fill: {fill}">'
        f'<path d="M0 6H36" stroke-width="2" stroke-dasharray="{dashes or "none"}"/>{_MARKERS[style.marker]}</svg>'
    )


def difference(value: float, low: float, high: float, *, limit: float) -> str:
    """Draw a difference and its interval as a small bar around zero, for a table that says them in figures too.

    Args:
        value: The difference.
        low: Lower end of its interval.
        high: Upper end of its interval.
        limit: What both ends of the bar stand for, so that all bars of a table share a scale.
    """
    x, start, end = (f"{50 + 46 * _clip(end / limit):.2f}%" for end in (value, low, high))
    return (
        '<svg class="interval" aria-hidden="true"><line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>'
        f'<line x1="{start}" x2="{end}" y1="50%" y2="50%"/><circle cx="{x}" cy="50%" r="4"/></svg>'
    )


def shorten(text: str, *, letters: int) -> str:
    """Put a text on one line, without its middle where it is longer than `letters`."""
    text = " ".join(visible(text).split())
    if len(text) <= letters:
        return text
    head = math.ceil((letters - 1) / 2)
    return text[:head] + "…" + text[len(text) - (letters - 1 - head) :]


def visible(text: str) -> str:
    """Show control characters as symbols; replace what UTF-8 cannot encode or what would turn the reading direction."""
    text = text.replace("\r\n", "\n")
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda match: chr(0x2400 + ord(match[0])), text)
    return re.sub(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", "\ufffd", text)


def _style(kind: Literal["method", "baseline"], i: int) -> Style:
    markers = list(_MARKERS)
    if kind == "baseline":
        dashes = _BASELINE_DASHES[i % len(_BASELINE_DASHES)]
        marker = markers[-1 - i % len(markers)]
        return Style(colour=f"baseline-{1 + i % 3}", marker=marker, dashes=dashes, filled=False)
    dashes = _METHOD_DASHES[i % len(_METHOD_DASHES)]
    return Style(colour=f"method-{1 + i % 6}", marker=markers[i % len(markers)], dashes=dashes, filled=True)


def _look(style: Style, *, linewidth: float, markersize: float) -> dict[str, Any]:
    colour = _SENTINELS[style.colour]
    return {
        "color": colour,
        "linewidth": linewidth,
        "linestyle": (0, style.dashes) if style.dashes else "solid",
        "marker": style.marker,
        "markersize": markersize,
        "markerfacecolor": colour if style.filled else _SENTINELS["paper"],
        "markeredgecolor": colour,
        "markeredgewidth": 1.4,
    }


def _plot_interval(axes: Axes, line: Line, x: Sequence[float]) -> None:
    axes.vlines(x, line.low, line.high, color=_SENTINELS[line.style.colour], linewidth=1.4)
    axes.plot(x, line.y, **_look(line.style, linewidth=1.7, markersize=6.5))


def _name_at_right(axes: Axes, lines: Sequence[Line], height: float) -> None:
    """Each line's name beside its last value, pushed apart where they would touch, with a hair line to its own."""
    bottom, top = axes.get_ylim()
    lines = sorted((line for line in lines if math.isfinite(line.y[-1])), key=lambda line: line.y[-1])
    ends = [(line.y[-1] - bottom) / (top - bottom) for line in lines]
    right = axes.get_xlim()[1]
    for line, end, place in zip(lines, ends, _spread(ends, gap=17 / height), strict=True):
        colour = _SENTINELS[line.style.colour]
        axes.plot([1, 1.045], [end, place], transform=axes.transAxes, color=colour, linewidth=0.7, clip_on=False)
        axes.plot([line.x[-1], right], [line.y[-1]] * 2, color=colour, linewidth=0.7, linestyle=(0, (1, 2)))
        name = f"{_percent(line.y[-1])}  {shorten(line.title, letters=32)}"
        axes.text(1.055, place, name, transform=axes.transAxes, color=colour, va="center", parse_math=False)


def _forest_row(axes: Axes, line: Line, i: int, *, letters: int, edge: float) -> None:
    colour, row = _SENTINELS[line.style.colour], axes.get_yaxis_transform()
    axes.hlines(i, line.low, line.high, color=colour, linewidth=2)
    axes.plot(line.y, [i], **_look(line.style, linewidth=0, markersize=7.5))
    numbers = f"{_percent(line.y[0])} [{_percent(line.low[0], unit='')}, {_percent(line.high[0], unit='')}]"
    place: dict[str, Any] = {"transform": row, "va": "center", "color": _SENTINELS["ink"], "parse_math": False}
    axes.text(-edge, i - 0.36, shorten(line.title, letters=letters), **place)
    axes.text(1 + edge, i - 0.36, numbers, ha="right", **place)


def _percent_axis(axis: Any, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = _limits(lines)
    decimals = 0 if high - low > 0.04 else 1
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10] if decimals else [1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.{decimals}f} %"))


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


def _clip(value: float) -> float:
    return min(1.0, max(-1.0, value)) if math.isfinite(value) else 0.0


def _variable(name: str) -> str:
    return f"var(--{name}, {PALETTE[name][0]})"


# matplotlib accepts no CSS variable as a colour, so each one is drawn in a colour of its own and renamed afterwards.
_SENTINELS = {name: f"#0001{i:02x}" for i, name in enumerate(PALETTE)}
_NAMES = {sentinel: name for name, sentinel in _SENTINELS.items()}
_RC = {
    "svg.fonttype": "none",
    "font.size": 12,
    "text.parse_math": False,
    "text.color": _SENTINELS["ink"],
    "axes.labelcolor": _SENTINELS["muted"],
    "axes.edgecolor": _SENTINELS["rule"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _SENTINELS["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": _SENTINELS["rule"],
    "ytick.color": _SENTINELS["rule"],
    "xtick.labelcolor": _SENTINELS["muted"],
    "ytick.labelcolor": _SENTINELS["muted"],
    "ytick.major.size": 0,
}


def _svg(
    paint: Callable[[Axes], None], *, width: int, height: int, margins: tuple[int, int, int, int], label: str
) -> str:
    """Draw on an empty pair of axes; margins are left, right, bottom, top in CSS pixels."""
    import matplotlib
    from matplotlib.figure import Figure

    left, right, bottom, top = margins
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that matplotlib's own font lacks is drawn by the browser, in the fonts of the reader.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC | {"svg.hashsalt": f"{visible(label)} {width} {height}"})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, frameon=False)
        axes = figure.add_axes(box, facecolor="none")
        paint(axes)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _inline(text.getvalue(), width=width, height=height, label=label)


def _inline(svg: str, *, width: int, height: int, label: str) -> str:
    """Make a drawing part of an HTML page: no prologue, metadata or address, no id that another figure may have."""
    body = svg[re.search(r"<svg[^>]*>", svg).end() :]  # type: ignore[union-attr]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub("|".join(_NAMES), lambda match: _variable(_NAMES[match[0]]), body)
    body = re.sub(r"\n\s*", "\n", body)
    name = escape(visible(label))
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}'
    )
