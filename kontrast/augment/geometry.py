"""Geometry: crop, rotation, shear and flips compose into one affine map an image, and cost one `grid_sample`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def uniform(n: int, low: float, high: float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """`(n,)` float32 draws from low..high on the device of `like`."""
    return torch.rand(n, generator=generator, device=like.device) * (high - low) + low


class Geometry(nn.Module):
    """Random geometry of square images, drawn anew for each image.

    The crop is that of Szegedy et al. (2015), used by SimCLR: a share of the area and an aspect ratio, anywhere in the
    image, resized to the output. Rotation and shear turn the crop around its own centre.
    """

    def __init__(
        self,
        size: int,
        *,
        area: tuple[float, float] = (1.0, 1.0),
        aspect: tuple[float, float] = (1.0, 1.0),
        rotation: float = 0.0,
        shear: float = 0.0,
        flip: float = 0.0,
        flip_vertical: float = 0.0,
        padding: str = "zeros",
    ) -> None:
        """Set the strengths.

        Args:
            size: Side of the output in pixels.
            area: Range of the crop's share of the image area.
            aspect: Range of width over height, drawn evenly on the logarithm.
            rotation: Largest angle in degrees, to either side.
            shear: Largest shear angle in degrees, to either side.
            flip: Probability of mirroring left and right.
            flip_vertical: Probability of mirroring top and bottom.
            padding: What lies outside the image: `zeros`, `border` or `reflection`.
        """
        super().__init__()
        self.size = size
        self.area, self.aspect = area, aspect
        self.rotation, self.shear = rotation, shear
        self.flip, self.flip_vertical = flip, flip_vertical
        self.padding = padding

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One affine map an image, `(n, 2, 3)`, from output to input, both in -1..1 (as `F.affine_grid` reads it)."""
        n = len(image)
        area = uniform(n, *self.area, image, generator)
        log_aspect = uniform(n, math.log(self.aspect[0]), math.log(self.aspect[1]), image, generator)
        width = (area * log_aspect.exp()).sqrt().clamp(max=1)
        height = (area / log_aspect.exp()).sqrt().clamp(max=1)
        x = uniform(n, -1, 1, image, generator) * (1 - width)
        y = uniform(n, -1, 1, image, generator) * (1 - height)
        angle = uniform(n, -1, 1, image, generator) * math.radians(self.rotation)
        slant = (uniform(n, -1, 1, image, generator) * math.radians(self.shear)).tan()
        mirror = 1 - 2 * (uniform(n, 0, 1, image, generator) < self.flip).float()
        upend = 1 - 2 * (uniform(n, 0, 1, image, generator) < self.flip_vertical).float()
        cos, sin = angle.cos(), angle.sin()
        top = torch.stack([cos * width * mirror, (cos * slant - sin) * height * upend, x], dim=1)
        bottom = torch.stack([sin * width * mirror, (sin * slant + cos) * height * upend, y], dim=1)
        return torch.stack([top, bottom], dim=1)

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(n, c, h, w)` float to `(n, c, size, size)`."""
        return warp(image, self.draw(image, generator), size=self.size, padding=self.padding)


def warp(image: Tensor, affine: Tensor, *, size: int, padding: str = "zeros") -> Tensor:
    """Sample each image through its affine map, bilinearly; differentiable in both.

    Args:
        image: `(n, c, h, w)` float.
        affine: `(n, 2, 3)`, from output to input coordinates in -1..1.
        size: Side of the output.
        padding: `zeros`, `border` or `reflection`.
    """
    grid = F.affine_grid(affine.to(image.dtype), [len(image), image.shape[1], size, size], align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def resize(image: Tensor, size: int) -> Tensor:
    """The whole image at another size, `(n, c, size, size)`, anti-aliased: what an encoder is evaluated on."""
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
