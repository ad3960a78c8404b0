"""Intensity: all linear colour is one small map an image; then gamma, blur, noise and cutout."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kontrast.augment.geometry import Strength, centres, happens, in_full, is_on, largest, uniform

_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64)
_FROM_YIQ = torch.linalg.inv(_YIQ)
_GREY = _YIQ[0]
_STAINS = F.normalize(torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=torch.float64)).T
"""Columns: haematoxylin, eosin and DAB in optical density of red, green and blue; Ruifrok & Johnston, 2001, table 1."""
_TO_STAINS = torch.linalg.inv(_STAINS)
DARKEST = 1 / 255
"""Intensity below which optical density is cut."""
KERNEL = 2.5
"""Half-width of the blur's kernel in standard deviations."""
SHARPEST = 0.01
"""Standard deviation in pixels below which a blur does nothing that could be seen or computed."""
EDGE = 20.0
"""Steepness of the edge of a cutout, over half the side of the image, by which a learned one gets its gradient."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tone:
    """What happens to the intensities of each image: `(n,)` a field where nothing else is said, None for nothing."""

    stain: Tensor | None = None
    """`(n, 3, 2)`: factor and summand of each stain's density; intensities below 1/255 count as 1/255."""
    gain: Tensor | None = None
    """`(n, c)`: factor of each channel."""
    saturation: Tensor | None = None
    """Factor of each pixel's distance from its grey; 0 takes all colour."""
    hue: Tensor | None = None
    """Turn of the hue in radians."""
    contrast: Tensor | None = None
    """Factor around the mean of the image."""
    brightness: Tensor | None = None
    """Factor."""
    inversion: Tensor | None = None
    """1 for the negative, 0 for the image; in between, a mixture."""
    gamma: Tensor | None = None
    """Exponent."""
    sigma: Tensor | None = None
    """Standard deviation of the blur in pixels; 0 for none."""
    radius: int = 0
    """Half-width of the blur's kernel in pixels, for all images: about 2.5 of the largest sigma."""
    noise: Tensor | None = None
    """Standard deviation of the noise."""
    cutout: Tensor | None = None
    """`(n, 4)`: centre and half-width, x, x, y, y in -1..1, of a rectangle that becomes the mean of its image."""

    def __post_init__(self) -> None:
        if self.sigma is not None and self.radius < 1:
            raise ValueError(f"a blur reaches a pixel or more; the radius is {self.radius}, so give 2.5 times sigma")

    def take(self, rows: slice) -> Tone:
        """The tones of some of the images."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: value[rows] for name, value in chosen.items()})

    def image(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(n, c, h, w)` float in 0..1 to the same shape and range; differentiable in image and all fields.

        Images of other than three channels have no colour: saturation, hue and stain do nothing to them.
        """
        with in_full(image):
            if self.stain is not None and image.shape[1] == 3:
                image = _stained(image, self.stain)
            image = self._linear(image)
            if self.gamma is not None:
                image = image.clamp(min=1e-6).pow(_wide(self.gamma, image))
            if self.sigma is not None:
                image = self._blurred(image, self.sigma)
            if self.noise is not None:
                grain = torch.randn(image.shape, generator=generator, device=image.device)
                image = (image + _wide(self.noise, image) * grain).clamp(0, 1)
            return image if self.cutout is None else _cut(image, self.cutout)

    def _linear(self, image: Tensor) -> Tensor:
        """Gain, colour, contrast, brightness and inversion as one map `matrix @ pixel + offset` an image."""
        parts = (self.gain, self.saturation, self.hue, self.contrast, self.brightness, self.inversion)
        if all(part is None for part in parts):
            return image
        matrix, offset = self._colour(image), image.new_zeros(len(image), 1, 1)
        if self.contrast is not None:
            mean = _weights(image) @ matrix @ image.mean(dim=(2, 3))[:, :, None]
            factor = _wide(self.contrast, image, 3)
            matrix, offset = factor * matrix, (1 - factor) * mean
        if self.brightness is not None:
            factor = _wide(self.brightness, image, 3)
            matrix, offset = factor * matrix, factor * offset
        if self.inversion is not None:
            share = _wide(self.inversion, image, 3)
            matrix, offset = (1 - 2 * share) * matrix, (1 - 2 * share) * offset + share
        return torch.baddbmm(offset, matrix, image.flatten(2)).clamp_(0, 1).view_as(image)

    def _colour(self, image: Tensor) -> Tensor:
        """Gain, then a turn and a scaling of the colour plane of YIQ: `(n, c, c)`."""
        n, channels = image.shape[:2]
        gain = image.new_ones(n, channels) if self.gain is None else self.gain.to(image.dtype)
        if channels != 3 or (self.saturation is None and self.hue is None):
            return torch.diag_embed(gain)
        one = image.new_ones(n)
        angle = one * 0 if self.hue is None else self.hue.to(image.dtype)
        scale = one if self.saturation is None else self.saturation.to(image.dtype)
        cos, sin, none = scale * angle.cos(), scale * angle.sin(), one * 0
        turn = torch.stack([one, none, none, none, cos, -sin, none, sin, cos], dim=1).view(n, 3, 3)
        colour: Tensor = _FROM_YIQ.to(image) @ turn @ _YIQ.to(image)
        return colour * gain[:, None, :]

    def _blurred(self, image: Tensor, sigma: Tensor) -> Tensor:
        """Blur the images that have a sigma, each with its own."""
        drawn = (sigma > 0).nonzero().squeeze(1)
        if not len(drawn):
            return image
        return image.index_copy(0, drawn, gaussian_blur(image[drawn], sigma[drawn], radius=self.radius))


