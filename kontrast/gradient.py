"""Who learns from which term."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call


def detached_call(module: nn.Module, value: Tensor) -> Tensor:
    """What the module makes of the value, as if it were no part of this: no parameter learns and no statistic moves.

    The gradient goes through it to the value. Layers with batch statistics normalise by those of `value`, where the
    module is in training mode.
    """
    state = {name: parameter.detach() for name, parameter in module.named_parameters()}
    state |= {name: buffer.clone() for name, buffer in module.named_buffers()}
    found: Tensor = functional_call(module, state, (value,))
    return found


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, gradients go through the modules and none is made for their parameters, which saves time and memory."""
    learning = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


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
