"""Heads between the representation and the loss; thrown away after pre-training."""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def mlp(
    *widths: int, batch_norm: bool = True, last_norm: bool = False, last_affine: bool = False, leak: float = 0.0
) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them.

    Args:
        widths: At least two: input, any hidden, output.
        batch_norm: Normalise each hidden layer; its linear layer then needs no bias.
        last_norm: Normalise the output too (SimSiam's projector).
        last_affine: With a learned scale and shift.
        leak: Slope of the rectifiers below 0.
    """
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        normed = last_norm if last else batch_norm
        layers.append(nn.Linear(before, after, bias=not normed))
        if normed:
            layers.append(nn.BatchNorm1d(after, affine=last_affine or not last))
        if not last:
            layers.append(nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
