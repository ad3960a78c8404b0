"""Named changes of test images: how far a score falls when images come from a worse device.

Five of the kinds of Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations*, ICLR 2019, written anew for images in 0..1 of any side and any number of channels; the strengths are
ours, so scores are not comparable with those of ImageNet-C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CorruptionName = Literal["blur", "brightness", "contrast", "noise", "pixelate"]


class Corruption(nn.Module):
    """Images `(n, c, h, w)` in 0..1 to the same images, worse; the same ones in the same order each time."""

    def __init__(self, name: CorruptionName, *, seed: int = 0) -> None:
        """Take a kind by its name; the seed is that of the noise.

        Raises:
            ValueError: There is no such kind.
        """
        super().__init__()
        if name not in CORRUPTIONS:
            raise ValueError(f"a corruption is one of {', '.join(get_args(CorruptionName))}; got {name!r}")
        self.name = name
        self.draws = torch.Generator().manual_seed(seed)

    def forward(self, image: Tensor) -> Tensor:
        """The images, changed, in 0..1."""
        return CORRUPTIONS[self.name](image, self.draws).clamp(0, 1)


def _blur(image: Tensor, _: torch.Generator) -> Tensor:
    """A Gaussian of a standard deviation of 2 % of the side."""
    deviation = 0.02 * image.shape[-1]
    reach = min(round(3 * deviation), image.shape[-1] - 1)
    place = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    weight = (-0.5 * (place / deviation) ** 2).softmax(0).repeat(image.shape[1], 1)
    for kernel, padding in (
        (weight[:, None, None], (reach, reach, 0, 0)),
        (weight[:, None, :, None], (0, 0, reach, reach)),
    ):
        image = F.conv2d(F.pad(image, padding, mode="reflect"), kernel, groups=image.shape[1])
    return image


def _brightness(image: Tensor, _: torch.Generator) -> Tensor:
    """Three tenths of the range brighter."""
    return image + 0.3


def _contrast(image: Tensor, _: torch.Generator) -> Tensor:
    """A quarter of the contrast about the image's own mean."""
    mean = image.mean((1, 2, 3), keepdim=True)
    return mean + 0.25 * (image - mean)


def _noise(image: Tensor, draws: torch.Generator) -> Tensor:
    """Gaussian, with a deviation of 15 % of the range."""
    return image + 0.15 * torch.randn(image.shape, generator=draws).to(image)


def _pixelate(image: Tensor, _: torch.Generator) -> Tensor:
    """A third of the pixels on each side."""
    few = max(1, image.shape[-1] // 3)
    small = F.interpolate(image, size=(few, few), mode="area")
    return F.interpolate(small, size=image.shape[-2:], mode="nearest")


CORRUPTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "noise": _noise,
    "pixelate": _pixelate,
}
