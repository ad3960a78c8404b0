"""The page of an audit: one HTML file with what was found in a data set; nothing leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kontrast.data import ImageSet
from kontrast.data.audit.findings import Finding, Item
from kontrast.files import whole_file
from kontrast.study import looks
from kontrast.study.contents import Picture
from kontrast.study.page import TALL_FROM, WHOLE_UP_TO, environment
from kontrast.study.pictures import picture

MOST_ITEMS = 12
"""Sets of images of a finding that are shown; the rest are counted."""
MOST_IMAGES = 8
"""Images of a set that are shown."""
MOST_SINGLES = 48
"""Images shown of a finding whose sets are single images, or files named of one that has no images."""
THUMBNAIL = 112


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """All that the page says."""

    title: str
    headline: str
    sentences: tuple[str, ...]
    facts: Mapping[str, str]
    """What the data are."""
    parts: tuple[str, ...]
    """Names of the sides of the split, or one name for all images."""
    classes: Mapping[str, tuple[int, ...]]
    """Images of each class on each side."""
    findings: tuple[Finding, ...]
    """The gravest first."""
    versions: Mapping[str, str]
    command: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A set of images as the page shows it."""

    note: str
    images: tuple[tuple[str, str, Picture | None], ...]
    """Name, first text ("" without) and thumbnail, the latter two none where thumbnails are switched off."""
    more: int
    """Images of the set that are not shown."""


def render(page: AuditPage, data: ImageSet, *, thumbnails: bool) -> str:
    """Make the HTML: whatever names hold is shown as text, and equal pages give equal bytes."""
    sections = [(found, _shown(found, data, thumbnails), _is_single(found)) for found in page.findings]
    return (
        environment()
        .get_template("audit.html.jinja")
        .render(page=page, looks=looks, sections=sections, whole_up_to=WHOLE_UP_TO, tall_from=TALL_FROM)
    )


def write(page: AuditPage, data: ImageSet, path: Path, *, thumbnails: bool) -> None:
    """Render, then put the file in place at once.

    Raises:
        OSError: The file cannot be written.
    """
    html = render(page, data, thumbnails=thumbnails).encode()
    with whole_file(path) as partial:
        partial.write_bytes(html)


def _is_single(found: Finding) -> bool:
    return all(len(item.positions) <= 1 for item in found.items)


def _shown(found: Finding, data: ImageSet, thumbnails: bool) -> list[Shown]:
    return [_set(item, data, thumbnails) for item in found.items[: MOST_SINGLES if _is_single(found) else MOST_ITEMS]]


def _thumbnail(data: ImageSet, at: int, thumbnails: bool) -> Picture | None:
    return picture(data, at, side=THUMBNAIL) if thumbnails else None


def _set(item: Item, data: ImageSet, thumbnails: bool) -> Shown:
    images = tuple(
        (data.names[at], data.texts[at][0] if thumbnails and data.texts else "", _thumbnail(data, at, thumbnails))
        for at in item.positions[:MOST_IMAGES]
    )
    note = ": ".join(each for each in (item.name, item.note) if each)
    return Shown(note=note, images=images, more=len(item.positions) - len(images))
