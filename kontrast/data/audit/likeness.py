"""How alike two images are, once position, scale, brightness, contrast and tone are allowed to differ a little.

Every image is looked at as a thumbnail. Where its border is uniform, as with a digit on black or a drawing on white,
the thumbnail frames what is on it, so that shifted and scaled copies look the same. One thumbnail then explains
another by least squares, from itself, its square (tone), its slopes (shift) and its slopes times their place (scale).
What is left unexplained is spread all over for a copy, and concentrated where two different images differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kontrast.data.images import SCALES, ImageSet
from kontrast.data.progress import progress

SIDE = 32
"""Of a thumbnail, in pixels."""
COLOUR_SIDE = 8
LEAST_CONTRAST = 1 / 255
"""Standard deviation below which an image counts as constant, on the scale 0..1."""
FAR = 0.15
"""Unexplained share above which it does not matter how far two images are apart."""
_BLOCK = 256
_PAIRS = 64
_CUT = 1
_INNER = SIDE - 2 * _CUT
_TILES = 6
_CONCENTRATED = 3.0
"""How much worse a difference is that lies in one place than one that is spread over all."""
_OTHER_COLOUR = 0.2
"""Difference of the colours of copies, as a share of the stronger, once they are made as strong as each other."""
_MARGIN = 1.15
_SOFTNESS = 2.2
"""Reach of the filter of a thumbnail, in its pixels."""

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """What `n` images look like in small."""

    grey: NDArray[np.float16]
    """`(n, 32, 32)` of mean 0 and variance 1; all 0 where an image is constant."""
    mean: Floats
    """`(n,)` brightness in 0..1."""
    contrast: Floats
    """`(n,)` standard deviation on that scale."""
    colour: Floats
    """`(n, 128)` red and blue less grey, on 8 x 8 pixels, or `(n, 0)` for grey images."""

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, positions: Positions) -> Looks:
        """Those at `positions`."""
        return Looks(**{name: values[positions] for name, values in vars(self).items()})

    def turned(self, quarters: int, mirrored: bool) -> Looks:
        """The same images turned by so many quarters of a circle, and mirrored before that."""
        colour = self.colour.reshape(len(self), -1, COLOUR_SIDE, COLOUR_SIDE)
        return Looks(
            grey=_turn(self.grey, quarters, mirrored),
            mean=self.mean,
            contrast=self.contrast,
            colour=_turn(colour, quarters, mirrored).reshape(len(self), self.colour.shape[1]),
        )


def looks(data: ImageSet) -> Looks:
    """What the images look like in small; a memory-mapped set is walked in blocks."""
    scale = SCALES[data.pixels.dtype.name]
    found = []
    with progress("Looking at images", total=len(data)) as advance:
        for start in range(0, len(data), _BLOCK):
            chosen = slice(start, start + _BLOCK)
            pixels = data.pixels[data.rows[chosen]].astype(np.float32) / np.float32(scale)
            shapes = None if data.facts is None else data.facts.shape[chosen]
            found.append(_look(pixels, shapes))
            advance(len(pixels))
    return Looks(**{name: np.concatenate([vars(each)[name] for each in found]) for name in vars(found[0])})


def unlike(first: Looks, second: Looks) -> Floats:
    """How little the images of `first` explain those of `second`, one by one, and the other way round below `FAR`.

    Returns:
        `(n,)` unexplained share of the variance, of the whole thumbnail or three times that of its worst place,
        whichever is more; 1 where colour, brightness or contrast differ too much, or one must be moved too far.
    """
    found = np.ones(len(first), np.float32)
    possible = np.flatnonzero(_same_tone(first, second))
    for start in range(0, len(possible), _PAIRS):
        chosen = possible[start : start + _PAIRS]
        one, other = (each.grey[chosen].astype(np.float32) for each in (first, second))
        share = _unexplained(one, other)
        near = np.flatnonzero(share < FAR)
        share[near] = np.maximum(share[near], _unexplained(other[near], one[near]))
        found[chosen] = share
    return found


def _look(pixels: Floats, shapes: Positions | None) -> Looks:
    """`(n, c, side, side)` in 0..1; `shapes` `(n, 2)` tell what of the square is the image and not its margin."""
    grey = pixels.mean(axis=1)
    ground, centre, reach = _frames(grey, shapes)
    rows, columns = (_sampling(centre[:, axis], reach[:, axis], grey.shape[1], SIDE) for axis in (0, 1))
    small = rows @ (grey - ground[:, None, None]) @ columns.transpose(0, 2, 1)
    mean = small.mean(axis=(1, 2))
    small -= mean[:, None, None]
    contrast = small.std(axis=(1, 2))
    small /= np.maximum(contrast, LEAST_CONTRAST / 4)[:, None, None]
    small[contrast < LEAST_CONTRAST / 2] = 0
    colour = np.zeros((len(pixels), 0), np.float32)
    if pixels.shape[1] == 3:
        rows, columns = (_sampling(centre[:, axis], reach[:, axis], grey.shape[1], COLOUR_SIDE) for axis in (0, 1))
        excess = (pixels - grey[:, None])[:, ::2]
        colour = (rows[:, None] @ excess @ columns.transpose(0, 2, 1)[:, None]).reshape(len(pixels), -1)
    return Looks(grey=small.astype(np.float16), mean=mean + ground, contrast=contrast, colour=colour)


def _frames(grey: Floats, shapes: Positions | None) -> tuple[Floats, Floats, Floats]:
    """Brightness of the ground `(n,)`, and centre and reach `(n, 2)` in pixels of what a thumbnail shows."""
    count, side, _ = grey.shape
    whole = np.full((count, 2), side, np.float32)
    if shapes is not None:
        whole = np.round(shapes * np.minimum(1, side / shapes.max(axis=1, keepdims=True))).astype(np.float32)
    edge = (side - whole) // 2
    place = np.arange(side)
    inside = [(place >= edge[:, axis, None]) & (place < (edge + whole)[:, axis, None]) for axis in (0, 1)]
    image = inside[0][:, :, None] & inside[1][:, None, :]
    ring = image & ~(_inner(inside[0])[:, :, None] & _inner(inside[1])[:, None, :])
    ground = np.array([np.median(one[on]) for one, on in zip(grey, ring, strict=True)], np.float32)
    away = np.abs(grey - ground[:, None, None]) * image
    top = away.max(axis=(1, 2))
    uniform = ((away < 0.1 * top[:, None, None]) & ring).sum(axis=(1, 2)) >= 0.6 * ring.sum(axis=(1, 2))
    there = away > np.maximum(0.2 * top, 1e-6)[:, None, None]
    low, high = (np.stack(ends, axis=1) for ends in zip(_ends(there.any(2)), _ends(there.any(1)), strict=True))
    square = np.repeat(_MARGIN * (high - low).max(axis=1, keepdims=True), 2, axis=1)
    framed = uniform[:, None] & (top > 1e-6)[:, None]
    centre = np.where(framed, (low + high) / 2, edge + whole / 2)
    return ground, centre.astype(np.float32), np.where(framed, square, whole).astype(np.float32)


def _inner(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`(n, side)` less the first and last place of each row."""
    padded = np.pad(inside, ((0, 0), (1, 1)))
    return inside & padded[:, :-2] & padded[:, 2:]


