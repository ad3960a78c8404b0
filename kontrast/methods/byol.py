"""BYOL: Grill et al., *Bootstrap Your Own Latent*, NeurIPS 2020."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kontrast import gradient, losses, measures
from kontrast.augment.policies import Policy
from kontrast.batch import Batch
from kontrast.methods.base import Method, Objective, each_alone
from kontrast.nn.encoders import Encoder
from kontrast.nn.heads import mlp


class BYOL(Method):
    """A student predicts what a slowly moving teacher makes of the other view; there are no negatives (algorithm 1)."""

    prefers_batch_norm: ClassVar[bool] = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Hyper-parameters of BYOL."""

        hidden: int = 1024
        """Width inside projection and prediction; the paper has 4,096 for a 2,048-wide encoder."""
        width: int = 256
        """Width of the embedding; the paper's."""
        momentum: float = 0.99
        """Of the teacher at the start, rising to 1; the paper has 0.996 for runs of 300,000 steps."""

    def __init__(self, encoder: Encoder, augment: Policy, config: Config | None = None) -> None:
        super().__init__(encoder, augment)
        config = config or self.Config()
        self.momentum = config.momentum
        self.project = mlp(encoder.width, config.hidden, config.width)
        self.predict = mlp(config.width, config.hidden, config.width)
        self.teacher_encoder = deepcopy(self.encoder).requires_grad_(False)
        self.teacher_project = deepcopy(self.project).requires_grad_(False)

    def forward(self, batch: Batch) -> Objective:
        """Symmetric squared distance of unit vectors, 2 - 2 cosine, summed over both directions (equation 2)."""
        views = self.views(batch.image)
        a, b = each_alone(self.project, each_alone(self.encoder, views))
        p, q = each_alone(self.predict, (a, b))
        with torch.no_grad():
            target_a, target_b = each_alone(self.teacher_project, each_alone(self.teacher_encoder, views))
        loss = _distance(p, target_b) + _distance(q, target_a)
        return Objective(loss, {"spread": measures.spread(a.detach())})

    def after_step(self, progress: float) -> None:
        """Move the teacher, ever more slowly, towards the student (section 3.2)."""
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        gradient.move_average(self.teacher_encoder, self.encoder, momentum)
        gradient.move_average(self.teacher_project, self.project, momentum)


def _distance(prediction: Tensor, target: Tensor) -> Tensor:
    return 2 + 2 * losses.negative_cosine(prediction, target)
