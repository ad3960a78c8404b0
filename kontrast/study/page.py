"""The page of a study: one HTML file with the verdict, the evidence and the way to repeat it; nothing leaves it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kontrast.files import whole_file
from kontrast.study import learned, looks, maps, sections, training, wording
from kontrast.study.arms import arms_of, runs_of
from kontrast.study.contents import Page, Picture

MOST_SKIPPED = 50
"""How many skipped files are named; the rest are counted."""

WHOLE_UP_TO = 15
"""Rows of a table that is not cut between two sheets of paper."""

TALL_FROM = 25
"""Rows of a table that scrolls on a screen rather than push all else away."""


def render(page: Page) -> str:
    """Make the HTML: whatever the strings of a page hold is shown as text, and equal pages give equal bytes.

    Raises:
        ValueError: The media type of a picture is not that of an image.
    """
    arms, runs = arms_of(page), runs_of(page)
    present = {row.arm for row in page.rows}
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            looks=looks,
            script=Markup(_script()),
            script_hash=_hash(_script()),
            metrics=sections.metrics(page),
            tables=sections.tables(page.rows),
            scopes=sections.scopes(page),
            draws=sections.draws(page.rows),
            efficiency=sections.efficiency(page, arms),
            keys=[(arm.title, looks.key(arm.style)) for name, arm in arms.items() if name in present],
            savings=sections.savings(page),
            differences=sections.differences(page),
            compared=list(dict.fromkeys(each.metric for each in page.differences)),
            reliability=sections.reliability(page.closeup, arms),
            maps=maps.maps(page.atlas),
            classes=maps.key(page.atlas),
            agreeing=sections.agreeing(page.queries),
            learned=learned.exhibits(page.learned),
            axes=training.axes(runs),
            panels=training.panels(arms, runs),
            run_keys=[
                (_counted(arms[name].title, len(group)), looks.key(arms[name].style)) for name, group in runs.items()
            ],
            most_skipped=MOST_SKIPPED,
            whole_up_to=WHOLE_UP_TO,
            tall_from=TALL_FROM,
            most_classes=sections.MOST_CLASSES,
        )
    )


def write(page: Page, path: Path) -> None:
    """Render, then put the file in place at once: a reader sees the old page or the new one, never a part.

    Raises:
        OSError: The file cannot be written; what was at `path` is still there.
        ValueError: As in `render`.
    """
    html = render(page).encode()
    with whole_file(path) as partial:
        partial.write_bytes(html)


@cache
def environment() -> Environment:
    """What renders every page: the templates, with everything escaped, and the filters that they use."""
    made = Environment(
        loader=PackageLoader("kontrast.study", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "metric": wording.metric,
        "count": wording.count,
        "share": wording.share,
        "points": wording.points,
        "number": wording.number,
        "figure": wording.figure,
        "with_labels": wording.with_labels,
        "interval": wording.interval,
        "shorten": wording.shorten,
        "needed": wording.needed,
        "needed_between": wording.needed_between,
        "times": wording.times,
        "saving_said": sections.saving_said,
        "confusions": sections.confusions,
        "channels": looks.channels,
        "address": _address,
        "last_part": _last_part,
    }
    return made


@cache
def _script() -> str:
    """The one script that the page's policy lets run."""
    templates = environment()
    assert templates.loader is not None
    return templates.loader.get_source(templates, "page.js")[0]


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _shown(value: object) -> object:
    """Let nothing through a `{{ }}` of the template that a page cannot show; escaping comes after."""
    return value if isinstance(value, Markup) else wording.visible(str(value))


def _address(picture: Picture) -> str:
    """A picture as a `data:` address, the only kind that the page's policy allows."""
    if not re.fullmatch(r"image/[a-z0-9.+-]+", picture.media):
        raise ValueError(f'the media type of a picture must be that of an image, as "image/png"; got {picture.media!r}')
    return f"data:{picture.media};base64,{base64.b64encode(picture.data).decode()}"


def _last_part(name: str) -> str:
    """A file's name without its folders, where a picture leaves little room; its alt text has them."""
    return name.rstrip("/").rpartition("/")[2] or name


def _counted(title: str, num_runs: int) -> str:
    return title if num_runs == 1 else f"{wording.shorten(title, letters=60)} ({num_runs} runs)"