def _ends(there: NDArray[np.bool_]) -> tuple[Positions, Positions]:
    """First place and the one after the last, `(n,)` each."""
    return there.argmax(axis=1), there.shape[1] - there[:, ::-1].argmax(axis=1)


def _sampling(centre: Floats, reach: Floats, size: int, side: int) -> Floats:
    """`(n, side, size)` weights that take `size` pixels to `side`, each a triangle wide enough to skip none."""
    step = reach / side
    places = centre[:, None] + (np.arange(side, dtype=np.float32) + 0.5 - side / 2) * step[:, None]
    half = np.sqrt(np.maximum(step, 1) ** 2 + (_SOFTNESS * step * (side == SIDE)) ** 2)
    beyond = int(np.ceil(half.max(initial=1))) + size // 4  # what is outside the image shows the ground
    far = np.abs(np.arange(-beyond, size + beyond, dtype=np.float32) + 0.5 - places[:, :, None])
    weights = np.maximum(0, 1 - far / half[:, None, None])
    whole = np.maximum(weights.sum(axis=2, keepdims=True), 1e-6)
    return np.asarray(weights[:, :, beyond : beyond + size] / whole, dtype=np.float32)


def _unexplained(one: Floats, other: Floats) -> Floats:
    """The share of the variance of `other` `(p, 32, 32)` that `one` does not explain, at large or in one place."""
    slopes = np.gradient(one, axis=(1, 2))
    place = ((np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE - 0.5) * 2
    moves = [*slopes, slopes[0] * place[:, None], slopes[1] * place]
    inner = slice(_CUT, SIDE - _CUT)
    causes = np.stack([np.ones_like(one), one, one * one, *moves], axis=1)[:, :, inner, inner]
    causes = causes.reshape(len(one), 7, _INNER**2)
    seen = other[:, inner, inner].reshape(len(one), 1, _INNER**2)
    products = causes @ causes.transpose(0, 2, 1)
    products += 1e-6 * np.trace(products, axis1=1, axis2=2)[:, None, None] * np.eye(7, dtype=np.float32)
    how = np.linalg.solve(products, causes @ seen.transpose(0, 2, 1))[:, :, 0]
    left = (seen - how[:, None] @ causes)[:, 0] ** 2 / np.maximum(seen.var(axis=2), 1e-6)
    tiles = left.reshape(len(one), _TILES, _INNER // _TILES, _TILES, _INNER // _TILES).mean(axis=(2, 4))
    share = np.maximum(left.mean(axis=1), _CONCENTRATED * tiles.max(axis=(1, 2)) / _TILES**2)
    moved = np.abs(how[:, 3:]).max(axis=1) > 2.5 * how[:, 1]
    return np.where(moved | (how[:, 1] < 0.3), 1, share).astype(np.float32)


def _same_tone(first: Looks, second: Looks) -> NDArray[np.bool_]:
    """Whether brightness, contrast and colour differ no more than copies may; `(n,)`."""
    ratio = first.contrast / np.maximum(second.contrast, 1e-6)
    apart = np.abs(first.mean - second.mean)
    near: NDArray[np.bool_] = (apart < 0.2) & (ratio < 1.6) & (ratio > 1 / 1.6)
    if not first.colour.shape[1]:
        return near
    strength = np.stack([_strength(first.colour), _strength(second.colour)])
    less, more = strength.min(axis=0), strength.max(axis=0)
    faded = (less < 0.15 * more) & (apart < 0.05) & (ratio < 1.2) & (ratio > 1 / 1.2)
    scale = np.clip(strength[0] / np.maximum(strength[1], 1e-6), 0.7, 1.4)
    same = _strength(first.colour - second.colour * scale[:, None]) < _OTHER_COLOUR * more
    return np.asarray(near & ((more < 0.02) | faded | same))


def _strength(colour: Floats) -> Floats:
    """Root mean square of each row."""
    return np.asarray(np.sqrt((colour**2).mean(axis=1)))


def _turn(images: NDArray[Any], quarters: int, mirrored: bool) -> NDArray[Any]:
    return np.ascontiguousarray(np.rot90(images[..., ::-1] if mirrored else images, quarters, axes=(-2, -1)))
