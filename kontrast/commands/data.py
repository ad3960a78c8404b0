"""`kontrast data list` and `kontrast data get NAME`: sample data sets."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from kontrast import data
from kontrast.data import samples

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class List:
    """List the sample data sets, with licence and size."""


@dataclass(frozen=True, kw_only=True)
class Get:
    """Fetch a sample data set into the cache, and say what it is and what it must not be used to claim."""

    name: str
    """As `kontrast data list` shows it."""


def run_list(options: List) -> None:
    """Print the sample data sets."""
    table = Table(box=None, pad_edge=False)
    for column in ("name", "what", "images", "licence", "MB", "fetched"):
        table.add_column(column, overflow="fold")
    for row in samples.listing():
        table.add_row(row.name, row.title, f"{row.images:,}", row.licence, f"{row.megabytes:g}", str(row.is_cached))
    Console().print(table)


def run_get(options: Get) -> None:
    """Fetch a sample and describe it."""
    found = data.open(f"sample:{options.name}")
    sample = samples.SAMPLES[options.name]
    console = Console(highlight=False)
    console.print(f"{sample.title}: {len(found):,} images of {found.size} px, use it as sample:{options.name}")
    console.print(f"Licence: {sample.licence}\nCitation: {sample.citation}\nCaution: {sample.caveat}")
