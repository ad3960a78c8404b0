"""Pictures of what a method makes itself, written along the training: `samples/epoch_NNNNN.png`."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kontrast.files import whole_file

COLUMNS = 8
TILE = 64
"""Side of an image on a picture at most, in pixels; larger ones are averaged."""
FOLDER = "samples"


def write_sheet(folder: Path, epoch: int, images: Tensor) -> None:
    """Write images on one picture, row by row, with one pixel between them; whole or not at all.

    Args:
        folder: Of the run.
        epoch: Names the file.
        images: `(n, c, h, w)` in 0..1, n at least 1; of other than one or three channels the first three are shown as
            colours, or the first of two.
    """
    shown = images[:, : 3 if images.shape[1] > 2 else 1].float().cpu()
    if shown.shape[-1] > TILE:
        shown = F.interpolate(shown, TILE, mode="area")
    shown = shown.mul(255).round().byte()
    n, channels, height, width = shown.shape
    rows, columns = -(-n // COLUMNS), min(n, COLUMNS)
    sheet = torch.zeros(channels, rows * (height + 1) - 1, columns * (width + 1) - 1, dtype=torch.uint8)
    for number, image in enumerate(shown):
        top, left = number // COLUMNS * (height + 1), number % COLUMNS * (width + 1)
        sheet[:, top : top + height, left : left + width] = image
    pixels = sheet.permute(1, 2, 0).numpy()
    with whole_file(folder / FOLDER / f"epoch_{epoch:05d}.png") as partial:
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(partial, "PNG")


def sheets(folder: Path) -> dict[int, Path]:
    """The pictures of a run by their epoch, in order; empty where its method makes none."""
    return {int(file.stem.removeprefix("epoch_")): file for file in sorted((folder / FOLDER).glob("epoch_*.png"))}
