"""The map of test images: where every image stands, and by which symbol its class is known."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from kontrast.study.contents import Atlas, Projection
from kontrast.study.looks import Symbol, symbol
from kontrast.study.wording import count, shorten

SIDE = 640
"""Of the map, in the units of its drawing."""

EDGE = 14
"""What stays free on each side, so that no mark is cut."""


class Mark(NamedTuple):
    """One image on one map."""

    x: str
    y: str
    symbol: Symbol
    code: int
    title: str
    """Its class, then its name on a second line."""


class Map(NamedTuple):
    """One projection, drawn."""

    projection: Projection
    label: str
    """What a screen reader says instead of the figure."""

    marks: list[Mark]


class Entry(NamedTuple):
    """One class in the key."""

    code: int
    name: str
    symbol: Symbol
    num_images: int


def maps(atlas: Atlas | None) -> list[Map]:
    """All projections of an atlas."""
    if atlas is None:
        return []
    titles = [_title(atlas, code, name) for code, name in zip(atlas.codes, atlas.names, strict=True)]
    return [Map(each, _label(atlas, each), _marks(atlas, each, titles)) for each in atlas.projections]


def key(atlas: Atlas | None) -> list[Entry]:
    """Every class that is on the map, in the order of classes."""
    if atlas is None:
        return []
    sizes = Counter(atlas.codes)
    return [Entry(code, name, symbol(code), sizes[code]) for code, name in enumerate(atlas.classes) if sizes[code] > 0]


def _marks(atlas: Atlas, projection: Projection, titles: list[str]) -> list[Mark]:
    return [
        Mark(_place(x), _place(1 - y), symbol(code), code, title)
        for x, y, code, title in zip(projection.x, projection.y, atlas.codes, titles, strict=True)
    ]


def _title(atlas: Atlas, code: int, name: str) -> str:
    name = shorten(name, letters=80)
    return f"{shorten(atlas.classes[code], letters=80)}\n{name}" if code >= 0 else name


def _label(atlas: Atlas, projection: Projection) -> str:
    sizes = ", ".join(f"{count(entry.num_images)} {shorten(entry.name, letters=60)}" for entry in key(atlas))
    head = f"{projection.title} map of {count(len(atlas.codes), 'test image')} by the representations of {atlas.title}"
    return f"{head}: {sizes}." if sizes else f"{head}."


def _place(share: float) -> str:
    return f"{EDGE + (SIDE - 2 * EDGE) * share:.1f}"
