"""Geometry: crop, zoom, rotation, shear, shift and flips are one affine map an image, and cost one `grid_sample`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONTROL_POINTS = 5
"""Along each side; elastic displacement is drawn there, and smooth in between."""
FINE = math.sqrt(2)
"""Input pixels a view pixel may cover before the input is averaged first, so that nothing is skipped."""


Strength: TypeAlias = float | Tensor
"""A constant of a policy, or what learns in its place: `()` for all images, `(n,)` for each its own."""
GATE_TEMPERATURE = 0.5
"""Of the relaxed Bernoulli whose gradient a learned probability gets: lower is less biased and noisier."""


def uniform(n: int, low: Strength, high: Strength, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """`(n,)` float32 draws from low..high on the device of `like`; the gradient reaches both ends."""
    return torch.rand(n, generator=generator, device=like.device) * (high - low) + low


def happens(n: int, probability: Strength, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """`(n,)` of 1 with that probability, else 0. A learned one gets the gradient of its relaxation (straight-through).

    Source: Maddison, Mnih & Teh, *The Concrete Distribution*, ICLR 2017, appendix B, with the noise of the hard draw.
    """
    drawn = torch.rand(n, generator=generator, device=like.device)
    hard = (drawn < probability).float()
    if isinstance(probability, float | int) or not probability.requires_grad:
        return hard
    soft = torch.sigmoid((torch.logit(probability, eps=1e-6) - torch.logit(drawn)) / GATE_TEMPERATURE)
    return hard + (soft - soft.detach())


def is_on(strength: Strength, *, rest: float = 0.0) -> bool:
    """Whether a strength does anything; one that learns always may."""
    return isinstance(strength, Tensor) or strength != rest


def smallest(strength: Strength) -> float:
    """The strength as a number, the smallest of all images."""
    return float(strength.detach().min()) if isinstance(strength, Tensor) else strength


def largest(strength: Strength) -> float:
    """The strength as a number, the largest of all images."""
    return float(strength.detach().max()) if isinstance(strength, Tensor) else strength


def logarithm(ratio: Strength) -> Strength:
    """Of a constant or of what learns."""
    return ratio.log() if isinstance(ratio, Tensor) else math.log(ratio)


def in_full(like: Tensor) -> torch.autocast:
    """Inside, autocast is off: points and intensities need more bits than bf16 has."""
    return torch.autocast(like.device.type, enabled=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Warp:
    """Which point of its image each pixel of a view shows: the same for the image, its mask and its boxes."""

    affine: Tensor
    """`(n, 2, 3)`, from the view to the image, both in -1..1 from edge to edge (as `F.affine_grid` reads it)."""
    size: int
    """Side of the view in pixels."""
    bend: Tensor | None = None
    """`(n, 2, k, k)` elastic displacement in the image, x and y in its units, at control points over the view."""
    padding: str = "zeros"
    """What an image shows outside itself: `zeros`, `border` or `reflection`."""
    antialias: bool = True
    """Whether a view that shrinks its image is averaged; False where it is known that none does."""
    mirrored: Tensor | None = None
    """`(n, 2)` of 0 and 1, left with right and top with bottom, where the probability of that learns."""

    def take(self, rows: slice) -> Warp:
        """The warps of some of the images."""
        bend, mirrored = (None if field is None else field[rows] for field in (self.bend, self.mirrored))
        return replace(self, affine=self.affine[rows], bend=bend, mirrored=mirrored)

    def grid(self) -> Tensor:
        """Points of the image, x and y in -1..1, that the pixels of the view show: `(n, size, size, 2)`."""
        centre = centres(self.size, self.affine)
        x, y, shift = self.affine[:, None].unbind(3)
        along = centre[:, None] * x + shift
        # A product of thin matrices writes the grid once; adding along and across would be ten times slower.
        across_along = torch.stack([y.expand_as(along), along], dim=1).flatten(2)
        with in_full(self.affine):
            product = torch.stack([centre, torch.ones_like(centre)], dim=1) @ across_along
        grid = product.view(len(x), self.size, self.size, 2)
        if self.bend is None:
            return grid
        size = (self.size, self.size)
        bend = F.interpolate(self.bend.to(grid.dtype), size, mode="bicubic", align_corners=True)
        return grid + bend.permute(0, 2, 3, 1)

    def image(self, image: Tensor) -> Tensor:
        """Views `(n, c, size, size)` of float images `(n, c, h, w)`; bilinear, differentiable in image and warp."""
        view = self._view(image)
        return view if self.mirrored is None else _mirrors_learn(view, self.mirrored)

    def _view(self, image: Tensor) -> Tensor:
        grid = self.grid().to(image.dtype)
        if not self.antialias:
            return self._sample(image, grid)
        level = self._shrinkage(image).log2().round().clamp(min=0)
        view = image.new_zeros(len(image), image.shape[1], self.size, self.size)
        for depth in range(int(level.max()) + 1):
            rows = (level == depth).nonzero().squeeze(1)
            if len(rows):
                small = _averaged(image[rows], 2**depth)
                view = view.index_copy(0, rows, self._sample(small, grid[rows]))
        return view

    def mask(self, mask: Tensor, *, outside: int = 0) -> Tensor:
        """Views `(n, size, size)` of masks `(n, h, w)` of any type: of each pixel's point the nearest pixel.

        Beyond the edge the mask goes on as its image does; where that is with zeros, it is `outside`.
        """
        height, width = mask.shape[1:]
        x, y = self.grid().unbind(-1)
        column, in_width = self._nearest(x, width)
        row, in_height = self._nearest(y, height)
        values = mask.int() if mask.dtype == torch.uint16 else mask  # torch moves uint16 about but cannot pick from it
        found = values.flatten(1).gather(1, (row * width + column).flatten(1)).view_as(row)
        return torch.where(in_width & in_height, found, torch.full_like(found, outside)).to(mask.dtype)

    def boxes(self, boxes: Tensor, *, height: int, width: int) -> Tensor:
        """Where the view shows boxes of the image, to the pixel.

        Args:
            boxes: `(n, m, 4)`: left, top, right, bottom in pixels of the image.
            height: Of the image.
            width: Of the image.

        Returns:
            `(n, m, 4)` in pixels of the view: the smallest box around all pixels that show a point of the box, in the
            image itself and not in what goes on beyond its edge; NaN where none does.
        """
        x, y = ((self.grid() + 1) / 2 * self.affine.new_tensor([width, height])).unbind(-1)
        left, top, right, bottom = boxes[:, :, None, None].to(x.dtype).unbind(-1)
        x, y = x[:, None], y[:, None]
        shown = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        (first_x, last_x), (first_y, last_y) = _extent(shown.any(2)), _extent(shown.any(3))
        found = torch.stack([first_x, first_y, last_x, last_y], dim=2).to(x.dtype)
        return found.masked_fill(~shown.flatten(2).any(2, keepdim=True), torch.nan)

    def _sample(self, image: Tensor, grid: Tensor) -> Tensor:
        with in_full(image):
            return F.grid_sample(image, grid, mode="bilinear", padding_mode=self.padding, align_corners=False)

    def _nearest(self, at: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The pixel nearest to points -1..1 along a side, and whether it counts as inside."""
        place = (at + 1) * side / 2
        if self.padding == "reflection":
            place = side - (place % (2 * side) - side).abs()
        pixel = (place - 0.5).round().long()
        inside = (pixel >= 0) & (pixel < side) | (self.padding != "zeros")
        return pixel.clamp(0, side - 1), inside

    def _shrinkage(self, image: Tensor) -> Tensor:
        """Input pixels along the longer side of what a pixel of each view covers, `(n,)`."""
        sides = self.affine.new_tensor([[image.shape[3]], [image.shape[2]]])
        covered = self.affine[:, :, :2].detach() * sides / self.size
        longer: Tensor = torch.linalg.vector_norm(covered, dim=1).amax(dim=1)
        return longer


