"""Who learns from which term."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, no parameter of the module receives a gradient, while gradients still pass through it to its input."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return value.view_as(value)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grad: Tensor) -> tuple[Tensor, None]:
        return grad[0] * ctx.factor, None  # type: ignore[attr-defined]


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """The value itself, whose gradient is multiplied by `factor` on the way back: 0 stops it, -1 reverses it.

    Reversal is Ganin & Lempitsky, *Unsupervised Domain Adaptation by Backpropagation*, ICML 2015.
    """
    scaled: Tensor = _ScaleGradient.apply(value, factor)  # type: ignore[no-untyped-call]
    return scaled


@torch.no_grad()
def move_average(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Teacher = momentum * teacher + (1 - momentum) * student, for parameters; buffers (running statistics) are copied.

    Source: He et al., *MoCo*, CVPR 2020, equation 2.
    """
    teachers: list[Tensor] = list(teacher.parameters())
    students: list[Tensor] = list(student.parameters())
    torch._foreach_lerp_(teachers, students, 1 - momentum)
    for old, new in zip(teacher.buffers(), student.buffers(), strict=True):
        old.copy_(new)
