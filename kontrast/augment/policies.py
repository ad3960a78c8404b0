"""Policies: which augmentation suits which kind of image, and why.

Blur is given for images of 224 px and scaled to others; below 64 px there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kontrast.augment.geometry import Geometry, Warp
from kontrast.augment.intensity import Intensity, Tone
from kontrast.batch import as_float

CHUNK = 2**20
"""Values of a view worked on at a time on the CPU: what its caches hold."""


class Policy(nn.Module):
    """Geometry, then intensity: one random view of each image."""

    geometry: Geometry
    intensity: Intensity

    def __init__(self, geometry: Geometry, intensity: Intensity) -> None:
        super().__init__()
        self.geometry, self.intensity = geometry, intensity

    @property
    def size(self) -> int:
        """Side of the views in pixels."""
        return self.geometry.size

    def freeze(self) -> Policy:
        """The policy as it stands, with constants for whatever learns; a plain one is that already."""
        return self

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(n, c, h, w)` uint8, uint16 or float in 0..1 to views `(n, c, size, size)`, float in 0..1.

        Draws come from `generator`, or from torch's own generator of the device.
        """
        return self.render(image, *self.draw(image, generator), generator)

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Warp, Tone]:
        """What a view of each image will be. The warp also moves masks and boxes, and says which pixel went where."""
        return self.geometry.draw(image, generator), self.intensity.draw(image, generator)

    def render(self, image: Tensor, warp: Warp, tone: Tone, generator: torch.Generator | None = None) -> Tensor:
        """The views of `(n, c, h, w)` images that were drawn; only the noise, pixel by pixel, is still drawn here."""
        values = image.shape[1] * self.size**2
        step = max(1, CHUNK // values) if image.device.type == "cpu" else len(image)
        chunks = (slice(start, start + step) for start in range(0, len(image), step))
        return torch.cat([tone.take(c).image(warp.take(c).image(as_float(image[c])), generator) for c in chunks])


class RandAugment(Policy):
    """Crops every view and gives it a few of a list of operations, chosen anew for each, all of one common strength.

    After Cubuk et al., *RandAugment*, NeurIPS 2020, which always takes its magnitude in full and has the operations of
    Pillow; here each is drawn evenly up to it, to either side.
    """

    STRENGTHS: ClassVar[dict[str, float]] = {
        "rotation": 30.0,
        "shear": 17.0,
        "translation": 0.2,
        "brightness": 0.8,
        "contrast": 0.8,
        "gamma": 0.8,
        "noise": 0.1,
        "saturation": 0.8,
        "hue": 0.2,
    }
    """At magnitude 1; the last two are for images of three channels."""

    def __init__(self, size: int, *, count: int = 2, magnitude: float = 0.6) -> None:
        """Set how much happens.

        Args:
            size: Side of the views in pixels.
            count: Operations of each view, beside the crop; N of the paper.
            magnitude: Share of the strengths in `STRENGTHS`; M of the paper over its maximum.
        """
        super().__init__(Geometry(size, area=(0.3, 1), aspect=(3 / 4, 4 / 3)), Intensity())
        self.count, self.magnitude = count, magnitude

    def draw(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Warp, Tone]:
        """What a view of each image will be."""
        names = [name for name in self.STRENGTHS if image.shape[1] == 3 or name not in ("saturation", "hue")]
        order = torch.rand(len(image), len(names), generator=generator, device=image.device).argsort(dim=1)
        chosen = torch.zeros_like(order, dtype=torch.float32).scatter(1, order[:, : self.count], self.magnitude)
        found = {name: self.STRENGTHS[name] * chosen[:, i] for i, name in enumerate(names)}
        turned = {name: found.pop(name) for name in ("rotation", "shear", "translation")}
        geometry = Geometry(self.size, area=self.geometry.area, aspect=self.geometry.aspect, **turned)  # type: ignore[arg-type]
        return geometry.draw(image, generator), Intensity(**found).draw(image, generator)  # type: ignore[arg-type]


def natural(size: int) -> Policy:
    """Photographs: the recipe of SimCLR as MoCo v2 and SimSiam use it."""
    return Policy(
        Geometry(size, area=(0.2, 1), aspect=(3 / 4, 4 / 3), flip=0.5, padding="border"),
        Intensity(
            probability=0.8,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            grey=0.2,
            **_blur(size, 0.5, 2),
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
            **_blur(size, 0.3, 1.5),
            noise=0.02,
        ),
    )


def ct(size: int) -> Policy:
    """Computed tomography: Hounsfield units are measured, so brightness and contrast move little, as a window might.

    No gamma, which no scanner applies. Blur and noise stand for reconstruction kernels and dose. No mirroring: the
    liver is on the right.
    """
    return Policy(
        Geometry(size, area=(0.4, 1), aspect=(4 / 5, 5 / 4), rotation=10),
        Intensity(
            probability=0.8,
            brightness=0.1,
            contrast=0.15,
            **_blur(size, 0.3, 1.5),
            noise=0.03,
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
            **_blur(size, 0.3, 1.5),
            noise=0.04,
        ),
    )


def ultrasound(size: int) -> Policy:
    """Ultrasound: gain and its curve over the grey levels are set by hand, so both vary widely; speckle is noise.

    Mirrored left and right, as a probe is held either way round, but never upside down: depth is the vertical axis, and
    echoes fade along it. Turned little, for the same reason.
    """
    return Policy(
        Geometry(size, area=(0.4, 1), aspect=(4 / 5, 5 / 4), rotation=10, flip=0.5),
        Intensity(
            probability=0.8,
            brightness=0.4,
            contrast=0.4,
            gamma=0.4,
            **_blur(size, 0.3, 2),
            noise=0.06,
        ),
    )


def histology(size: int) -> Policy:
    """Stained sections: stains vary between laboratories, colour between scanners; a section has no upright.

    Stains are jittered in optical density, where they mix linearly (Tellez et al., 2019); the hue is left alone, since
    which stain a cell took is the finding. Turned and mirrored freely, with reflected edges for lack of a background.
    """
    return Policy(
        Geometry(
            size, area=(0.2, 1), aspect=(3 / 4, 4 / 3), rotation=180, flip=0.5, flip_vertical=0.5, padding="reflection"
        ),
        Intensity(
            probability=0.8,
            stain=0.2,
            brightness=0.2,
            contrast=0.2,
            **_blur(size, 0.5, 2),
        ),
    )


def dermoscopy(size: int) -> Policy:
    """Skin lesions: light and camera vary, and there is no upright; colour is evidence, so the hue moves little.

    Crops are large, since border and asymmetry of the whole lesion are what is judged, and are not stretched.
    """
    return Policy(
        Geometry(size, area=(0.4, 1), rotation=180, flip=0.5, flip_vertical=0.5, padding="reflection"),
        Intensity(
            probability=0.8,
            gain=0.1,
            brightness=0.3,
            contrast=0.3,
            saturation=0.2,
            hue=0.02,
            **_blur(size, 0.3, 1.5),
        ),
    )


def captioned(size: int) -> Policy:
    """Pictures with texts, which say what is left and what is red: no mirroring, colours that keep their names.

    Crops are large, so that what a text mentions stays in the picture.
    """
    return Policy(
        Geometry(size, area=(0.5, 1), aspect=(4 / 5, 5 / 4), rotation=10, padding="border"),
        Intensity(probability=0.8, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02),
    )


POLICIES: dict[str, Callable[[int], Policy]] = {
    "captioned": captioned,
    "ct": ct,
    "dermoscopy": dermoscopy,
    "digits": digits,
    "histology": histology,
    "mri": mri,
    "natural": natural,
    "randaugment": RandAugment,
    "ultrasound": ultrasound,
    "xray": xray,
}


def _blur(size: int, probability: float, largest: float) -> dict[str, Any]:
    """Blur up to a standard deviation given for 224 px; none below 64 px, where it would hardly show."""
    return {"blur": probability if size >= 64 else 0.0, "sigma": (0.1 * size / 224, largest * size / 224)}
