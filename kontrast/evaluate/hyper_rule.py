"""BiT-HyperRule: how to fine-tune, decided by the number of images and their size alone.

Source: Kolesnikov et al., *Big Transfer (BiT): General Visual Representation Learning*, ECCV 2020, section 3.3, and its
code, which have plain momentum where ours is Nesterov's.
"""

from __future__ import annotations

from dataclasses import dataclass

LR = 0.003
"""At `BATCH_SIZE`; scaled with the batch."""
BATCH_SIZE = 512
SMALL_BELOW = 96 * 96
"""Pixels of an image."""
MIXUP_FROM = 20_000
"""Training images."""


@dataclass(frozen=True, kw_only=True)
class HyperRule:
    """What the rule decides; a schedule of `train.fit`."""

    steps: int
    """Of the optimiser."""
    warmup: int
    """Steps in which the rate rises from 0 along a line."""
    decays: tuple[int, int, int]
    """The rate is a tenth after each of these steps."""
    mixup: float
    """Alpha of MixUp; 0 for none."""
    resize: int
    """Side to which an image is resized for training, in pixels."""
    crop: int
    """Side of the views that are cut from it, and of the images when predicting."""

    @classmethod
    def of(cls, num_images: int, side: int) -> HyperRule:
        """The rule for so many training images, squares of so many pixels a side."""
        if num_images < MIXUP_FROM:
            steps, warmup, decays = 500, 100, (200, 300, 400)
        elif num_images < 500_000:
            steps, warmup, decays = 10_000, 500, (3_000, 6_000, 9_000)
        else:
            steps, warmup, decays = 20_000, 500, (6_000, 12_000, 18_000)
        resize, crop = (160, 128) if side * side < SMALL_BELOW else (512, 480)
        mixup = 0.1 if num_images >= MIXUP_FROM else 0.0
        return cls(steps=steps, warmup=warmup, decays=decays, mixup=mixup, resize=resize, crop=crop)

    @property
    def area(self) -> float:
        """Share of the resized image that a view shows."""
        return (self.crop / self.resize) ** 2

    def factor(self, step: int) -> float:
        """Share of the peak rate in a step, counted from 0; steps from `steps` on are none of the rule's."""
        if step < self.warmup:
            return step / self.warmup
        return 0.1 ** sum(step > decay for decay in self.decays)
