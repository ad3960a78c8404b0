"""What a policy is made of: every operation with its unit, how far it is learned, and where it ends to make sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kontrast.augment.geometry import Geometry, Strength
from kontrast.augment.intensity import Intensity
from kontrast.augment.policies import Policy

Form = Literal["width", "probability", "share", "ratio", "top"]
Range = tuple[Strength, Strength]
Constant = float | tuple[float, float]


EXCHANGED = 0.5
"""Reach of what turns an image into a counterpart: far beyond it, views become those of the counterparts, and no more
varied, which neither labels nor contrast could tell, while the encoder is to be used on the images themselves. A policy
that begins there may go to 0.625, as any that begins at its reach may go a quarter further."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One strength of a policy, and the one number, its width, by which it is learned; at 0 nothing happens."""

    part: Literal["geometry", "intensity"]
    what: str
    """With its unit."""
    form: Form = "width"
    """What a constant is: `width` is the number itself, and so is a `probability`; a `ratio` or a `share` (a ratio
    below 1) is a range whose logarithm, at its farther end, is the width, and a `top` one whose upper end is."""
    reach: float = 1.0
    """The width up to which it may be learned, for images of 224 px where it is in pixels."""
    limit: float = math.inf
    """The largest width that makes sense."""
    depends_on: str | None = None
    """A probability without which it does nothing."""
    colour: bool = False
    """Whether it needs three channels."""
    pixels: bool = False
    """Whether it is in pixels, and so scales with the size of the views."""

    def width(self, constant: Constant) -> float:
        """How much a constant does; 0 for nothing."""
        if isinstance(constant, float | int):
            return float(constant)
        low, high = constant
        return high if self.form == "top" else max(abs(math.log(low)), abs(math.log(high)))

    def ends(self) -> tuple[float, float]:
        """Between which numbers a range lies."""
        if self.form == "top":
            return 0.0, self.limit
        return math.exp(-self.limit), 1.0 if self.form == "share" else math.exp(self.limit)

    def at(self, width: Tensor, start: Constant) -> Strength | Range:
        """What a width stands for; both ends of a range move in the proportion that they have in `start`."""
        if isinstance(start, float | int):
            return width
        low, high = start
        whole = self.width(start)
        if self.form == "top":
            return width * (low / whole), width
        return torch.exp(width * (math.log(low) / whole)), torch.exp(width * (math.log(high) / whole))

    def shown(self, width: Tensor) -> Tensor:
        """The width as the end of the constant that it moves: the smallest share, the largest ratio."""
        if self.form == "share":
            return (-width).exp()
        return width.exp() if self.form == "ratio" else width


def _chance(
    part: Literal["geometry", "intensity"], what: str, *, reach: float = 1.0, colour: bool = False
) -> Operation:
    return Operation(part=part, what=f"probability {what}", form="probability", reach=reach, limit=1.0, colour=colour)


def _tone(what: str, reach: float, limit: float = 1.0, *, colour: bool = False) -> Operation:
    return Operation(part="intensity", what=what, reach=reach, limit=limit, depends_on="probability", colour=colour)


OPERATIONS: dict[str, Operation] = {
    "area": Operation(part="geometry", what="share of the image area, smallest and largest", form="share",
                      reach=math.log(4), limit=math.log(100)),
    "aspect": Operation(part="geometry", what="width over height, smallest and largest", form="ratio",
                        reach=math.log(2), limit=math.log(10)),
    "scale": Operation(part="geometry", what="magnification, smallest and largest", form="ratio", reach=math.log(2),
                       limit=math.log(10)),
    "rotation": Operation(part="geometry", what="degrees, largest to either side", reach=30, limit=225),
    "shear": Operation(part="geometry", what="degrees, largest to either side", reach=30, limit=60),
    "translation": Operation(part="geometry", what="fraction of the side, largest to either side", reach=0.25,
                             limit=1),
    "flip": _chance("geometry", "of mirroring left and right", reach=EXCHANGED),
    "flip_vertical": _chance("geometry", "of mirroring top and bottom", reach=EXCHANGED),
    "elastic": Operation(part="geometry", what="fraction of the side, standard deviation of the displacement",
                         reach=0.1, limit=0.5),
    "probability": _chance("intensity", "of stain, gain, brightness, contrast, saturation, hue and gamma"),
    "stain": _tone("fraction, largest change of a stain's density", 0.5, colour=True),
    "gain": _tone("fraction, largest change of a channel", 0.5),
    "brightness": _tone("fraction, largest change", 0.6),
    "contrast": _tone("fraction, largest change", 0.6),
    "saturation": _tone("fraction, largest change", 0.6, colour=True),
    "hue": _tone("fraction of the full circle, largest turn to either side", 0.1, 0.5, colour=True),
    "grey": _chance("intensity", "of losing all colour", colour=True),
    "inversion": _chance("intensity", "of the negative", reach=EXCHANGED),
    "gamma": _tone("largest logarithm of the exponent", 0.7, 3),
    "blur": _chance("intensity", "of Gaussian blur"),
    "sigma": Operation(part="intensity", what="pixels, smallest and largest standard deviation of the blur",
                       form="top", reach=4, limit=100, depends_on="blur", pixels=True),
    "noise": Operation(part="intensity", what="fraction of the value range, largest standard deviation", reach=0.1,
                       limit=1),
    "cutout": _chance("intensity", "of cutting a rectangle out"),
    "cutout_side": Operation(part="intensity", what="fraction of the side, smallest and largest side of the rectangle",
                             form="top", reach=0.6, limit=1, depends_on="cutout"),
}  # fmt: skip
"""By the names of the arguments of `Geometry` and `Intensity`. Rotations by 180 degrees are all there are; the limit
lies above, so that a policy may begin there and learn."""

TONES = tuple(name for name, operation in OPERATIONS.items() if operation.depends_on == "probability")


def constants(policy: Policy) -> dict[str, Constant]:
    """Every operation's constant in a policy."""
    return {name: getattr(getattr(policy, operation.part), name) for name, operation in OPERATIONS.items()}


def compose(size: int, padding: str, values: Mapping[str, Strength | Range]) -> Policy:
    """The policy of these strengths."""
    parts: dict[str, dict[str, Strength | Range]] = {"geometry": {}, "intensity": {}}
    for name, value in values.items():
        parts[OPERATIONS[name].part][name] = value
    return Policy(
        Geometry(size, padding=padding, **parts["geometry"]),  # type: ignore[arg-type]
        Intensity(**parts["intensity"]),  # type: ignore[arg-type]
    )


def in_use(found: dict[str, Constant], channels: int) -> list[str]:
    """Names of the operations that change a view of so many channels."""

    def widths(names: tuple[str, ...]) -> list[float]:
        return [OPERATIONS[n].width(found[n]) for n in names if channels == 3 or not OPERATIONS[n].colour]

    def works(name: str) -> bool:
        operation = OPERATIONS[name]
        if not any(widths((name,))) or (name == "probability" and not any(widths(TONES))):
            return False
        return operation.depends_on is None or OPERATIONS[operation.depends_on].width(found[operation.depends_on]) > 0

    return [name for name in OPERATIONS if works(name)]
