"""From a drawing by matplotlib to SVG that is part of the page: its fonts, its colours, the same bytes every time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from kontrast.study.looks import PALETTE, Style, variable
from kontrast.study.wording import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib accepts no CSS variable as a colour, so each one is drawn in a colour of its own and renamed afterwards.
SENTINELS = {name: f"#0001{i:02x}" for i, name in enumerate(PALETTE)}
_NAMES = {sentinel: name for name, sentinel in SENTINELS.items()}
_RC = {
    "svg.fonttype": "none",
    "font.size": 12,
    "text.parse_math": False,
    "text.color": SENTINELS["ink"],
    "axes.labelcolor": SENTINELS["muted"],
    "axes.edgecolor": SENTINELS["rule"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": SENTINELS["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": SENTINELS["rule"],
    "ytick.color": SENTINELS["rule"],
    "xtick.labelcolor": SENTINELS["muted"],
    "ytick.labelcolor": SENTINELS["muted"],
    "ytick.major.size": 0,
}


def look(style: Style, *, linewidth: float, markersize: float) -> dict[str, Any]:
    """The style of an arm, as matplotlib names what a line looks like."""
    colour = SENTINELS[style.colour]
    return {
        "color": colour,
        "linewidth": linewidth,
        "linestyle": (0, style.dashes) if style.dashes else "solid",
        "marker": style.marker,
        "markersize": markersize,
        "markerfacecolor": colour if style.filled else SENTINELS["paper"],
        "markeredgecolor": colour,
        "markeredgewidth": 1.4,
    }


def svg(
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


def _inline(drawing: str, *, width: int, height: int, label: str) -> str:
    """Make a drawing part of an HTML page: no prologue, metadata or address, no id that another figure may have."""
    body = drawing[re.search(r"<svg[^>]*>", drawing).end() :]  # type: ignore[union-attr]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub("|".join(_NAMES), lambda match: variable(_NAMES[match[0]]), body)
    body = re.sub(r"\n\s*", "\n", body)
    name = escape(visible(label))
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}'
    )
