"""Intensity: linear colour composes into one small matrix an image; then gamma, blur and noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.augment.geometry import uniform

_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_GREY = _YIQ[0]


class Intensity(nn.Module):
    """Random brightness, contrast, colour, gamma, blur and noise, drawn anew for each image.

    Images of one channel have no colour: saturation, hue and grey do nothing to them.
    """

    def __init__(
        self,
        *,
        probability: float = 1.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        grey: float = 0.0,
        gamma: float = 0.0,
        blur: float = 0.0,
        sigma: tuple[float, float] = (0.1, 2.0),
        noise: float = 0.0,
    ) -> None:
        """Set the strengths.

        Args:
            probability: That an image gets brightness, contrast, saturation, hue and gamma at all.
            brightness: Factor drawn from 1 - brightness .. 1 + brightness.
            contrast: The same, around the mean of the image.
            saturation: The same, around the grey of each pixel.
            hue: Largest turn of the hue, as a share of the full circle, to either side.
            grey: Probability of losing all colour.
            gamma: Exponent drawn from exp(-gamma) .. exp(gamma).
            blur: Probability of Gaussian blur.
            sigma: Range of its standard deviation in pixels.
            noise: Largest standard deviation of Gaussian noise, in units of the value range 0..1.
        """
        super().__init__()
        self.probability = probability
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue, self.grey = saturation, hue, grey
        self.gamma = gamma
        self.blur, self.sigma = blur, sigma
        self.noise = noise

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(n, c, h, w)` float in 0..1 to the same shape and range."""
        chosen = (uniform(len(image), 0, 1, image, generator) < self.probability).float()
        image = self._linear(image, chosen, generator).clamp(0, 1)
        if self.gamma:
            exponent = (uniform(len(image), -1, 1, image, generator) * self.gamma * chosen).exp()
            image = image.clamp(min=1e-6).pow(exponent[:, None, None, None])
        if self.blur:
            image = self._blur(image, generator)
        if self.noise:
            level = uniform(len(image), 0, self.noise, image, generator)[:, None, None, None]
            image = image + level * torch.randn(image.shape, generator=generator, device=image.device)
        return image.clamp(0, 1)

    def _factor(self, strength: float, chosen: Tensor, generator: torch.Generator | None) -> Tensor:
        return 1 + uniform(len(chosen), -strength, strength, chosen, generator) * chosen

    def _linear(self, image: Tensor, chosen: Tensor, generator: torch.Generator | None) -> Tensor:
        """Brightness, contrast and colour as one map `matrix @ pixel + offset` an image."""
        bright = self._factor(self.brightness, chosen, generator)[:, None, None]
        contrast = self._factor(self.contrast, chosen, generator)[:, None, None]
        mean = _luminance(image).mean(dim=(1, 2))[:, None, None]
        offset = (1 - contrast) * bright * mean
        if image.shape[1] != 3:
            return image * (bright * contrast)[..., None] + offset[..., None]
        matrix = bright * contrast * self._colour(chosen, generator)
        return torch.einsum("nij,njhw->nihw", matrix.to(image.dtype), image) + offset[..., None]

    def _colour(self, chosen: Tensor, generator: torch.Generator | None) -> Tensor:
        """Saturation, hue and loss of colour, `(n, 3, 3)`: a turn and a scaling of the colour plane of YIQ."""
        n = len(chosen)
        angle = uniform(n, -self.hue, self.hue, chosen, generator) * chosen * 2 * math.pi
        scale = self._factor(self.saturation, chosen, generator)
        scale = scale * (uniform(n, 0, 1, chosen, generator) >= self.grey)
        turn = torch.zeros(n, 3, 3, device=chosen.device)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = scale * angle.cos()
        turn[:, 1, 2], turn[:, 2, 1] = -scale * angle.sin(), scale * angle.sin()
        yiq = _YIQ.to(chosen.device)
        found: Tensor = torch.linalg.inv(yiq) @ turn @ yiq
        return found

    def _blur(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        """Separable Gaussian blur of the images that drew it, each with its own sigma."""
        drawn = uniform(len(image), 0, 1, image, generator) < self.blur
        sigma = uniform(len(image), *self.sigma, image, generator)[drawn]
        if not len(sigma):
            return image
        return image.index_put((drawn,), gaussian_blur(image[drawn], sigma, radius=math.ceil(2.5 * self.sigma[1])))


def gaussian_blur(image: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """Blur each image with its own standard deviation.

    Args:
        image: `(n, c, h, w)` float.
        sigma: `(n,)` in pixels.
        radius: Half-width of the kernel in pixels; cut to what the image can mirror at its border.
    """
    n, c, h, w = image.shape
    radius = min(radius, h - 1, w - 1)
    steps = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(steps**2) / (2 * sigma.to(image.dtype)[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0)[:, None, None, :]
    flat = F.pad(image.reshape(1, n * c, h, w), (radius,) * 4, mode="reflect")
    flat = F.conv2d(F.conv2d(flat, kernel, groups=n * c), kernel.transpose(2, 3), groups=n * c)
    return flat.reshape(n, c, h, w)


def _luminance(image: Tensor) -> Tensor:
    """`(n, h, w)`: weighted for three channels, else the plain mean."""
    if image.shape[1] != 3:
        return image.mean(dim=1)
    return torch.einsum("c,nchw->nhw", _GREY.to(image), image)