class Geometry(nn.Module):
    """Random geometry of square images, drawn anew for each image.

    The crop is that of Szegedy et al. (2015), used by SimCLR: a share of the area and an aspect ratio, anywhere in the
    image, resized to the output. Zoom, rotation and shear act around its own centre. Elastic deformation is that of
    Simard et al. (2003), smoothed by cubic interpolation.
    """

    def __init__(
        self,
        size: int,
        *,
        area: tuple[Strength, Strength] = (1.0, 1.0),
        aspect: tuple[Strength, Strength] = (1.0, 1.0),
        scale: tuple[Strength, Strength] = (1.0, 1.0),
        rotation: Strength = 0.0,
        shear: Strength = 0.0,
        translation: Strength = 0.0,
        flip: Strength = 0.0,
        flip_vertical: Strength = 0.0,
        elastic: Strength = 0.0,
        padding: str = "zeros",
    ) -> None:
        """Set the strengths.

        Args:
            size: Side of the output in pixels.
            area: Range of the crop's share of the image area.
            aspect: Range of width over height, drawn evenly on the logarithm.
            scale: Range of the magnification of what the crop holds, drawn evenly on the logarithm.
            rotation: Largest angle in degrees, to either side.
            shear: Largest shear angle in degrees, to either side.
            translation: Largest shift along each axis, to either side, as a share of the image side.
            flip: Probability of mirroring left and right.
            flip_vertical: Probability of mirroring top and bottom.
            elastic: Standard deviation of the displacement at control points, as a share of the image side.
            padding: What lies outside the image: `zeros`, `border` or `reflection`.
        """
        super().__init__()
        self.size = size
        self.area, self.aspect, self.scale = area, aspect, scale
        self.rotation, self.shear, self.translation = rotation, shear, translation
        self.flip, self.flip_vertical = flip, flip_vertical
        self.elastic, self.padding = elastic, padding

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> Warp:
        """One warp for each of the images `(n, c, h, w)`."""
        n = len(image)
        area = uniform(n, *self.area, image, generator)
        aspect = uniform(n, logarithm(self.aspect[0]), logarithm(self.aspect[1]), image, generator).exp()
        width = (area * aspect).sqrt().clamp(max=1)
        height = (area / aspect).sqrt().clamp(max=1)
        x = uniform(n, -1, 1, image, generator) * (1 - width)
        y = uniform(n, -1, 1, image, generator) * (1 - height)
        angle = uniform(n, -1, 1, image, generator) * (self.rotation * math.pi / 180)
        slant = uniform(n, -1, 1, image, generator) * (self.shear * math.pi / 180)
        flips = [happens(n, chance, image, generator) for chance in (self.flip, self.flip_vertical)]
        mirror, upend = (1 - 2 * flip.detach() for flip in flips)
        if any(is_on(end, rest=1) for end in self.scale):
            zoom = uniform(n, logarithm(self.scale[0]), logarithm(self.scale[1]), image, generator).exp()
            width, height = width / zoom, height / zoom
        if is_on(self.translation):
            x = x + 2 * uniform(n, -self.translation, self.translation, image, generator)
            y = y + 2 * uniform(n, -self.translation, self.translation, image, generator)
        affine = affine_map(x=x, y=y, width=width * mirror, height=height * upend, angle=angle, slant=slant)
        covered = 1 / smallest(self.scale[0]) / math.cos(math.radians(largest(self.shear)))
        return Warp(
            affine=affine,
            size=self.size,
            bend=self._bend(image, generator) if is_on(self.elastic) else None,
            padding=self.padding,
            antialias=max(image.shape[2:]) / self.size * covered > FINE,
            mirrored=torch.stack(flips, dim=1) if any(flip.requires_grad for flip in flips) else None,
        )

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(n, c, h, w)` float to `(n, c, size, size)`."""
        return self.draw(image, generator).image(image)

    def _bend(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        shape = (len(image), 2, CONTROL_POINTS, CONTROL_POINTS)
        return torch.randn(shape, generator=generator, device=image.device) * _each(2 * self.elastic)


def _each(strength: Strength) -> Strength:
    """A strength of each image, with the dimensions of control points to spread over."""
    return strength.view(-1, 1, 1, 1) if isinstance(strength, Tensor) else strength


def _mirrors_learn(view: Tensor, mirrored: Tensor) -> Tensor:
    """The view itself; the gradient of having been mirrored is the difference to the view that was not.

    The gradient through the affine map would not do: it tells of a view that shrinks to a line and opens again.
    """
    for gate, dimension in zip(mirrored.to(view.dtype).unbind(1), (3, 2), strict=True):
        side = (2 * gate.detach() - 1)[:, None, None, None]
        change = side * (view.detach() - view.detach().flip(dimension))
        view = view + (gate - gate.detach())[:, None, None, None] * change
    return view


def affine_map(*, x: Tensor, y: Tensor, width: Tensor, height: Tensor, angle: Tensor, slant: Tensor) -> Tensor:
    """The map `(n, 2, 3)` from a view to its image: stretched, slanted, turned and shifted, in that order.

    Args:
        x: `(n,)` where the centre of the view lies in the image, in -1..1.
        y: Likewise.
        width: `(n,)` share of the image's width that the view shows; negative mirrors it.
        height: Likewise.
        angle: `(n,)` radians, clockwise.
        slant: `(n,)` radians.
    """
    cos, sin, tan = angle.cos(), angle.sin(), slant.tan()
    top = torch.stack([cos * width, (cos * tan - sin) * height, x], dim=1)
    bottom = torch.stack([sin * width, (sin * tan + cos) * height, y], dim=1)
    return torch.stack([top, bottom], dim=1)


def resize(image: Tensor, size: int) -> Tensor:
    """The whole image at another size, `(n, c, size, size)`, anti-aliased: what an encoder is evaluated on."""
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)


def centres(size: int, like: Tensor) -> Tensor:
    """Where the centres of `size` pixels lie between -1 and 1, `(size,)`, in the type and on the device of `like`."""
    return (torch.arange(size, device=like.device, dtype=like.dtype) * 2 + 1) / size - 1


def _averaged(image: Tensor, factor: int) -> Tensor:
    """Means over squares of about that side, over the same extent."""
    if factor == 1:
        return image
    height, width = (-(-side // factor) for side in image.shape[2:])
    return F.adaptive_avg_pool2d(image, (height, width))


def _extent(shown: Tensor) -> tuple[Tensor, Tensor]:
    """First, and one past the last, index along the last axis where `shown`."""
    first = shown.int().argmax(-1)
    last = shown.shape[-1] - shown.flip(-1).int().argmax(-1)
    return first, last
