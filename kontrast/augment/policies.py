"""Policies: which augmentation suits which kind of image, and why."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kontrast.augment.geometry import Geometry
from kontrast.augment.intensity import Intensity
from kontrast.batch import as_float


class Policy(nn.Module):
    """Geometry, then intensity: one random view of each image."""

    def __init__(self, geometry: Geometry, intensity: Intensity) -> None:
        super().__init__()
        self.geometry, self.intensity = geometry, intensity

    @property
    def size(self) -> int:
        """Side of the views in pixels."""
        return self.geometry.size

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(n, c, h, w)` uint8, uint16 or float in 0..1 to views `(n, c, size, size)`, float in 0..1.

        Draws come from `generator`, or from torch's own generator of the device.
        """
        # Sampling needs more bits than bf16 has, and a view costs little beside the encoder.
        with torch.autocast(image.device.type, enabled=False):
            view: Tensor = self.intensity(self.geometry(as_float(image), generator), generator)
            return view


def natural(size: int) -> Policy:
    """Photographs: the recipe of SimCLR as MoCo v2 and SimSiam use it, blur scaled from 224 px and none below 64 px."""
    return Policy(
        Geometry(size, area=(0.2, 1), aspect=(3 / 4, 4 / 3), flip=0.5),
        Intensity(
            probability=0.8,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            grey=0.2,
            blur=0.5 if size >= 64 else 0.0,
            sigma=(0.1 * size / 224, 2 * size / 224),
        ),
    )


def digits(size: int) -> Policy:
    """Handwriting: crops, turns and slants that keep the character; never mirrored, since 2 and 5 would meet."""
    return Policy(
        Geometry(size, area=(0.4, 1), aspect=(3 / 4, 4 / 3), rotation=15, shear=15),
        Intensity(probability=0.8, brightness=0.4, contrast=0.4),
    )


def xray(size: int) -> Policy:
    """Radiographs: exposure varies, anatomy does not. No mirroring, since left and right carry meaning."""
    return Policy(
        Geometry(size, area=(0.3, 1), aspect=(4 / 5, 5 / 4), rotation=10),
        Intensity(
            probability=0.8,
            brightness=0.3,
            contrast=0.3,
            gamma=0.3,
            blur=0.3,
            sigma=(0.1 * size / 224, 1.5 * size / 224),
            noise=0.02,
        ),
    )


def mri(size: int) -> Policy:
    """Magnetic resonance slices: intensities have no unit, so they vary widely; heads turn. No mirroring."""
    return Policy(
        Geometry(size, area=(0.4, 1), aspect=(4 / 5, 5 / 4), rotation=15, shear=5),
        Intensity(
            probability=0.8,
            brightness=0.4,
            contrast=0.4,
            gamma=0.4,
            blur=0.3,
            sigma=(0.1 * size / 224, 1.5 * size / 224),
            noise=0.04,
        ),
    )


POLICIES: dict[str, Callable[[int], Policy]] = {"digits": digits, "mri": mri, "natural": natural, "xray": xray}