class Intensity(nn.Module):
    """Random stain, brightness, contrast, colour, gamma, blur, noise and cutout, drawn anew for each image.

    Images of other than three channels have no colour: saturation, hue, grey and stain do nothing to them.
    """

    def __init__(
        self,
        *,
        probability: Strength = 1.0,
        stain: Strength = 0.0,
        gain: Strength = 0.0,
        brightness: Strength = 0.0,
        contrast: Strength = 0.0,
        saturation: Strength = 0.0,
        hue: Strength = 0.0,
        grey: Strength = 0.0,
        inversion: Strength = 0.0,
        gamma: Strength = 0.0,
        blur: Strength = 0.0,
        sigma: tuple[Strength, Strength] = (0.1, 2.0),
        noise: Strength = 0.0,
        cutout: Strength = 0.0,
        cutout_side: tuple[Strength, Strength] = (0.1, 0.4),
    ) -> None:
        """Set the strengths.

        Args:
            probability: That an image gets stain, gain, brightness, contrast, saturation, hue and gamma at all.
            stain: Density of each stain of a histology section is multiplied by 1 - stain .. 1 + stain, and raised by
                -stain / 4 .. stain / 4 (Tellez et al., 2019, section 3.3, who raise it by as much as they multiply).
            gain: Factor of each channel apart, drawn from 1 - gain .. 1 + gain.
            brightness: Factor of all channels, drawn from 1 - brightness .. 1 + brightness.
            contrast: The same, around the mean of the image.
            saturation: The same, around the grey of each pixel.
            hue: Largest turn of the hue, as a share of the full circle, to either side.
            grey: Probability of losing all colour.
            inversion: Probability of the negative.
            gamma: Exponent drawn evenly on the logarithm from exp(-gamma) .. exp(gamma).
            blur: Probability of Gaussian blur.
            sigma: Range of its standard deviation in pixels.
            noise: Largest standard deviation of Gaussian noise, in units of the value range 0..1.
            cutout: Probability that a rectangle is replaced by the mean of the image (DeVries & Taylor, 2017).
            cutout_side: Range of each of its sides, as a share of the image side.
        """
        super().__init__()
        self.probability = probability
        self.stain, self.gain = stain, gain
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue, self.grey = saturation, hue, grey
        self.inversion, self.gamma = inversion, gamma
        self.blur, self.sigma = blur, sigma
        self.noise = noise
        self.cutout, self.cutout_side = cutout, cutout_side

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> Tone:
        """One tone for each of the images `(n, c, h, w)`; only what has a strength is drawn."""
        n, channels = image.shape[:2]

        def chance(probability: Strength) -> Tensor:
            return happens(n, probability, image, generator)

        chosen = chance(self.probability)

        def even(strength: Strength) -> Tensor:
            return uniform(n, -strength, strength, image, generator) * chosen

        def stain() -> Tensor:
            each = [torch.stack([1 + even(self.stain), even(self.stain / 4)], dim=1) for _ in range(3)]
            return torch.stack(each, dim=1)

        coloured = channels == 3
        saturation = 1 + even(self.saturation) if coloured and is_on(self.saturation) else None
        if coloured and is_on(self.grey):
            saturation = (1 if saturation is None else saturation) * (1 - chance(self.grey))
        return Tone(
            stain=stain() if coloured and is_on(self.stain) else None,
            gain=torch.stack([1 + even(self.gain) for _ in range(channels)], dim=1) if is_on(self.gain) else None,
            saturation=saturation,
            hue=2 * math.pi * even(self.hue) if coloured and is_on(self.hue) else None,
            contrast=1 + even(self.contrast) if is_on(self.contrast) else None,
            brightness=1 + even(self.brightness) if is_on(self.brightness) else None,
            inversion=chance(self.inversion) if is_on(self.inversion) else None,
            gamma=even(self.gamma).exp() if is_on(self.gamma) else None,
            sigma=chance(self.blur) * uniform(n, *self.sigma, image, generator) if is_on(self.blur) else None,
            radius=max(1, math.ceil(KERNEL * largest(self.sigma[1]))),
            noise=uniform(n, 0, self.noise, image, generator) if is_on(self.noise) else None,
            cutout=self._rectangle(chance(self.cutout), generator) if is_on(self.cutout) else None,
        )

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(n, c, h, w)` float in 0..1 to the same shape and range."""
        return self.draw(image, generator).image(image, generator)

    def _rectangle(self, drawn: Tensor, generator: torch.Generator | None) -> Tensor:
        """Anywhere inside the image, `(n, 4)`; of no width where it does not happen."""
        width, height = (uniform(len(drawn), *self.cutout_side, drawn, generator) for _ in range(2))
        x, y = (uniform(len(drawn), -1, 1, drawn, generator) * (1 - side) for side in (width, height))
        return torch.stack([x, width * drawn, y, height * drawn], dim=1)


def gaussian_blur(image: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """Blur each image with its own standard deviation.

    Args:
        image: `(n, c, h, w)` float.
        sigma: `(n,)` in pixels, above 0.
        radius: Half-width of the kernel in pixels; cut to what the image can mirror at its border.
    """
    n, c, h, w = image.shape
    radius = min(radius, h - 1, w - 1)
    steps = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-(steps**2) / (2 * sigma.to(image.dtype).clamp(min=SHARPEST)[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0)[:, None, None, :]
    flat = F.pad(image.reshape(1, n * c, h, w), (radius,) * 4, mode="reflect")
    flat = F.conv2d(F.conv2d(flat, kernel, groups=n * c), kernel.transpose(2, 3), groups=n * c)
    return flat.reshape(n, c, h, w)


def _stained(image: Tensor, stain: Tensor) -> Tensor:
    """Scale and raise the density of each stain: linear where light is absorbed, on the logarithm."""
    colours = _STAINS.to(image)
    factor, summand = stain.to(image.dtype).unbind(2)
    matrix = (colours * factor[:, None, :]) @ _TO_STAINS.to(image)
    offset = colours @ summand[:, :, None]
    density = -image.clamp(min=DARKEST).log().flatten(2)
    return torch.baddbmm(offset, matrix, density).neg().exp().clamp(max=1).view_as(image)


def _cut(image: Tensor, rectangle: Tensor) -> Tensor:
    """Replace the inside of each rectangle by the mean of its image; a learned one has soft edges on the way back."""
    x, half_width, y, half_height = rectangle.to(image.dtype)[:, :, None].unbind(1)
    column = half_width - (centres(image.shape[3], image) - x).abs()
    row = half_height - (centres(image.shape[2], image) - y).abs()
    inside = (row > 0)[:, None, :, None] & (column > 0)[:, None, None, :]
    mean = image.mean(dim=(2, 3), keepdim=True)
    cut = torch.where(inside, mean, image)
    if not rectangle.requires_grad:
        return cut
    soft = torch.sigmoid(EDGE * row)[:, None, :, None] * torch.sigmoid(EDGE * column)[:, None, None, :]
    return cut + (soft - soft.detach()) * (mean - image).detach()


def _wide(value: Tensor, image: Tensor, dimensions: int = 4) -> Tensor:
    """`(n,)` in the type of the image, with so many dimensions to spread over it."""
    return value.to(image.dtype).view(-1, *[1] * (dimensions - 1))


def _weights(image: Tensor) -> Tensor:
    """What each channel adds to the grey of a pixel, `(1, c)`: luma for three channels, else all the same."""
    channels = image.shape[1]
    return (_GREY.to(image) if channels == 3 else image.new_full((channels,), 1 / channels))[None]
