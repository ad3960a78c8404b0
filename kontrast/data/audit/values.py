"""What the values and sizes of images say of how they were made: depth, clipping, outliers, burnt-in text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.audit.findings import Finding, Item
from kontrast.data.images import SCALES, ImageSet, blocks
from kontrast.data.progress import progress

CLIPPED = 0.01
"""Share of an image's pixels at the highest value from which on it counts as clipped."""
OUTLYING = 2.0
"""Factor between a size and the median from which on it is an outlier."""
LEAST_FOR_TEXT = 64
"""Side below which letters cannot be told, in pixels."""
_STROKE = 5
_STROKES = 4
_LINE = (5, 28)
"""Height of a line of text in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """Statistics of the values of `n` images, as they are stored."""

    low: NDArray[np.float64]
    """`(n,)`."""
    high: NDArray[np.float64]
    """`(n,)`."""
    at_top: NDArray[np.float64]
    """`(n,)` share of pixels at the highest value that the type has."""
    levels: int
    """Different values of all images together; 0 for floating-point images, of which they are not counted."""
    lines: NDArray[np.int64]
    """`(n,)` lines of text suspected."""
    top: float
    """The highest value that the type has."""


def values(data: ImageSet) -> Values:
    """The statistics, in blocks."""
    top = SCALES[data.pixels.dtype.name]
    used = np.zeros(int(top) + 1 if data.pixels.dtype.kind == "u" else 0, np.bool_)
    rows: list[NDArray[np.float64]] = []
    with progress("Looking at values", total=len(data)) as advance:
        for block in blocks(data.pixels, data.rows):
            if len(used):
                used[np.unique(block)] = True
            flat = block.reshape(len(block), -1)
            lines = text_lines(block)
            rows.append(np.stack([flat.min(1), flat.max(1), (flat == top).mean(1), lines], axis=1).astype(np.float64))
            advance(len(block))
    low, high, at_top, found = np.concatenate(rows).T
    return Values(low=low, high=high, at_top=at_top, levels=int(used.sum()), lines=found.astype(np.int64), top=top)


def depth(data: ImageSet, found: Values) -> Finding | None:
    """Values that use little of their type, as 12-bit or 8-bit data in 16-bit files do."""
    highest, lowest = found.high.max(), found.low.min()
    reach = (highest - lowest) / found.top
    few = data.pixels.dtype == np.uint16 and found.levels <= 256
    if reach >= 0.25 and not few:
        return None
    why = [f"only {found.levels:,} different values occur, no more than 8 bits have"] if few else []
    if reach < 0.25:
        why.append(f"values lie in {lowest:g} to {highest:g} of 0 to {found.top:g}")
        if found.top == 65535 and 2047 < highest < 4096:
            why[-1] += ", as 12-bit data in 16-bit files do"
    return Finding(
        kind="depth",
        title="Little of the value range is used",
        grade="problem" if reach < 0.25 else "note",
        sentence=f"Images are stored as {data.pixels.dtype}, and {'; '.join(why)}: scale the values if that is not "
        "meant.",
    )


def clipped(data: ImageSet, found: Values) -> Finding | None:
    """Images of which a part is as bright as can be."""
    there = np.flatnonzero(found.at_top >= CLIPPED)
    if not len(there):
        return None
    order = there[np.argsort(-found.at_top[there], kind="stable")]
    return Finding(
        kind="clipped",
        title="Clipped at the bright end",
        grade="note",
        sentence=f"{len(there):,} of {len(data):,} images have at least {CLIPPED:.0%} of their pixels at the highest "
        f"value, {found.top:g}: harmless where that is a white ground, a loss where it is tissue.",
        items=tuple(Item(positions=(int(at),), note=f"{found.at_top[at]:.0%} of the pixels") for at in order),
    )


def text(data: ImageSet, found: Values) -> Finding | None:
    """Images in which text is burnt in, as their files say or as their pixels suggest."""
    said = np.zeros(len(data), dtype=bool) if data.facts is None else data.facts.has_burnt_in_text
    there = np.flatnonzero((found.lines > 0) | said)
    if not len(there):
        return None
    by_file = f", {said.sum():,} of them by what their files say" if said.any() else ""
    return Finding(
        kind="text-suspected",
        title="Burnt-in text suspected",
        grade="problem",
        sentence=f"{len(there):,} of {len(data):,} images seem to have text in them{by_file}: it may name the patient, "
        "or give the class away. On pixels it is a rule of thumb, for bright text; look at them.",
        items=tuple(
            Item(positions=(int(at),), note="the file says so" if said[at] else f"{found.lines[at]} lines")
            for at in there
        ),
    )


def outliers(data: ImageSet) -> Iterator[Finding]:
    """Images of other sizes, spacings or depths than the rest."""
    if data.facts is None:
        return
    longest = data.facts.shape.max(axis=1).astype(np.float64)
    yield from _outlying("sizes", "Sizes that stand out", longest, "longer side", "px")
    yield from _outlying("spacings", "Spacings that stand out", data.facts.spacing.max(axis=1), "distance", "mm")


def ranges(data: ImageSet, found: Values) -> dict[str, str]:
    """What the values, depths, sizes and spacings are, in words, by what they are of."""
    said = {"Values": f"{found.low.min():g} to {found.high.max():g}, stored as {data.pixels.dtype}"}
    if found.levels:
        said["Different values"] = f"{found.levels:,}"
    if data.facts is None:
        return said | {"Size": f"{data.size} px"}
    heights, widths = data.facts.shape.T
    said["Bits in the files"] = _range(data.facts.bits)
    said["Height in the files"] = f"{_range(heights)} px"
    said["Width in the files"] = f"{_range(widths)} px"
    known = data.facts.spacing[~np.isnan(data.facts.spacing).any(axis=1)]
    if len(known):
        said["Spacing"] = f"{_range(known.max(axis=1))} mm, of {len(known):,} images"
    return said


def text_lines(block: NDArray[Any]) -> NDArray[np.int64]:
    """Lines of bright text suspected in images `(n, c, h, w)`: `(n,)`.

    Of text, several rows in succession each hold several short runs of nearly the brightest value, with a gap on both
    sides of each, and the rows above and below hold none.
    """
    count, _, height, width = block.shape
    found = np.zeros(count, np.int64)
    if min(height, width) < LEAST_FOR_TEXT:
        return found
    grey = block.min(axis=1)  # text is white
    low, high = grey.min(axis=(1, 2)).astype(np.float64), grey.max(axis=(1, 2)).astype(np.float64)
    on = grey >= (low + 0.9 * (high - low))[:, None, None]
    dark = grey < (low + 0.5 * (high - low))[:, None, None]
    strokes = _strokes(on, dark).sum(axis=2)
    written = strokes >= _STROKES
    for at in np.flatnonzero(written.sum(axis=1) >= _LINE[0]):
        found[at] = _lines(written[at], strokes[at])
    return found


def _strokes(on: NDArray[np.bool_], dark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a short run of bright pixels begins, with dark ones within a stroke's width before it and after it."""
    reach = _STROKE + 2
    padded_on, padded_dark = (np.pad(each, ((0, 0), (0, 0), (reach, reach))) for each in (on, dark))
    width = on.shape[2]

    def moved(values: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
        return values[:, :, reach + by : reach + by + width]

    begins = on & ~moved(padded_on, -1)
    before = moved(padded_dark, -1) | moved(padded_dark, -2)
    after = np.zeros_like(on)
    for by in range(1, reach):
        after |= moved(padded_dark, by)
    return begins & before & after


def _lines(written: NDArray[np.bool_], strokes: NDArray[np.int64]) -> int:
    """How many bands of rows are lines of text."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], written.astype(np.int8), [0]])))
    found = 0
    for start, end in edges.reshape(-1, 2):
        around = np.concatenate([strokes[max(0, start - 4) : max(0, start - 2)], strokes[end + 2 : end + 4]])
        found += bool(_LINE[0] <= end - start <= _LINE[1] and (around <= 1).all())
    return found


def _outlying(kind: str, title: str, sizes: NDArray[np.float64], what: str, unit: str) -> Iterator[Finding]:
    known = np.flatnonzero(~np.isnan(sizes))
    if not len(known):
        return
    middle = float(np.median(sizes[known]))
    there = known[(sizes[known] > OUTLYING * middle) | (sizes[known] < middle / OUTLYING)]
    if len(there):
        yield Finding(
            kind=kind,
            title=title,
            grade="note",
            sentence=f"{len(there):,} images differ by more than a factor of {OUTLYING:g} from the median {what}, "
            f"{middle:g} {unit}.",
            items=tuple(Item(positions=(int(at),), note=f"{sizes[at]:g} {unit}") for at in there),
        )


def _range(values: NDArray[Any]) -> str:
    low, middle, high = (f"{value:g}" for value in np.quantile(values, (0, 0.5, 1)))
    return low if low == high else f"{low} to {high}, median {middle}"
