"""What every data set yields and every method reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Tensors of `n` images; a field that the data do not have is None."""

    image: Tensor
    """`(n, channels, height, width)`; uint8 or uint16 as stored, or float in 0..1."""
    label: Tensor | None = None
    """`(n,)` int64 with -1 for "no label", or `(n, classes)` float in {0, 1, NaN} for multi-label data."""
    index: Tensor | None = None
    """`(n,)` int64, the position of each image in its data set."""
    text: tuple[str, ...] | None = None
    """`(n,)` one text of each image."""

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; integers stay integers on the way, and texts where they are."""
        label, index = (t if t is None else t.to(device, non_blocking=True) for t in (self.label, self.index))
        return Batch(image=self.image.to(device, non_blocking=True), label=label, index=index, text=self.text)


def as_float(image: Tensor) -> Tensor:
    """Images as float in 0..1: uint8 divided by 255, uint16 by 65535, floats as they are (bf16 and fp16 to float32).

    Raises:
        TypeError: Any other type, whose value range is not known.
    """
    if image.dtype == torch.uint8:
        return image.float().div_(255)
    if image.dtype == torch.uint16:
        return image.float().div_(65535)
    if image.is_floating_point():
        return image if image.dtype == torch.float64 else image.float()
    raise TypeError(f"images are uint8, uint16 or float in 0..1; got {image.dtype}, so divide by its range first")
