"""`kontrast data list`, `get NAME` and `preview DATA`: sample data sets, and what augmentation makes of images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kontrast import data, distributed
from kontrast.batch import as_float
from kontrast.commands.assemble import DataOptions, build_policy, open_data
from kontrast.data import samples
from kontrast.errors import InputError

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class List:
    """List the sample data sets, with licence and size."""


@dataclass(frozen=True, kw_only=True)
class Get:
    """Fetch a sample data set into the cache, and say what it is and what it must not be used to claim."""

    name: str
    """As `kontrast data list` shows it."""


@dataclass(frozen=True, kw_only=True)
class Preview(DataOptions):
    """Write a contact sheet: a few images, each beside views that the augmentation makes of it, as in training."""

    policy: str = "natural"
    """Augmentation: ct, dermoscopy, digits, histology, mri, natural, ultrasound or xray."""
    out: Path | None = None
    """PNG file to write; by default preview-POLICY.png, here."""
    images: int = 8
    """Rows: so many images, evenly spaced over the data."""
    views: int = 8
    """Columns beside the image."""
    seed: int = 0
    """Of the augmentation's draws."""


CELL = 112
"""Least side of a picture on the contact sheet, in pixels; smaller ones are magnified by a whole number."""
GAP = 6


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


def run_preview(options: Preview) -> Path:
    """Write a contact sheet of images and their views; returns its path."""
    distributed.start()
    if options.images < 1 or options.views < 1:
        raise InputError(
            f"a contact sheet needs images and views; got {options.images} and {options.views}, so give 1 or more"
        )
    out = options.out or Path(f"preview-{options.policy}.png")
    if out.exists():
        raise InputError(f"a preview never overwrites; {out} is there already, so name another --out")
    found = open_data(options)
    size = options.size or found.size
    policy = build_policy(options.policy, size)
    chosen = np.linspace(0, len(found) - 1, min(options.images, len(found))).round().astype(np.int64)
    stored = found.batch(chosen).image
    generator = torch.Generator().manual_seed(options.seed)
    views = torch.stack([policy(stored, generator) for _ in range(options.views)], dim=1)
    sheet = _contact_sheet(as_float(stored), views, title=f"{options.policy}, {size} px")
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, format="PNG")
    log.info("%d images and %d views of each are in %s", len(chosen), options.views, out)
    return out


def _contact_sheet(images: Tensor, views: Tensor, *, title: str) -> Image.Image:
    """Rows of one image `(c, h, w)` and its views `(v, c, size, size)`, under a title."""
    scale = -(-CELL // views.shape[-1])
    side = scale * views.shape[-1]
    cells = [
        [_picture(image, side), *(_picture(view, side) for view in row)]
        for image, row in zip(images, views, strict=True)
    ]
    sheet = Image.new("RGB", (GAP + len(cells[0]) * (side + GAP) + GAP, 18 + len(cells) * (side + GAP)), "white")
    for column in range(len(cells[0])):
        left = GAP + column * (side + GAP) + (GAP if column else 0)
        for row, pictures in enumerate(cells):
            sheet.paste(pictures[column], (left, 18 + row * (side + GAP)))
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 3), "image", fill="black")
    draw.text((3 * GAP + side, 3), f"views: {title}", fill="black")
    return sheet


def _picture(image: Tensor, side: int) -> Image.Image:
    """`(c, h, w)` in 0..1 as a square picture."""
    pixels: NDArray[Any] = (image * 255).round().byte().permute(1, 2, 0).numpy()
    shown = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("RGB")
    return shown.resize((side, side), Image.Resampling.NEAREST if side >= shown.width else Image.Resampling.BICUBIC)
