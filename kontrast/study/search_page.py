"""The page of a search: one HTML file with what was found, as a contact sheet; nothing leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kontrast.data import ImageSet
from kontrast.evaluate.search import Hit
from kontrast.study import looks
from kontrast.study.page import TALL_FROM, WHOLE_UP_TO, environment
from kontrast.study.pictures import picture

THUMBNAIL = 152
"""Side at most, in pixels."""


@dataclass(frozen=True, kw_only=True)
class SearchPage:
    """All that the page says."""

    title: str
    headline: str
    sentences: tuple[str, ...]
    query: ImageSet | None
    """The image that was asked about; None for a text."""
    query_name: str
    texts: tuple[Hit, ...]
    images: tuple[Hit, ...]
    """The nearest first."""
    facts: Mapping[str, str]
    """What was searched."""
    versions: Mapping[str, str]
    command: str


def render(page: SearchPage, data: ImageSet) -> str:
    """Make the HTML: whatever names and texts hold is shown as text, and equal pages give equal bytes."""
    return (
        environment()
        .get_template("search.html.jinja")
        .render(
            page=page,
            looks=looks,
            query=None if page.query is None else picture(page.query, 0, side=THUMBNAIL),
            images=[(hit, picture(data, hit.position, side=THUMBNAIL)) for hit in page.images],
            whole_up_to=WHOLE_UP_TO,
            tall_from=TALL_FROM,
        )
    )
