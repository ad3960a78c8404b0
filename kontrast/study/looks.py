"""How things look: the colours of the page, the style of each arm, the symbol of each class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

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

SHADES: dict[str, tuple[str, str]] = {
    "right": ("#8fc1ee", "#1d5487"),
    "wrong": ("#f3ab7c", "#8a3f12"),
}
"""Grounds of table cells at their strongest; they fade into `paper`, and `ink` is readable on all of them."""

CLASSES: dict[str, tuple[str, str]] = {
    "class-1": ("#004ec0", "#0074f1"),
    "class-2": ("#dd7800", "#ffd81f"),
    "class-3": ("#027c64", "#277351"),
    "class-4": ("#90117c", "#b43a98"),
    "class-5": ("#079be0", "#00beff"),
    "class-6": ("#910912", "#ea3b11"),
    "class-7": ("#23282e", "#f2f4f6"),
    "class-8": ("#a59057", "#a9e57c"),
}
"""Colours of classes on the map: the hues of Okabe and Ito, moved apart in lightness until people with each kind of
colour blindness tell any two apart; each contrasts with `paper` by at least 3, as a mark has to."""

MARKERS = {
    "o": '<circle cx="18" cy="6" r="4"/>',
    "s": '<rect x="14.3" y="2.3" width="7.4" height="7.4"/>',
    "^": '<path d="M18 1.6 22.4 9.8H13.6Z"/>',
    "D": '<path d="M18 1 23 6 18 11 13 6Z"/>',
    "v": '<path d="M18 10.4 22.4 2.2H13.6Z"/>',
}
"""How the markers of matplotlib look in a key."""

SHAPES = (
    "M4.2 0A4.2 4.2 0 1 1-4.2 0 4.2 4.2 0 1 1 4.2 0Z",
    "M0-5.2 4.8 3.4H-4.8Z",
    "M-3.8-3.8H3.8V3.8H-3.8Z",
    "M0-5.6 4.6 0 0 5.6-4.6 0Z",
    "M0 5.2 4.8-3.4H-4.8Z",
    "M-4.8-2.4-2.4-4.8 0-2.4 2.4-4.8 4.8-2.4 2.4 0 4.8 2.4 2.4 4.8 0 2.4-2.4 4.8-4.8 2.4-2.4 0Z",
    "M-1.6-5.2H1.6V-1.6H5.2V1.6H1.6V5.2H-1.6V1.6H-5.2V-1.6H-1.6Z",
)
"""Outlines of the marks on the map, around the origin, of about one size to the eye."""

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
class Symbol:
    """How one class looks on the map."""

    colour: int
    """Which of `CLASSES`, from 1 on; 0 for images of no single class."""

    shape: int
    """Which of `SHAPES`, from 0 on."""


def styles(kinds: Iterable[Literal["method", "baseline"]]) -> list[Style]:
    """One style an arm: methods in colour with filled markers, baselines grey, dashed and hollow."""
    seen = {"method": 0, "baseline": 0}
    result = []
    for kind in kinds:
        result.append(_style(kind, seen[kind]))
        seen[kind] += 1
    return result


def symbol(code: int) -> Symbol:
    """How the class with this code looks; 56 classes look different, and the first 7 in colour and in shape."""
    if code < 0:
        return Symbol(colour=0, shape=0)
    # Each round through the colours starts one shape further, so that a colour returns in another shape.
    turn, colour = divmod(code, len(CLASSES))
    return Symbol(colour=colour + 1, shape=(code + turn) % len(SHAPES))


def key(style: Style) -> Markup:
    """Draw a short piece of an arm's line with its marker, for a key written in HTML."""
    colour = variable(style.colour)
    dashes = " ".join(f"{2 * dash:g}" for dash in style.dashes)
    fill = colour if style.filled else variable("paper")
    return Markup(
        f'<svg class="key" viewBox="0 0 36 12" aria-hidden="true" style="stroke: {colour}; fill: {fill}">'
        f'<path d="M0 6H36" stroke-width="2" stroke-dasharray="{dashes or "none"}"/>{MARKERS[style.marker]}</svg>'
    )


def variable(name: str) -> str:
    """A colour of the palette, as CSS names it."""
    return f"var(--{name}, {PALETTE[name][0]})"


def channels(colour: str) -> str:
    """Red, green and blue of a colour as numbers, as CSS mixes them with an opacity."""
    return " ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))


def _style(kind: Literal["method", "baseline"], i: int) -> Style:
    markers = list(MARKERS)
    if kind == "baseline":
        dashes = _BASELINE_DASHES[i % len(_BASELINE_DASHES)]
        marker = markers[-1 - i % len(markers)]
        return Style(colour=f"baseline-{1 + i % 3}", marker=marker, dashes=dashes, filled=False)
    dashes = _METHOD_DASHES[i % len(_METHOD_DASHES)]
    return Style(colour=f"method-{1 + i % 6}", marker=markers[i % len(markers)], dashes=dashes, filled=True)
