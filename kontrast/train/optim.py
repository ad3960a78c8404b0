"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

OptimiserName = Literal["sgd", "adamw"]


def build(kind: OptimiserName, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """The optimiser of a method's parameter groups; weights decay, norms and biases never do.

    A group may bring its own `weight_decay`.
    """
    split = [part for group in groups for part in _split(group, weight_decay)]
    if kind == "adamw":
        return torch.optim.AdamW(split, fused=True)
    return torch.optim.SGD(split, momentum=0.9, nesterov=True, fused=True)


class Schedule(Protocol):
    """How many steps a training takes, and the share of the peak rate in each."""

    @property
    def steps(self) -> int:
        """Steps in all; the last epoch may be cut short."""

    def factor(self, step: int) -> float:
        """Share of the peak rate in a step, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """A line up and half a cosine down, over a horizon that may be longer than the training."""

    steps: int
    horizon: int
    """Steps after which the rate would be 0 again."""
    warmup: float
    """Share of the horizon."""

    def factor(self, step: int) -> float:
        """Share of the peak rate in a step, counted from 0."""
        return schedule(step / self.horizon, self.warmup)


def schedule(progress: float, warmup: float) -> float:
    """Share of the peak rate at a share of the training: a line up to `warmup`, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its peak, except where it is constant."""
    for group in optimiser.param_groups:
        peak = group.setdefault("peak_lr", group["lr"])
        group["lr"] = peak if group.get("constant_lr") else peak * factor


def _split(group: dict[str, Any], weight_decay: float) -> list[dict[str, Any]]:
    shared = {k: v for k, v in group.items() if k != "params"}
    decayed = [p for p in group["params"] if p.ndim > 1]
    others = [p for p in group["params"] if p.ndim <= 1]
    parts = ((decayed, group.get("weight_decay", weight_decay)), (others, 0.0))
    return [{**shared, "params": params, "weight_decay": decay} for params, decay in parts if params]
