"""Markdown that foreign text cannot break: names of classes, data and files are other people's words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST = 80
"""Characters of a name that are shown."""


def inline(value: object, *, longest: int = LONGEST) -> str:
    """Text as one short run of plain Markdown: nothing in it is markup, HTML, a link, a table cell or a line break.

    Where a line begins, a number or dash could still start a list, so put words before it.

    Args:
        value: What to show, by its `str`; control characters and bytes that are no UTF-8 become spaces and `?`.
        longest: Characters that are shown; of more, the last is an ellipsis.
    """
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    text = re.sub(r"([\\`*_{}\[\]()|~$!#])", r"\\\1", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Addresses would become links without any brackets.
    text = text.replace("://", ":&#47;&#47;").replace("@", "&#64;")
    return re.sub(r"(?i)(www)\.", r"\1&#46;", text) or "(no name)"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table; cells are Markdown already."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def fenced(lines: Sequence[str]) -> list[str]:
    """Lines of a block of Python that its own content cannot end."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}python", *lines, fence]
