"""`kontrast data list`, `get NAME`, `preview DATA`, `aliases DATA`: samples, views of images, names behind aliases."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kontrast import distributed
from kontrast.batch import as_float
from kontrast.commands.assemble import DataOptions, build_policy, open_data
from kontrast.commands.files import check_out, write_csv
from kontrast.data import samples
from kontrast.data.arrays import ArrayListing
from kontrast.errors import InputError
from kontrast.files import whole_file

log = logging.getLogger("kontrast")


@dataclass(frozen=True, kw_only=True)
class List:
    """List the samples by kind: images, volumes, masks, DICOM files, reports and weights, with licence and size."""


@dataclass(frozen=True, kw_only=True)
class Get:
    """Fetch a sample into the cache, and say where its files are, what it is and what it must not be used to claim."""

    name: str
    """As `kontrast data list` shows it."""


@dataclass(frozen=True, kw_only=True)
class Preview(DataOptions):
    """Write a contact sheet: a few images, each beside views that the augmentation makes of it, as in training."""

    policy: str = "natural"
    """Augmentation: captioned, ct, dermoscopy, digits, histology, mri, natural, randaugment, ultrasound or xray, or a
    .yaml file."""
    out: Path | None = None
    """PNG file to write; by default preview-POLICY.png, here."""
    images: int = 8
    """Rows: so many images, evenly spaced over the data."""
    views: int = 8
    """Columns beside the image."""
    seed: int = 0
    """Of the augmentation's draws."""


@dataclass(frozen=True, kw_only=True)
class AliasTable(DataOptions):
    """Write which alias stands for which file and group; it tells what aliases hide, so keep it with the data."""

    out: Path
    """CSV file to write: path, alias of the path, alias of the group."""


CELL = 112
"""Least side of a picture on the contact sheet, in pixels; smaller ones are magnified by a whole number."""
GAP = 6


def run_list(options: List) -> None:
    """Print the sample data sets, by kind."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("name", "what", "licence"):
        table.add_column(column, overflow="fold")
    for column in ("count", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("fetched", no_wrap=True)
    kind = ""
    for row in samples.listing():
        sample = row.sample
        if sample.kind != kind:
            kind = sample.kind
            table.add_row(f"[bold]{kind}[/bold]")
        fetched = "yes" if row.is_cached else ""
        table.add_row(row.name, sample.title, sample.licence, f"{sample.count:,}", f"{sample.megabytes:g}", fetched)
    console.print(table)
    console.print(f"\nMedMNIST+, with the package medmnist: {', '.join(samples.medmnist.NAMES)};")
    console.print("each at 28 px, and with -64, -128 or -224 after its name at that size, such as pathmnist-64.")


def run_get(options: Get) -> None:
    """Fetch a sample and describe it."""
    sample = samples.find(options.name)
    found = samples.files(options.name)
    folder = samples.folder_of(options.name)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{sample.title}: {_how_to_use(options.name, sample)}")
    console.print(f"Files: {len(found):,} in {folder}")
    for pack in sample.packs:
        for file in pack.files:
            console.print(f"  {(Path(pack.into) / file.member).as_posix()}  {file.what}".rstrip())
    if sample.prepare is not None:
        console.print("  images.tsv  path, label and group of each image\n  captions.tsv  path and text, maybe several")
    console.print(f"Licence: {sample.licence}\nCitation: {sample.citation}\nCaution: {sample.caveat}")


def _how_to_use(name: str, sample: samples.Sample) -> str:
    """How many images there are, and what they are called, or that there are none."""
    if sample.build is None:
        return f"{sample.kind}, to read from the files below"
    listed = samples.open_sample(name)
    size = f" of {max(listed.pixels.shape[1:3])} px" if isinstance(listed, ArrayListing) else ""
    classes = f" in {len(listed.annotations.classes)} classes"
    return f"{len(listed.names):,} images{size}{classes}, use it as {samples.PREFIX}{name}"


def run_preview(options: Preview) -> Path:
    """Write a contact sheet of images and their views; returns its path."""
    distributed.start()
    if options.images < 1 or options.views < 1:
        raise InputError(
            f"a contact sheet needs images and views; got {options.images} and {options.views}, so give 1 or more"
        )
    out = options.out or Path(f"preview-{Path(options.policy).stem}.png")
    if out.exists():
        raise InputError(f"a preview never overwrites; {out} is there already, so name another --out")
    found = open_data(options)
    size = options.size or found.size
    policy = build_policy(options.policy, size, found.channels)
    chosen = np.linspace(0, len(found) - 1, min(options.images, len(found))).round().astype(np.int64)
    stored = found.batch(chosen).image
    generator = torch.Generator().manual_seed(options.seed)
    views = torch.stack([policy(stored, generator) for _ in range(options.views)], dim=1)
    sheet = _contact_sheet(as_float(stored), views, title=f"{options.policy}, {size} px")
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, format="PNG")
    log.info("%d images and %d views of each are in %s", len(chosen), options.views, out)
    return out


def run_aliases(options: AliasTable) -> Path:
    """Write the aliases of all images as a table; returns its path."""
    check_out(options.out, {".csv"}, "aliases")
    found = open_data(replace(options, alias_paths=False))
    aliased = open_data(replace(options, alias_paths=True))
    groups = [""] * len(found) if found.groups is None else [found.group_names[code] for code in found.groups]
    rows = [*zip(found.names, aliased.names, groups, strict=True)]
    for clear, hidden in ((found.skipped, aliased.skipped), (found.left_out, aliased.left_out)):
        rows += [(name, alias, "") for (name, _), (alias, _) in zip(clear, hidden, strict=True)]
    with whole_file(options.out) as partial:
        write_csv(partial, ["path", "alias", "group"], rows)
    log.info("the aliases of %d images are in %s", len(found), options.out)
    return options.out


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
    """`(c, h, w)` in 0..1 as a square picture; of many channels the first three, or the first of two."""
    pixels: NDArray[Any] = (image[: 3 if len(image) > 2 else 1] * 255).round().byte().permute(1, 2, 0).numpy()
    shown = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("RGB")
    return shown.resize((side, side), Image.Resampling.NEAREST if side >= shown.width else Image.Resampling.BICUBIC)
